"""A gate's page: one HTML file that needs no network; verdict first, evidence after, provenance last.

Gathers what `evidence` and `waterfall` say and has it drawn; the template computes nothing.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from seatrial.optimize.report.pages import write_page
from seatrial.optimize.units import format_span

from ..gating.findings import complete_pairs
from ..gating.pairs import GateRun
from ..load.summary import LoadSummary
from ..outcomes import MEANINGS
from ..verdict import Verdict
from . import evidence, waterfall
from .advice import cost_text, next_steps
from .rows import interval_name, rows
from .rows import title as heading

TEMPLATES = Path(__file__).parent.with_name("templates")


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


def write_html(
    path: Path,
    *,
    title: str,
    verdict: Verdict,
    run: GateRun,
    stages: Sequence[StageRow] | None = None,
    load: LoadSummary | None = None,
) -> None:
    """One page that needs no network: verdict, findings, plots, the chain of stages, served load, provenance."""
    write_page(
        path,
        TEMPLATES / "report.html.j2",
        title=title,
        verdict=verdict,
        heading=heading(verdict),
        meaning=MEANINGS[verdict.outcome],
        steps=next_steps(verdict),
        interval_name=interval_name(verdict),
        rows=rows(verdict),
        stages=stages,
        best=max((stage.speedup or 0.0 for stage in stages), default=0.0) if stages else 0.0,
        load=load,
        slots=evidence.slot_rows(run),
        design=run.header.budget.design,
        cost=cost_text(verdict, run),
        facts=evidence.facts(verdict, run),
        **_plots(verdict, run),
        **_waterfall(run),
    )


def _plots(verdict: Verdict, run: GateRun) -> Mapping[str, str]:
    """Every plot of the run by name, empty where it holds nothing to draw."""
    from .. import on_plotly

    base, candidate = evidence.latencies(run, "base"), evidence.latencies(run, "candidate")
    ratios, curves, controls = evidence.ratio_rows(verdict, run), evidence.memory_curves(run), evidence.controls(run)
    batches = evidence.batch_sizes(run, "base"), evidence.batch_sizes(run, "candidate")
    return {
        "cdf": on_plotly.latency_cdf(base, candidate) if base.size and candidate.size else "",
        "pairs": on_plotly.pair_ratios(ratios) if ratios else "",
        "batches": on_plotly.batch_sizes(*batches) if any(batches) else "",
        "memory": on_plotly.memory_curves(curves) if curves else "",
        "control": on_plotly.controls(controls) if len(controls) > 1 else "",
    }


def _waterfall(run: GateRun) -> dict[str, Any]:
    """The mean latency of both arms by part: the plot, the table beside it and what it says in a sentence."""
    from .. import on_plotly

    arms = waterfall.arms(complete_pairs(run))
    if arms is None:
        return {"waterfall": "", "parts": [], "largest": "", "bounded": False}
    base, candidate = arms
    steps = waterfall.change(base, candidate)
    name, seconds = waterfall.largest(base, candidate)
    return {
        "waterfall": on_plotly.waterfall(base.whole, steps, candidate.whole),
        "parts": [
            (
                part,
                format_span(base.parts[part]),
                format_span(candidate.parts[part]),
                format_span(step, signed=True),
                waterfall.ABOUT[part],
            )
            for part, step in steps.items()
        ],
        "largest": f"mean {format_span(base.whole)} to {format_span(candidate.whole)}; "
        f"most of it: {name} {format_span(seconds, signed=True)}",
        "bounded": base.bounded or candidate.bounded,
    }
