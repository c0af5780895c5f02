"""Text that came from elsewhere, safe to print: terminal escapes, bidirectional overrides and the like become visible.

A name from a model file, a server or an argument may hold anything that a terminal obeys or a reader does not see.
"""

import re

# C0 but tab and newline, DEL, C1, soft hyphen, joiners, directional marks and overrides, separators, tags, surrogates.
HIDDEN = re.compile(
    "[\x00-\x08\x0b-\x1f\x7f-\x9f\u00ad\u034f\u061c\u115f\u1160\u17b4\u17b5\u180b-\u180f\u200b-\u200f\u2028-\u202e"
    "\u2060-\u206f\u3164\ud800-\udfff\ufeff\uffa0\ufff0-\ufffb\U000e0000-\U000e0fff]"
)


def visible(text: str, *, one_line: bool = False) -> str:
    """Return the text with control and invisible characters as escapes; with `one_line` line ends and tabs too."""
    shown = HIDDEN.sub(_escaped, text)
    return shown.replace("\n", "\\n").replace("\t", "\\t") if one_line else shown


def _escaped(found: re.Match[str]) -> str:
    return found.group().encode("unicode_escape", "surrogatepass").decode()
