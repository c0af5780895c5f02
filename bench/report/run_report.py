"""Report of a run's raw values in every output format, for any kind of run.

`RunReport` is what the report verb prints. `recomputed` makes one of any result that turns itself into JSON, so
that a new kind of run has all forms from its first day; a kind with more to show makes its own.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from seatrial.optimize.report.pages import write_page
from seatrial.optimize.tables import escape, markdown_table, table
from seatrial.optimize.units import format_value

from ..gating.pairs import Arm
from ..measurement import Measurement
from .junit import Case, Inconclusive, document
from .page import TEMPLATES

if TYPE_CHECKING:
    from rich.console import Console, RenderableType

_DEEPEST = 3  # levels of a document that are listed; below that its JSON says more than a list would


@dataclass(frozen=True, slots=True, kw_only=True)
class RunReport:
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
    """Interface of a result for `recomputed`; its own `exit_code` is used if it has one."""

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
) -> RunReport:
    """The report of a result that knows its own JSON; with a `table` and a `page` of its own where it has them."""
    document_ = dict(result.to_json())
    exit_code = int(getattr(result, "exit_code", 0))
    name, listed, lines = f"{kind}: {folder.name}", tables(document_), flat(document_)
    reasons = [str(reason) for reason in document_.get("breaches", ())]

    def show(console: "Console") -> None:
        if table is not None:
            console.print(table())
            return
        for each in listed:
            show_lines(console, each.name, (each.head, *each.rows))
        show_lines(console, name, lines)

    def plain(path: Path) -> None:
        outcome = {1: "FAIL", 3: "INCONCLUSIVE", 4: "INVALID"}.get(exit_code, "")
        given = {"outcome": outcome, "reasons": reasons, "figures": [], "sections": [], "lines": lines}
        write_page(path, TEMPLATES / "run.html.j2", title=name, tables=listed, **given)

    return RunReport(
        kind=kind,
        exit_code=exit_code,
        document=document_,
        show=show,
        markdown=lambda: markdown_lines(name, lines, listed),
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


@dataclass(frozen=True, slots=True, kw_only=True)
class Listed:
    """A list of a document as a table: its name, the column heads, and rows of text."""

    name: str
    head: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]


def tables(value: Mapping[str, Any]) -> list[Listed]:
    """Every list of records at the top of a document, as a table; columns of other things than values are left out."""
    found = []
    for name, items in value.items():
        if not isinstance(items, list | tuple) or not items or not all(isinstance(each, Mapping) for each in items):
            continue
        heads = [
            head
            for head in dict.fromkeys(head for each in items for head in each)
            if all(map(_single, _column(items, head)))
        ]
        rows = tuple(tuple(_cell(each.get(head), each) for head in heads) for each in items)
        found.append(Listed(name=name, head=tuple(heads), rows=rows))
    return found


def _column(items: Sequence[Mapping[str, Any]], head: str) -> list[Any]:
    return [each.get(head) for each in items]


def _single(value: Any) -> bool:
    """Return whether a value fits into a cell: a scalar, or the two ends of an interval."""
    if isinstance(value, list | tuple):
        return len(value) == 2 and all(isinstance(each, int | float) for each in value)
    return not isinstance(value, Mapping)


def _cell(value: Any, record: Mapping[str, Any]) -> str:
    """A value as text, in the record's own unit where it names one."""
    match value:
        case None:
            return ""
        case [low, high]:
            return f"{_cell(low, record)} … {_cell(high, record)}"
        case float():
            return format_value(value, str(record["unit"])) if "unit" in record else f"{value:.6g}"
    return str(value)


def flat(value: Mapping[str, Any], depth: int = 1) -> list[tuple[str, str]]:
    """A document as (dotted name, text), long lists and lists of records by their length."""
    found: list[tuple[str, str]] = []
    for name, item in value.items():
        if isinstance(item, Mapping) and depth < _DEEPEST and item:
            found += [(f"{name}.{inner}", text) for inner, text in flat(item, depth + 1)]
        elif isinstance(item, list | tuple) and (len(item) > 8 or any(isinstance(each, Mapping) for each in item)):
            found.append((name, f"{len(item)} values"))
        else:
            found.append((name, f"{item:.6g}" if isinstance(item, float) else str(item)))
    return found


def show_lines(console: "Console", title: str, lines: Sequence[tuple[str, ...]]) -> None:
    """Rows of text as a table in the terminal, the first column quiet."""
    head = [str(column) for column in range(max(map(len, lines), default=0))]
    console.print(title, style="bold", markup=False, highlight=False)
    console.print(table(head, (((first, "dim"), *rest) for first, *rest in lines), left=head, header=False))


def markdown_lines(title: str, lines: Sequence[tuple[str, str]], listed: Sequence[Listed] = ()) -> str:
    """Tables first, then names and texts, folded where there is a table."""
    text = [f"## {escape(title)}", ""]
    for each in listed:
        text += [*markdown_table(each.head, each.rows), ""]
    plain = markdown_table(("what", "value"), lines)
    folded = ["<details><summary>All figures</summary>", "", *plain, "", "</details>"] if listed else plain
    return "\n".join([*text, *folded, ""])
