"""The verdict as Markdown for a pull request: outcome first, table, next steps, details folded. Decides nothing."""

import re

from seatrial.optimize.visible import visible

from ..gating.findings import complete_pairs
from ..gating.pairs import GateRun
from ..outcomes import MEANINGS
from ..verdict import Verdict
from . import waterfall
from .advice import next_steps
from .evidence import facts
from .rows import Row, interval_name, rows, short, signed, span, title

_MARKS = re.compile(r"[\\|`*\[\]]")
SIGNS = {"PASS": "✅", "FAIL": "❌", "INCONCLUSIVE": "❔", "INVALID": "⚠️"}


def to_markdown(verdict: Verdict, run: GateRun | None = None) -> str:
    """The verdict as Markdown; with the run also its folded details: where the time went, slots, provenance."""
    lines = [f"## {verdict.outcome}: {escape(title(verdict))}", ""]
    lines += [f"- {escape(reason)}" for reason in (verdict.reasons or (MEANINGS[verdict.outcome],))]
    if verdict.outcome != "PASS":
        lines += [f"- {escape(reason)}" for reason in verdict.summary[len(verdict.reasons) :]]
    lines += ["", f"| | metric | base | candidate | change | {interval_name(verdict)} | allowed |"]
    lines += ["|---|---|--:|--:|--:|--:|--:|"]
    lines += [_line(row) for row in rows(verdict)]
    if steps := next_steps(verdict):
        lines += ["", "**What to do next**", "", *(f"{i}. {escape(step)}" for i, step in enumerate(steps, start=1))]
    if verdict.notes:
        lines += ["", *(f"> {escape(note)}" for note in verdict.notes)]
    if run is not None:
        lines += _details(verdict, run)
    about = escape(f"{verdict.pairs} pairs on {verdict.scope}, {verdict.at}; budget {short(verdict.budget)}.")
    lines += ["", about, ""]
    return "\n".join(lines)


def escape(text: str) -> str:
    """Return text that stays text in a Markdown line: no cell, tag, link, emphasis, mention or line of its own."""
    plain = visible(" ".join(text.split())).replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")
    return _MARKS.sub(r"\\\g<0>", plain).replace("@", "@\u200b")


def _line(row: Row) -> str:
    outcome = f"{SIGNS[row.outcome]} {row.outcome}" if row.gating else row.outcome
    cells = (outcome, row.label, row.base, row.candidate, row.change, row.interval, row.allowed)
    return "| " + " | ".join(map(escape, cells)) + " |"


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
    lines = ["| part of the mean | base | candidate | change |", "|---|--:|--:|--:|"]
    steps = waterfall.change(base, candidate)
    table = [(name, base.parts[name], candidate.parts[name], steps[name]) for name in steps]
    table += [("**whole**", base.whole, candidate.whole, candidate.whole - base.whole)]
    return lines + [f"| {name} | {span(b)} | {span(c)} | {signed(d)} |" for name, b, c, d in table]


def _folded(title_: str, lines: list[str]) -> list[str]:
    return ["", f"<details><summary>{title_}</summary>", "", *lines, "", "</details>"]
