"""Text that came from elsewhere, made safe to print: terminal escapes, bidirectional overrides and the like shown.

A name from a model file, a server or an argument may hold anything. `visible` writes what a terminal or a reader would
obey or not see as an escape (``\\x1b``); `Terminal` does that for all it prints and reads no markup unless told to.
"""

import os
import re
import sys
from collections.abc import Iterable
from typing import Any

from rich.console import Console, ConsoleOptions, RenderableType
from rich.segment import Segment
from rich.text import Text

# C0 but tab and newline, DEL, C1, soft hyphen, joiners, directional marks and overrides, separators, tags, surrogates.
_HIDDEN = re.compile(
    "[\x00-\x08\x0b-\x1f\x7f-\x9f\u00ad\u034f\u061c\u115f\u1160\u17b4\u17b5\u180b-\u180f\u200b-\u200f\u2028-\u202e"
    "\u2060-\u206f\u3164\ud800-\udfff\ufeff\uffa0\ufff0-\ufffb\U000e0000-\U000e0fff]"
)


def visible(text: str, *, one_line: bool = False) -> str:
    """Return the text with control and invisible characters as escapes; with `one_line` line ends and tabs too."""
    shown = _HIDDEN.sub(_escaped, text)
    return shown.replace("\n", "\\n").replace("\t", "\\t") if one_line else shown


def _escaped(found: re.Match[str]) -> str:
    return found.group().encode("unicode_escape", "surrogatepass").decode()


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
            if segment.control is None and _HIDDEN.search(segment.text):
                yield Segment(visible(segment.text), segment.style)
            else:
                yield segment

    def on_broken_pipe(self) -> None:
        """Go on in silence when the reader is gone: a closed pipe is not a failed verdict."""
        self.quiet = True
        drop_output()
