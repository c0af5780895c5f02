"""What to do after a verdict, and what it cost. Pure: a sentence per step, none where nothing is to be done."""

from collections.abc import Iterator, Mapping

from ..gating.pairs import GateRun
from ..verdict import Finding, Verdict

_SLOWER = "the page's waterfall says whether client, network, queue or compute took the time"
FAILURES: Mapping[str, str] = {
    "p50": _SLOWER,
    "p99": _SLOWER,
    "throughput": "compare the executed batch sizes of both arms on the page",
    "cost": "cost follows throughput: mend that",
    "quality": "find the layers that lose it (seatrial parity), and keep those in a finer precision",
    "peak_memory": "the page's memory curves say whether loading or serving takes it",
    "startup": "time the load alone: a larger file, more graph optimization, a first compilation",
    "file_size": "look at what the last stage added (seatrial show)",
    "errors": "read what the server refused, in the slots table and in the load's reasons",
}
SPOILED: Mapping[str, str] = {  # the first word of a broken rule of `bench.load.validity`, or a word of a reason
    "lag": "give the load generator a core of its own (design.client_cores), or lower design.rate",
    "client_cpu": "the load generator was out of breath: give it a core of its own, or lower design.rate",
    "control": "the machine itself changed between the arms: run where nothing else runs",
    "offered": "lower design.rate until the base carries it",
    "dropped": "lower design.rate until the base carries it",
}

MANY = 40  # pairs; beyond, another pair is the wrong means


def next_steps(verdict: Verdict) -> tuple[str, ...]:
    """What a reader may do about the verdict, most useful first; empty for a PASS."""
    steps = {"PASS": _passed, "FAIL": _failed, "INCONCLUSIVE": _unsettled, "INVALID": _spoiled}
    return tuple(dict.fromkeys(steps[verdict.outcome](verdict)))


def minutes(verdict: Verdict, run: GateRun | None = None) -> float:
    """How long all slots took together, in minutes; 0 where nobody wrote it down."""
    seconds = verdict.seconds or (sum(record.seconds for record in run.records) if run is not None else 0.0)
    return seconds / 60


def gate_cost(verdict: Verdict, run: GateRun) -> float | None:
    """What the gate itself cost in dollars: machine time of all slots at the pinned price; None without a price."""
    price = run.header.price.get("usd_hour")
    return float(price) * minutes(verdict, run) / 60 if price else None


def spell_cost(verdict: Verdict, run: GateRun) -> str:
    """Time and dollars of the gate as one sentence."""
    spent, cost = minutes(verdict, run), gate_cost(verdict, run)
    dollars = f", ${cost:.4f} at the pinned price of {run.header.price.get('machine')}" if cost is not None else ""
    return f"{spent:.1f} minutes of machine time{dollars}"


def _passed(verdict: Verdict) -> Iterator[str]:
    return iter(())


def _failed(verdict: Verdict) -> Iterator[str]:
    if verdict.reasons:
        yield "serve the candidate by itself (seatrial place, seatrial up) and read the server's log"
    failed = dict.fromkeys(finding.metric for finding in _gating(verdict, "FAIL"))
    told = {metric: FAILURES.get(metric, "the page shows it pair by pair") for metric in failed}
    for step in dict.fromkeys(told.values()):
        yield f"{', '.join(metric for metric in failed if told[metric] == step)}: {step}"


def _unsettled(verdict: Verdict) -> Iterator[str]:
    open_ = _gating(verdict, "INCONCLUSIVE")
    needed = [finding.pairs_needed for finding in open_ if (finding.pairs_needed or 0) > verdict.pairs]
    if needed:
        pairs = max(each for each in needed if each is not None)
        per_pair = minutes(verdict) / verdict.pairs if verdict.pairs else 0.0
        takes = f", about {pairs * per_pair:.0f} minutes" if per_pair else ""
        if pairs <= MANY:
            yield f"set design.pairs to {pairs} in the budget{takes}, and run the gate again"
        else:
            yield (
                f"this machine is too noisy for the margin ({pairs} pairs would be needed{takes}): quieten it, "
                "lengthen the slots (design.seconds), or widen the margin"
            )
    for finding in open_:
        if finding.pairs_needed is None or finding.pairs_needed <= verdict.pairs:
            yield f"{finding.metric}: the change lies close to the margin, where more pairs tell little; decide by hand"


def _spoiled(verdict: Verdict) -> Iterator[str]:
    text = " ".join(verdict.summary)
    known = [step for sign, step in SPOILED.items() if sign in text]
    yield from known
    if not known and "pairs were measured" in text:
        yield "the run ended early: run it again, and let it end"
    if any("no values" in finding.reason for finding in _gating(verdict, "INVALID")):
        yield "a metric was never measured: drop its limit, or measure where it can be measured"
    yield "nothing was decided: mend what the reasons name, and run the gate again"


def _gating(verdict: Verdict, outcome: str) -> list[Finding]:
    return [finding for finding in verdict.findings if finding.gating and finding.outcome == outcome]
