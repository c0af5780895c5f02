"""What a run's raw values say, in every form that a report takes, whatever kind of run it was.

`Told` is what the report verb prints and writes. `recomputed` makes one of any result that turns itself into JSON, so
that a new kind of run has all forms from its first day; a kind with more to show makes its own.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from ..measurement import Measurement
from ..pairs import Arm
from .junit import Case, Inconclusive, document
from .markdown import escape
from .page import write_page

if TYPE_CHECKING:
    from rich.console import Console, RenderableType

_DEEPEST = 3  # levels of a document that are listed; below that its JSON says more than a list would


@dataclass(frozen=True, slots=True, kw_only=True)
class Told:
    """One run's report: its kind, exit code, JSON document, and what makes the other forms when they are asked for.

    `measured` gives the model and its raw values of an arm (a run of one model may ignore which), for a baseline.
    """

    kind: str
    exit_code: int
    document: Mapping[str, Any]
    show: Callable[["Console"], None]
    markdown: Callable[[], str]
    junit: Callable[[Inconclusive], str]
    html: Callable[[Path], None]
    pytest_benchmark: Callable[[], Mapping[str, Any]] | None = None
    measured: Callable[[Arm], tuple[str, list[Measurement]]] | None = None


class Result(Protocol):
    """What `recomputed` needs of a result; an `exit_code` of its own is used where it has one."""

    def to_json(self) -> Mapping[str, Any]:
        """The result as JSON values."""


def recomputed(
    kind: str,
    folder: Path,
    result: Result,
    *,
    table: Callable[[], "RenderableType"] | None = None,
    page: Callable[[Path], None] | None = None,
    measured: Callable[[Arm], tuple[str, list[Measurement]]] | None = None,
) -> Told:
    """The report of a result that knows its own JSON; with a `table` and a `page` of its own where it has them."""
    document_ = dict(result.to_json())
    exit_code = int(getattr(result, "exit_code", 0))
    name, lines = f"{kind}: {folder.name}", flat(document_)
    reasons = [str(reason) for reason in document_.get("breaches", ())]

    def plain(path: Path) -> None:
        outcome = {1: "FAIL", 3: "INCONCLUSIVE", 4: "INVALID"}.get(exit_code, "")
        given = {"outcome": outcome, "reasons": reasons, "figures": [], "sections": [], "lines": lines}
        write_page(path, "run.html.j2", title=name, **given)

    return Told(
        kind=kind,
        exit_code=exit_code,
        document=document_,
        show=lambda console: console.print(table()) if table is not None else show_lines(console, kind, lines),
        markdown=lambda: markdown_lines(name, lines),
        junit=lambda inconclusive: document(
            name, kind, [exit_case(kind, exit_code, inconclusive, reasons)], properties=lines
        ),
        html=page or plain,
        measured=measured,
    )


def exit_case(name: str, exit_code: int, inconclusive: Inconclusive, reasons: Sequence[str] = ()) -> Case:
    """A run's exit code as a test case: 1 a failure, 3 a skip or failure by choice, 4 an error."""
    message = reasons[0] if reasons else f"exit code {exit_code}"
    match exit_code:
        case 0:
            return Case(name=name)
        case 3:
            skipped = inconclusive == "skip"
            return Case(name=name, tag="skipped" if skipped else "failure", kind="INCONCLUSIVE", message=message)
        case 4:
            return Case(name=name, tag="error", kind="INVALID", message=message, lines=tuple(reasons))
    return Case(name=name, tag="failure", kind="FAIL", message=message, lines=tuple(reasons))


def flat(value: Mapping[str, Any], depth: int = 1) -> list[tuple[str, str]]:
    """A document as (dotted name, text), long arrays by their length."""
    found: list[tuple[str, str]] = []
    for name, item in value.items():
        if isinstance(item, Mapping) and depth < _DEEPEST and item:
            found += [(f"{name}.{inner}", text) for inner, text in flat(item, depth + 1)]
        elif isinstance(item, list | tuple) and len(item) > 8:
            found.append((name, f"{len(item)} values"))
        else:
            found.append((name, f"{item:.6g}" if isinstance(item, float) else str(item)))
    return found


def show_lines(console: "Console", title: str, lines: Sequence[tuple[str, str]]) -> None:
    """Names and texts as a table in the terminal."""
    from rich.table import Table
    from rich.text import Text

    table = Table(box=None, show_header=False, pad_edge=False)
    for name, text in lines:
        table.add_row(Text(name, "dim"), Text(text))
    console.print(Text(title, "bold"))
    console.print(table)


def markdown_lines(title: str, lines: Sequence[tuple[str, str]]) -> str:
    """Names and texts as a Markdown table."""
    rows = [f"| {escape(name)} | {escape(text)} |" for name, text in lines]
    return "\n".join([f"## {escape(title)}", "", "| what | value |", "|---|---|", *rows, ""])
