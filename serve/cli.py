"""The one console command: gathers every floor's verbs, and turns what goes wrong into a message and an exit code."""

import sys

if __name__ == "__main__":  # before the imports below, which take a while in which a signal may come
    from serve.command import main

    sys.exit(main())

from typing import Any

import typer
from rich.console import Console
from rich.markup import escape
from typer.core import TyperGroup

import bench.cli
import optimize.cli
from optimize import interrupts
from optimize.errors import MachineError, SeatrialError

from . import sweeping, verbs


class Verbs(TyperGroup):
    """The command group: no traceback for what seatrial raises on purpose."""

    def invoke(self, ctx: Any) -> Any:
        """Run the verb; exit 0 pass, 1 failed, 2 usage, 3 could not tell, 4 invalid environment, 130 interrupted."""
        with interrupts.handled():
            return self._invoke(ctx)

    def _invoke(self, ctx: Any) -> Any:
        try:
            with interrupts.reported():
                sweeping.sweep()
                return super().invoke(ctx)
        except SeatrialError as error:
            _complain(error)
            raise typer.Exit(error.exit_code) from error
        except KeyboardInterrupt as error:
            notes = getattr(error, "__notes__", [interrupts.STOPPED])
            Console(stderr=True).print(f"[yellow]interrupted:[/] {escape('; '.join(notes))}", soft_wrap=True)
            raise typer.Exit(interrupts.exit_code()) from error
        except OSError as error:
            wrong = MachineError(
                f"the system refused: {error.strerror or error}",
                where=str(error.filename or ""),
                next_step="mend that, run again",
            )
            _complain(wrong)
            raise typer.Exit(wrong.exit_code) from error


def _complain(error: SeatrialError) -> None:
    console = Console(stderr=True)
    console.print(f"[bold red]error:[/] {escape(error.what)}", soft_wrap=True, highlight=False)
    if error.where:
        console.print(f"[dim]where:[/] {escape(error.where)}", soft_wrap=True, highlight=False)
    if error.next_step:
        console.print(f"[dim]next: [/] {escape(error.next_step)}", soft_wrap=True, highlight=False)


app = typer.Typer(
    cls=Verbs,
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode="rich",
    add_completion=False,
    help="From a trained model to a gated, observable Triton deployment: every claim measured, every step undoable.",
    epilog="Exit codes: 0 pass or done, 1 verdict failed, 2 wrong config or usage, 3 could not tell, 4 the environment "
    "made the run invalid, 130 interrupted (143 by SIGTERM, 129 by SIGHUP). What seatrial keeps lies under "
    "SEATRIAL_HOME (default ./.seatrial).",
)
optimize.cli.add_verbs(app)
bench.cli.add_verbs(app, verbs.hosting)
verbs.add_verbs(app)
