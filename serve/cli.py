"""The one console command: gathers every floor's verbs, and turns what goes wrong into a message and an exit code."""

import io
import sys
from contextlib import suppress

if __name__ == "__main__":  # before the imports below, which take a while in which a signal may come
    from seatrial.serve.command import main

    sys.exit(main())

from copy import copy
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from typer.core import TyperGroup

import seatrial
from seatrial.bench import verbs as bench_verbs
from seatrial.optimize import experimental, interrupts
from seatrial.optimize import verbs as optimize_verbs
from seatrial.optimize.errors import MachineError, SeatrialError
from seatrial.optimize.lazy_verbs import LazyVerbs
from seatrial.optimize.terminal import err, led
from seatrial.optimize.visible import visible

from . import verbs
from .unexpected import unexpected

if TYPE_CHECKING:
    from seatrial.bench.targets import Host
    from seatrial.optimize.inspection import Inspection

_Usage: type[Exception] = typer.BadParameter.mro()[2]  # click's ClickException, wherever this typer keeps its click


class Verbs(TyperGroup):
    """The command group: a message and an exit code for whatever goes wrong, a traceback for none of it."""

    def make_context(self, *arguments: Any, **options: Any) -> Any:
        """Read the arguments of the command itself; what is wrong with them is printed without control characters."""
        try:
            return super().make_context(*arguments, **options)
        except _Usage as error:
            raise _shown(error) from None

    def invoke(self, ctx: Any) -> Any:
        """Run the verb; exit 0 pass, 1 failed, 2 usage, 3 could not tell, 4 invalid environment, 5 damaged record,
        70 a fault of seatrial, 130 interrupted.
        """
        for stream in (sys.stdout, sys.stderr):
            if isinstance(stream, io.TextIOWrapper):
                with suppress(OSError, ValueError):  # closed, or no longer what it was opened as
                    stream.reconfigure(errors="backslashreplace")
        with interrupts.handled():
            return self._invoke(ctx)

    def _invoke(self, ctx: Any) -> Any:
        try:
            from . import sweeping  # not for the help

            with interrupts.reported(), experimental.reported(_note):
                sweeping.sweep()
                return super().invoke(ctx)
        except SeatrialError as error:
            _complain(error)
            raise typer.Exit(error.exit_code) from error
        except KeyboardInterrupt as error:
            notes = getattr(error, "__notes__", [interrupts.STOPPED])
            err.print(led("yellow", "interrupted:", f" {'; '.join(notes)}"), soft_wrap=True)
            raise typer.Exit(interrupts.exit_code()) from error
        except _Usage as error:
            raise _shown(error) from None
        except (typer.Exit, typer.Abort):
            raise
        except Exception as error:
            wrong = _refused(error) if isinstance(error, OSError) else unexpected(error)
            _complain(wrong)
            raise typer.Exit(wrong.exit_code) from error


class _Command(Verbs):
    """The command with the verbs of all floors."""

    def __init__(self, **options: Any) -> None:
        super().__init__(**options)
        self.commands = self._lazy = LazyVerbs(
            {each.__name__: each.PANEL for each in (optimize_verbs, bench_verbs, verbs)}
        )

    def format_help(self, ctx: Any, formatter: Any) -> None:
        """Print the help without importing any verb."""
        listing = copy(self)
        listing.commands = dict(self._lazy.listed())
        super(_Command, listing).format_help(ctx, formatter)


def _shown(error: Any) -> Any:
    """Return a usage error with the control characters of its message made visible."""
    error.message = visible(error.message)
    return error


def _refused(error: OSError) -> SeatrialError:
    """Return what the system refused as an error of ours."""
    return MachineError(
        f"the operating system refused: {error.strerror or error}",
        where=str(error.filename or ""),
        next_step="fix the cause and retry",
    )


def _note(part: experimental.Experimental) -> None:
    """Say in one line on stderr that an experimental part is in use."""
    err.print(led("yellow", "experimental:", f" {part.notice}"), soft_wrap=True)


def _complain(error: SeatrialError) -> None:
    for style, lead, text in (
        ("bold red", "error:", error.what),
        ("dim", "where:", error.where),
        ("dim", "next: ", error.next_step),
    ):
        if text:
            rest = text.strip("\n").replace("\n", "\n       ")  # no line of a name or a reason looks like one of ours
            err.print(led(style, lead, f" {rest}"), soft_wrap=True)


app = typer.Typer(
    cls=_Command,
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode="rich",
    add_completion=False,
    help="From a trained model to a gated, observable Triton deployment: every claim measured, every step undoable.",
    epilog=(
        "Exit codes: 0 pass or done, 1 verdict failed, 2 wrong config or usage, 3 inconclusive, 4 "
        "the environment made the run invalid, 5 a stored record is damaged, 70 a fault of seatrial "
        "itself (its traceback is kept; SEATRIAL_DEBUG=1 prints it), 130 interrupted (143 by "
        "SIGTERM, 129 by SIGHUP). seatrial stores its data under SEATRIAL_HOME (default ./.seatrial)."
    ),
)


def _version(wanted: bool) -> None:
    """Print the version and leave."""
    if wanted:
        print(f"seatrial {seatrial.__version__}")
        raise typer.Exit


@app.callback()
def _options(
    context: typer.Context,
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Print the version and exit.")
    ] = False,
) -> None:
    """Take the options that come before the verb, and hand to verbs of lower floors what this one makes."""
    context.obj = {"hosting": _hosting, "inspectors": {"releases": _releases}}


def _hosting(
    deployment: Path | None, scratch: Path, slow: float, engine: str = "", otherwise: str = ""
) -> tuple["Host", int | None]:
    from .verbs.hosting import hosting

    return hosting(deployment, scratch, slow, engine, otherwise)


def _releases(home: Path, repair: bool) -> "Inspection":
    from .release.registry_check import inspect_releases

    return inspect_releases(home, repair)
