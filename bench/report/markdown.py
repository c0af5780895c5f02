"""The verdict as Markdown for a pull request: outcome first, table, next steps, details folded. Decides nothing."""

from seatrial.optimize.tables import escape, markdown_table
from seatrial.optimize.units import format_span, short_digest

from ..gating.findings import complete_pairs
from ..gating.pairs import GateRun
from ..outcomes import MEANINGS
from ..verdict import Verdict
from . import waterfall
from .advice import next_steps
from .evidence import facts
from .rows import interval_name, rows, title

SIGNS = {"PASS": "✅", "FAIL": "❌", "INCONCLUSIVE": "❔", "INVALID": "⚠️"}


def to_markdown(verdict: Verdict, run: GateRun | None = None) -> str:
    """The verdict as Markdown; with the run also its folded details: where the time went, slots, provenance."""
    lines = [f"## {verdict.outcome}: {escape(title(verdict))}", ""]
    lines += [f"- {escape(reason)}" for reason in (verdict.reasons or (MEANINGS[verdict.outcome],))]
    if verdict.outcome != "PASS":
        lines += [f"- {escape(reason)}" for reason in verdict.summary[len(verdict.reasons) :]]
    head = ("", "metric", "base", "candidate", "change", interval_name(verdict), "allowed")
    marks = [f"{SIGNS[row.outcome]} {row.outcome}" if row.gating else row.outcome for row in rows(verdict)]
    cells = [(mark, *row.cells) for mark, row in zip(marks, rows(verdict), strict=True)]
    lines += ["", *markdown_table(head, cells, right=head[2:])]
    if steps := next_steps(verdict):
        lines += ["", "**What to do next**", "", *(f"{i}. {escape(step)}" for i, step in enumerate(steps, start=1))]
    if verdict.notes:
        lines += ["", *(f"> {escape(note)}" for note in verdict.notes)]
    if run is not None:
        lines += _details(verdict, run)
    about = escape(f"{verdict.pairs} pairs on {verdict.scope}, {verdict.at}; budget {short_digest(verdict.budget)}.")
    lines += ["", about, ""]
    return "\n".join(lines)


def _details(verdict: Verdict, run: GateRun) -> list[str]:
    lines: list[str] = []
    arms = waterfall.arms(complete_pairs(run))
    if arms is not None:
        lines += _folded("Where the time of a request went", _parts(*arms))
    told = [f"- {escape(row.metric)}: {escape(row.reason)}" for row in rows(verdict)]
    lines += _folded("Every finding in words", told)
    lines += _folded("Provenance", [f"- {name}: {escape(text)}" for name, text in facts(verdict, run)])
    return lines


def _parts(base: waterfall.Split, candidate: waterfall.Split) -> list[str]:
    head, steps = ("part of the mean", "base", "candidate", "change"), waterfall.change(base, candidate)
    table = [(name, base.parts[name], candidate.parts[name], steps[name]) for name in steps]
    table += [("whole", base.whole, candidate.whole, candidate.whole - base.whole)]
    cells = [(name, format_span(b), format_span(c), format_span(d, signed=True)) for name, b, c, d in table]
    return markdown_table(head, cells, right=head[1:], total=True)


def _folded(title_: str, lines: list[str]) -> list[str]:
    return ["", f"<details><summary>{title_}</summary>", "", *lines, "", "</details>"]
