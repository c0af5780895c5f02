"""Advice after a verdict, and its cost. Pure: one sentence per step, none if nothing is to be done."""

from collections.abc import Iterator, Mapping

from ..gating.pairs import GateRun
from ..gating.settling import settling
from ..metrics import METRICS, SlotMetric
from ..verdict import Finding, Verdict

SPOILED: Mapping[str, str] = {  # the first word of a broken rule of `bench.load.validity`, or a word of a reason
    "lag": "give the load generator its own core (design.client_cores), or lower design.rate",
    "client busy": "free the machine, or give the load generator its own core (design.client_cores)",
    "client cpu": "the load generator was too slow: give it its own core, or lower design.rate",
    "control": "the machine itself changed between the arms: run on an otherwise idle machine",
    "offered": "lower design.rate until the base sustains it",
    "throttling": "let the GPU cool, or lower its load or its power limit; nvidia-smi -q -d PERFORMANCE says why",
    "dropped": "lower design.rate until the base sustains it",
}

_WIDEN = "lengthen the slots (design.seconds), or widen the margin"
MANY = 40  # pairs; beyond, another pair is the wrong means


def next_steps(verdict: Verdict) -> tuple[str, ...]:
    """Return the next steps after the verdict, most useful first; empty for a PASS."""
    steps = {"PASS": _passed, "FAIL": _failed, "INCONCLUSIVE": _unsettled, "INVALID": _spoiled}
    return tuple(dict.fromkeys(steps[verdict.outcome](verdict)))


def minutes(verdict: Verdict, run: GateRun | None = None) -> float:
    """Return the total duration of all slots in minutes; 0 if it was not recorded."""
    seconds = verdict.seconds or (sum(record.seconds for record in run.records) if run is not None else 0.0)
    return seconds / 60


def gate_cost(verdict: Verdict, run: GateRun) -> float | None:
    """Return the cost of the gate in dollars: machine time of all slots at the pinned price; None without a price."""
    price = run.header.price.usd_hour
    return price * minutes(verdict, run) / 60 if price else None


def cost_text(verdict: Verdict, run: GateRun) -> str:
    """Time and dollars of the gate as one sentence."""
    spent, cost = minutes(verdict, run), gate_cost(verdict, run)
    dollars = f", ${cost:.4f} at the pinned price of {run.header.price.machine}" if cost is not None else ""
    return f"{spent:.1f} minutes of machine time{dollars}"


def _passed(verdict: Verdict) -> Iterator[str]:
    return iter(())


def _failed(verdict: Verdict) -> Iterator[str]:
    if verdict.reasons:
        yield "serve the candidate alone (seatrial place, seatrial up) and read the server's log"
    failed = dict.fromkeys(finding.metric for finding in _gating(verdict, "FAIL"))
    told = {metric: _advice(metric) for metric in failed}
    for step in dict.fromkeys(told.values()):
        yield f"{', '.join(metric for metric in failed if told[metric] == step)}: {step}"


def _advice(metric: str) -> str:
    return METRICS.get(metric).advice if metric in METRICS else SlotMetric.advice  # or it is a check


def _unsettled(verdict: Verdict) -> Iterator[str]:
    """One step for each means that would settle open findings; the same `settling` that their reasons speak of."""
    open_ = [(finding, settling(finding)) for finding in _gating(verdict, "INCONCLUSIVE")]
    pairs = max((found.pairs for _, found in open_ if found.means == "pairs"), default=0)
    near = any(found.near for _, found in open_ if found.means == "pairs" and found.pairs == pairs)
    per_pair = minutes(verdict) / verdict.pairs if verdict.pairs else 0.0
    takes = f", about {pairs * per_pair:.0f} minutes" if per_pair else ""
    if 0 < pairs <= MANY:
        yield f"set design.pairs to {pairs} in the budget{takes}, and run the gate again"
    elif pairs and near:
        yield f"a change this close to the margin needs {pairs} pairs{takes}: widen the margin, or decide by hand"
    elif pairs:
        yield (
            f"this machine is too noisy for the margin ({pairs} pairs would be needed{takes}): reduce its "
            f"load, {_WIDEN}"
        )
    by_means = {
        means: ", ".join(dict.fromkeys(finding.metric for finding, found in open_ if found.means == means))
        for means in ("noise", "margin", "samples", "slots")
    }
    steps = {
        "noise": f"this machine is too noisy for the margin with any number of pairs: reduce its load, {_WIDEN}",
        "margin": ("more pairs or samples will not help, because the effect is close to the margin: decide by hand"),
        "samples": "evaluate on more samples ([data] evaluation of the recipe), or widen the margin",
        "slots": "lengthen the slots (design.seconds)",
    }
    yield from (f"{metrics}: {steps[means]}" for means, metrics in by_means.items() if metrics)


def _spoiled(verdict: Verdict) -> Iterator[str]:
    text = " ".join(verdict.summary)
    known = [step for sign, step in SPOILED.items() if sign in text]
    yield from known
    if not known and "pairs were measured" in text:
        yield "the run ended early: run it again to the end"
    if any("no values" in finding.reason for finding in _gating(verdict, "INVALID")):
        yield "a metric was never measured: drop its limit, or run where it can be measured"
    yield "no verdict was reached: fix the causes named in the reasons, and run the gate again"


def _gating(verdict: Verdict, outcome: str) -> list[Finding]:
    return [finding for finding in verdict.findings if finding.gating and finding.outcome == outcome]
