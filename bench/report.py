"""The verdict for people: a terminal table, Markdown for a pull request, and one self-contained HTML page.

Shows what `bench.judge` decided and computes no statistic of its own. Verdict first, evidence after, provenance last.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from optimize.store import write_atomically

from .findings import complete_pairs, slot_values
from .load.run import CENSORED, OK
from .measurement import spell
from .pairs import Arm, GateRun
from .verdict import Finding, Outcome, Verdict

if TYPE_CHECKING:
    from rich.console import Console

    from .load.summary import LoadSummary

STYLES: Mapping[Outcome, str] = {
    "PASS": "bold green",
    "FAIL": "bold red",
    "INCONCLUSIVE": "bold yellow",
    "INVALID": "bold magenta",
}
MEANINGS: Mapping[Outcome, str] = {
    "PASS": "Every gating metric is shown to be within its budget.",
    "FAIL": "At least one gating metric is shown to be beyond its budget.",
    "INCONCLUSIVE": "The data show neither: not a pass, not a failure.",
    "INVALID": "The run cannot carry a verdict.",
}
RatioRow = tuple[str, Sequence[float], tuple[float, float] | None, float | None]
PLOTTED = ("p50", "p99", "throughput", "peak_memory", "startup")


@dataclass(frozen=True, slots=True, kw_only=True)
class StageRow:
    """One artifact of the chain, as the report lists it.

    `quality` is its score on the evaluation set, `speedup` against the reference, `latency_ratio` against its parent
    with `interval`; None where it was not measured. `cached` says that it was not built anew.
    """

    name: str
    format: str
    quality: float | None = None
    size_bytes: int
    speedup: float | None = None
    latency_ratio: float | None = None
    interval: tuple[float, float] | None = None
    digest: str
    cached: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """A finding as text, the same in all three forms."""

    metric: str
    outcome: Outcome
    base: str
    candidate: str
    change: str
    interval: str
    allowed: str
    reach: str
    gating: bool
    reason: str


def rows(verdict: Verdict) -> list[Row]:
    """The findings as text, gating ones first."""
    ordered = sorted(verdict.findings, key=lambda finding: not finding.gating)
    return [
        Row(
            metric=finding.metric,
            outcome=finding.outcome,
            base=_value(finding.base, finding),
            candidate=_value(finding.candidate, finding),
            change=_change(finding),
            interval=_interval(finding),
            allowed=_allowed(finding),
            reach=_reach(finding),
            gating=finding.gating,
            reason=finding.reason,
        )
        for finding in ordered
    ]


def _value(value: float | None, finding: Finding) -> str:
    return "–" if value is None else spell(value, finding.unit)


def _change(finding: Finding) -> str:
    if finding.ratio is not None:
        return f"{finding.ratio - 1:+.1%}"
    return f"{finding.difference:+.4f}" if finding.difference is not None else ""


def _interval(finding: Finding) -> str:
    if finding.interval is None:
        return "exact" if finding.method == "exact" else ""
    low, high = finding.interval
    if finding.ratio is not None:
        return f"{low - 1:+.1%} … {high - 1:+.1%}"
    if finding.difference is not None:
        return f"{low:+.4f} … {high:+.4f}"
    return f"{spell(low, finding.unit)} … {spell(high, finding.unit)}"


def _reach(finding: Finding) -> str:
    if finding.certifiable is None:
        return ""
    return f"{finding.certifiable:.1%}" if finding.ratio is not None else f"{finding.certifiable:.4f}"


def _allowed(finding: Finding) -> str:
    if finding.bound is None:
        return ""
    if finding.ratio is not None:
        return f"{finding.bound - 1:+.1%}"
    if finding.difference is not None:
        return f"{finding.bound:+.4f}"
    side = "≤" if finding.rule == "at_most" else "≥"
    return f"{side} {spell(finding.bound, finding.unit)}"


def print_verdict(verdict: Verdict, console: "Console") -> None:
    """The verdict, its reasons and the findings as a table in the terminal."""
    from rich.table import Table
    from rich.text import Text

    console.print(
        Text.assemble(
            (verdict.outcome, STYLES[verdict.outcome]),
            f"  {_title(verdict)}  ",
            (f"{verdict.pairs} pairs, {verdict.scope}", "dim"),
        )
    )
    for reason in verdict.reasons or (MEANINGS[verdict.outcome],):
        console.print(Text(f"  {reason}"))
    table = Table(box=None, header_style="dim", pad_edge=False)
    for name in ("", "metric", "base", "candidate", "change", _interval_name(verdict), "allowed"):
        table.add_column(name, justify="left" if name in ("", "metric") else "right")
    for row in rows(verdict):
        table.add_row(
            Text(row.outcome, STYLES[row.outcome] if row.gating else "dim"),
            row.metric if row.gating else f"{row.metric} (told only)",
            row.base,
            row.candidate,
            row.change,
            row.interval,
            row.allowed,
        )
    console.print(table)
    if verdict.outcome != "PASS":
        for reason in verdict.summary[len(verdict.reasons) :]:
            console.print(Text(f"  {reason}"))


def to_markdown(verdict: Verdict) -> str:
    """The verdict as Markdown, for a pull request."""
    lines = [f"## {verdict.outcome}: {_title(verdict)}", ""]
    lines += [f"- {reason}" for reason in (verdict.reasons or (MEANINGS[verdict.outcome],))]
    if verdict.outcome != "PASS":
        lines += [f"- {reason}" for reason in verdict.summary[len(verdict.reasons) :]]
    lines += ["", f"| | metric | base | candidate | change | {_interval_name(verdict)} | allowed |"]
    lines += ["|---|---|--:|--:|--:|--:|--:|"]
    for row in rows(verdict):
        metric = row.metric if row.gating else f"{row.metric} (told only)"
        cells = (row.outcome, metric, row.base, row.candidate, row.change, row.interval, row.allowed)
        lines.append("| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |")
    lines += ["", f"{verdict.pairs} pairs on {verdict.scope}, {verdict.at}; budget `{_short(verdict.budget)}`.", ""]
    return "\n".join(lines)


def write_html(
    path: Path,
    *,
    title: str,
    verdict: Verdict,
    run: GateRun,
    stages: Sequence[StageRow] | None = None,
    load: "LoadSummary | None" = None,
) -> None:
    """One page that needs no network: verdict, findings, plots, the chain of stages, served load, provenance."""
    from jinja2 import Environment, FileSystemLoader, StrictUndefined

    from optimize.on_plotly import library

    from . import on_plotly

    templates = Environment(
        loader=FileSystemLoader(Path(__file__).with_name("templates")),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    templates.filters |= {"spell": spell, "short": _short, "percent": lambda value: f"{value - 1:+.1%}"}
    both = [_latencies(run, arm) for arm in ("base", "candidate")]
    ratios = _ratio_rows(verdict, run)
    page = templates.get_template("report.html.j2").render(
        title=title,
        verdict=verdict,
        heading=_title(verdict),
        meaning=MEANINGS[verdict.outcome],
        interval_name=_interval_name(verdict),
        rows=rows(verdict),
        stages=stages,
        best=max((stage.speedup or 0.0 for stage in stages), default=0.0) if stages else 0.0,
        load=load,
        cdf=on_plotly.latency_cdf(both[0], both[1]) if all(each.size for each in both) else "",
        pairs=on_plotly.pair_ratios(ratios) if ratios else "",
        slots=_slot_rows(run),
        design=run.header.budget["design"],
        facts=_facts(verdict, run),
        library=library(),
    )
    write_atomically(path, page.encode())


def _title(verdict: Verdict) -> str:
    return f"{verdict.candidate['name']} against {verdict.base['name']}"


def _interval_name(verdict: Verdict) -> str:
    return f"{100 * verdict.confidence:g} % interval"


def _short(digest: str) -> str:
    return digest.removeprefix("sha256:")[:12]


def _latencies(run: GateRun, arm: Arm) -> "np.ndarray[Any, np.dtype[np.float64]]":
    """All counted latencies of an arm over its usable slots."""
    slots = [pair[0 if arm == "base" else 1] for pair in complete_pairs(run)]
    parts = [slot.latency[(slot.status == OK) | (slot.status == CENSORED)] for slot in slots]
    return np.concatenate(parts) if parts else np.empty(0)


def _ratio_rows(verdict: Verdict, run: GateRun) -> list[RatioRow]:
    """Pair-by-pair ratios of the metrics that vary between slots, with what was found about them."""
    found: list[RatioRow] = []
    for metric in PLOTTED:
        base, candidate, _ = slot_values(run, metric)
        finding = next((each for each in verdict.findings if each.metric == metric and each.ratio is not None), None)
        if not base or min(base) <= 0 or (finding is None and metric == "startup"):
            continue
        ratios = [c / b for b, c in zip(base, candidate, strict=True)]
        bound = finding.bound if finding and finding.bound and math.isfinite(finding.bound) else None
        found.append((metric, ratios, finding.interval if finding else None, bound))
    return found


def _slot_rows(run: GateRun) -> list[dict[str, Any]]:
    """Every slot and attempt in the order taken, with what it gave."""
    return [
        {
            "index": record.slot.index + 1,
            "pair": record.slot.pair + 1,
            "arm": record.slot.arm,
            "again": record.attempt > 0,
            "requests": int(record.status.size),
            "lag": float(np.nanquantile(record.lag, 0.99)) if np.isfinite(record.lag).any() else None,
            "throughput": record.throughput,
            "memory": record.peak_memory,
            "startup": record.startup,
            "seconds": record.seconds,
            "trouble": "; ".join((*record.faults, *record.breaches)),
        }
        for record in run.records
    ]


def _facts(verdict: Verdict, run: GateRun) -> list[tuple[str, str]]:
    """Provenance and environment, as name and text."""
    header, environment = run.header, run.header.environment
    libraries = ", ".join(f"{name} {version}" for name, version in environment.get("libraries", {}).items())
    machine = f"{environment.get('cpu', 'unknown')}, {environment.get('cores', '?')} cores"
    return [
        ("base", f"{header.base['name']} {header.base['digest']}"),
        ("candidate", f"{header.candidate['name']} {header.candidate['digest']}"),
        ("evaluation set", f"{header.samples['count']} samples, {header.samples['digest']}"),
        ("budget", verdict.budget),
        ("machine", machine),
        ("graphics", ", ".join(environment.get("gpus", ())) or "none"),
        ("libraries", libraries),
        ("commit", str(environment.get("commit") or "unknown")),
        ("price", f"{header.price.get('machine')}, ${header.price.get('usd_hour')}/h ({header.price.get('source')})"),
        ("measured", header.at),
    ]
