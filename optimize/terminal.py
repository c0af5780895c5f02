"""The console of every verb: what it prints sends no control character, and reads markup only where it is told to."""

import os
import sys
from collections.abc import Iterable
from typing import Any

from rich.console import Console, ConsoleOptions, RenderableType
from rich.segment import Segment
from rich.text import Text

from .visible import HIDDEN, visible


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
