"""Tables for people: rows of text on a terminal or in Markdown. Pages have the macro `grid` of `report.templates`."""

import re
from collections.abc import Collection, Iterable, Sequence
from typing import TYPE_CHECKING, Literal

from .visible import visible

if TYPE_CHECKING:
    from rich.table import Table
    from rich.text import Text

    from .breach import Breach

Look = Literal["ruled", "plain", "boxed"]
_SEVERITIES = {"error": "red", "warning": "yellow", "high": "bold red", "medium": "yellow", "low": "dim"}
_MARKS = re.compile(r"[\\|`*\[\]]")


def table(
    head: Sequence[str],
    rows: "Iterable[Sequence[str | tuple[str, str] | Text]]",
    *,
    left: Collection[str] = (),
    wrap: Collection[str] | None = None,
    look: Look = "plain",
    header: bool = True,
    lines: bool = False,
    title: str = "",
) -> "Table":
    """Return a table for a terminal, columns aligned to the right but those named in `left`.

    Columns outside `wrap` keep their lines whole; None: all may break. A ``ruled`` table has a line under its head, a
    ``boxed`` one a frame (with `lines`, also between the rows), a ``plain`` one neither. A cell is text, or text
    and its style; it is not read as markup, and its control characters are shown.
    """
    from rich.box import HEAVY_HEAD, SIMPLE_HEAD
    from rich.table import Table
    from rich.text import Text

    box = {"ruled": SIMPLE_HEAD, "boxed": HEAVY_HEAD, "plain": None}[look]
    style = "dim" if look == "plain" else None
    made = Table(box=box, pad_edge=look == "boxed", show_header=header, show_lines=lines, header_style=style)
    made.title, made.title_justify = title or None, "left"
    for name in head:
        made.add_column(
            visible(name), justify="left" if name in left else "right", no_wrap=wrap is not None and name not in wrap
        )
    for row in rows:
        pairs = ((cell, "") if isinstance(cell, str) else cell for cell in row)
        made.add_row(*(Text(visible(cell[0]), cell[1]) if isinstance(cell, tuple) else cell for cell in pairs))
    return made


def breach_table(breaches: "Iterable[Breach]") -> "Table":
    """Return broken rules as a table for a terminal: severity, rule, what was found and where, why, and the fix."""
    from rich.text import Text

    head = ("severity", "rule", "found", "fix")
    rows = (
        (
            (each.severity, _SEVERITIES[each.severity]),
            each.rule,
            Text(visible(each.found)).append(visible(f"\n{each.where}"), "dim"),
            f"{each.why}.\n→ {each.fix}" if each.why else each.fix,
        )
        for each in breaches
    )
    return table(head, rows, left=head, look="boxed", lines=True)


def markdown_table(
    head: Sequence[str], rows: Iterable[Sequence[str]], *, right: Collection[str] = (), total: bool = False
) -> list[str]:
    """Return a table as lines of Markdown; with `total` the name of the last row is bold."""
    lines = [
        _line([escape(name) for name in head]),
        "|" + "".join("--:|" if name in right else "---|" for name in head),
    ]
    lines += [_line([escape(cell) for cell in row]) for row in rows]
    if total:
        name, bar, rest = lines[-1].removeprefix("| ").partition(" |")
        lines[-1] = f"| **{name}**{bar}{rest}"
    return lines


def escape(text: str) -> str:
    """Return text that stays text in a Markdown line: no cell, tag, link, emphasis, mention or line of its own."""
    plain = visible(" ".join(text.split())).replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")
    return _MARKS.sub(r"\\\g<0>", plain).replace("@", "@\u200b")


def _line(cells: Sequence[str]) -> str:
    return "| " + " | ".join(cells) + " |"
