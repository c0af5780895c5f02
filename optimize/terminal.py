"""The console of every verb: output contains no control characters, and markup is read only on request."""

import json
import os
import sys
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, redirect_stdout
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.console import Console, ConsoleOptions, RenderableType
from rich.segment import Segment
from rich.text import Text

from . import interrupts
from .visible import HIDDEN, visible

if TYPE_CHECKING:
    from .artifact import Artifact
    from .store import Store

Json = Annotated[bool, typer.Option("--json", help="Print one JSON document instead of tables.")]
Recipe = Annotated[Path, typer.Argument(help="A recipe (TOML), for instance optimize/recipes/scenes-int8.toml.")]
Engine = Annotated[
    str, typer.Option("--engine", help="Engine instead of the format's own (onnxruntime-cpu, openvino, torch, ...).")
]
Device = Annotated[
    str, typer.Option("--device", help="Device of the engine: cpu, cuda or cuda:1; a GPU is (experimental).")
]
Ref = Annotated[str, typer.Argument(help="An artifact: a tag, a digest or its first digits; or an ONNX file.")]


def led(style: str, lead: str, rest: str = "") -> Text:
    """Return a line whose first words are styled; nothing in it is read as markup."""
    return Text.assemble((visible(lead), style), visible(rest))


def drop_output() -> None:
    """Point stdout at nothing: its reader is gone, and the verdict's exit code still counts."""
    sink = os.open(os.devnull, os.O_WRONLY)
    os.dup2(sink, sys.stdout.fileno())
    os.close(sink)


class Terminal(Console):
    """A console that shows control characters instead of sending them, and reads markup only with ``markup=True``."""

    def __init__(self, **options: Any) -> None:
        super().__init__(**{"markup": False, "emoji": False} | options)

    def render_str(self, text: str, **options: Any) -> Text:
        """Make printable text of a string, before its width is measured."""
        return super().render_str(visible(text), **options)

    def render(self, renderable: RenderableType, options: ConsoleOptions | None = None) -> Iterable[Segment]:
        """Render anything; what no string carried (a `Text`) is made visible here."""
        for segment in super().render(renderable, options):
            if segment.control is None and HIDDEN.search(segment.text):
                yield Segment(visible(segment.text), segment.style)
            else:
                yield segment

    def on_broken_pipe(self) -> None:
        """Go on in silence when the reader is gone: a closed pipe is not a failed verdict."""
        self.quiet = True
        drop_output()


WIDE = 120  # width of a table where there is no terminal
out = Terminal(width=None if sys.stdout.isatty() else WIDE)
err = Terminal(stderr=True)


def store() -> "Store":
    """The store of this SEATRIAL_HOME."""
    from .environment import home
    from .store import Store

    return Store(home() / "store")


def named(reference: str) -> "Artifact":
    """Return the artifact of a tag or digest, or an ONNX file as an artifact in the store."""
    from .draft.finished import named as found

    return found(reference, store())


def emit(value: Any) -> None:
    """Print one JSON document on stdout, of a record or of what `as_json` takes."""
    from .record import as_json  # with what it reads files by, which no help needs

    echo(json.dumps(as_json(value), indent=1, default=str, allow_nan=False))


def echo(text: str) -> None:
    """Print exactly that text on stdout; where its reader is gone, go on in silence."""
    try:
        typer.echo(text)
    except BrokenPipeError:
        drop_output()


@contextmanager
def progress() -> Iterator[Callable[[str, float, str], None]]:
    """A bar per step on stderr, nothing where that is not a terminal; what libraries print meanwhile goes there too.

    Stdout is for the result alone: a calibrator that talks would break the JSON document.
    """
    from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn

    columns = (
        TextColumn("{task.description:<12}", markup=False),
        BarColumn(),
        TimeElapsedColumn(),
        TextColumn("{task.fields[text]}", markup=False),
    )
    with Progress(*columns, console=err, disable=not err.is_terminal) as bars, redirect_stdout(sys.stderr):
        tasks: dict[str, Any] = {}

        def report(label: str, share: float, text: str) -> None:
            interrupts.due()
            if label not in tasks:
                tasks[label] = bars.add_task(label, total=1.0, text="")
            bars.update(tasks[label], completed=share, text=text)

        yield report
