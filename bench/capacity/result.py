"""The result of a capacity search, computed from its probes: the rate, how sure it is, the cliff, and latencies below.

Pure, so that the same raw runs give the same result again, offline. Sends nothing and stores nothing.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, Literal

from seatrial.optimize.record import Record, as_json

from ..load.validity import shared_cores
from ..load_limits import LoadLimits
from .curve import crossing, interval, misfit, points
from .probe import Decision, Probe, decide
from .search import Plan
from .slo import Slo

MISFIT = 3.0  # standard errors
Outcome = Literal["found", "at least", "none", "unsettled", "invalid"]
EXIT_CODES: Mapping[Outcome, int] = {"found": 0, "at least": 3, "none": 1, "unsettled": 3, "invalid": 4}
MEANINGS: Mapping[Outcome, str] = {
    "found": "the largest rate that meets the objective",
    "at least": "every offered rate meets the objective",
    "none": "no offered rate meets the objective",
    "unsettled": "the probes do not show where the objective is exceeded",
    "invalid": "the load generator broke its own rules, so the server was not measured",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Header(Record):
    """Parameters of a search, stored beside its raw runs.

    `saturation` is requests per second, closed loop; `cores` those of "client" and "server", as far as known.
    """

    target: str
    model: str
    slo: Slo
    batch: int
    seed: int
    saturation: float
    plan: Plan
    limits: LoadLimits
    environment: Mapping[str, Any]
    cores: Mapping[str, tuple[int, ...]]
    at: str

    def to_json(self) -> dict[str, Any]:
        """JSON values, the objective spelt out too."""
        return Record.to_json(self) | {"slo": as_json(self.slo) | {"text": str(self.slo)}}

    @classmethod
    def adapt(cls, value: dict[str, Any]) -> dict[str, Any]:
        """Pass over the objective's text."""
        return value | {"slo": {key: item for key, item in value["slo"].items() if key != "text"}}


@dataclass(frozen=True, slots=True, kw_only=True)
class Below:
    """Latencies at a share of the capacity; `tail` is the objective's percentile, `tail_upper` its 99 % bound."""

    share: float
    rate: float
    p50: float | None
    tail: float | None
    tail_upper: float | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Capacity(
    Record,
    schema=1,
    computed=("kind", "exit_code", "inferences", "load_seconds"),
    keys={"inferences": "inferences_per_second"},
):
    """The largest rate (requests per second) within the objective, with a 95 % interval.

    `rate` is None unless the outcome is "found" or "at least". `cliff` is the lowest rate at which the backlog grew:
    from there on no latency is bounded. `notes` say what weakens the result.
    """

    kind: ClassVar[str] = "capacity"

    header: Header
    outcome: Outcome
    rate: float | None
    interval: tuple[float, float] | None
    cliff: float | None
    below: tuple[Below, ...]
    probes: tuple[Probe, ...]
    notes: tuple[str, ...]

    @property
    def exit_code(self) -> int:
        """0 found, 1 no rate within the objective, 3 could not tell, 4 invalid."""
        return EXIT_CODES[self.outcome]

    @property
    def inferences(self) -> float | None:
        """Samples per second at the capacity: rate times batch."""
        return None if self.rate is None else self.rate * self.header.batch

    @property
    def load_seconds(self) -> float:
        """Return the total seconds of load."""
        return sum(probe.seconds for probe in self.probes)


def conclude(header: Header, probes: Sequence[Probe], stopped: str = "") -> Capacity:
    """Conclude from the probes: the crossing of the isotonic fit, its interval, the cliff and the latencies below."""
    slo = header.slo
    rate = crossing(points(probes), slo)
    bounds = interval(probes, slo, seed=header.seed) if rate is not None else None
    outcome: Outcome = "found" if bounds is not None else _without_crossing(probes, slo)
    if outcome == "at least":
        rate = max(rate for rate, decision in decisions(probes, slo).items() if decision == "SUSTAIN")
    grew = sorted(probe.rate for probe in probes if probe.state == "overload" and not probe.faults)
    known = outcome in ("found", "at least")
    return Capacity(
        header=header,
        outcome=outcome,
        rate=rate if known else None,
        interval=bounds if known else None,
        cliff=grew[0] if grew else None,
        below=_below(probes, rate) if known and rate else (),
        probes=tuple(probes),
        notes=_notes(header, probes, stopped),
    )


def decisions(probes: Sequence[Probe], slo: Slo) -> dict[float, Decision]:
    """Return the decision at each rate, over all its probes."""
    return {rate: decide([p for p in probes if p.rate == rate], slo) for rate in sorted({p.rate for p in probes})}


def _without_crossing(probes: Sequence[Probe], slo: Slo) -> Outcome:
    found = list(decisions([probe for probe in probes if not probe.faults], slo).values())
    if not found or (probes[-1].faults and found[-1] == "SUSTAIN"):
        return "invalid"
    return "at least" if found[-1] == "SUSTAIN" else "none" if found[0] == "NOT" else "unsettled"


def _below(probes: Sequence[Probe], rate: float) -> tuple[Below, ...]:
    return tuple(
        Below(share=p.rate / rate, rate=p.rate, p50=p.p50, tail=p.tail, tail_upper=p.tail_upper)
        for p in sorted(probes, key=lambda each: each.rate)
        if p.phase == "profile" and not p.faults
    )


def _notes(header: Header, probes: Sequence[Probe], stopped: str) -> tuple[str, ...]:
    slo = header.slo
    notes = [f"stopped early: {stopped}"] if stopped else []
    if shared := shared_cores(header.cores.get("client", ()), header.cores.get("server", ())):
        notes.append(f"{shared}: the client uses processor time that the server lacks")
    spoiled = sum(bool(probe.faults) for probe in probes)
    if spoiled:
        notes.append(f"{spoiled} of {len(probes)} probes were invalid and are not counted")
    sought = [probe for probe in probes if probe.phase != "profile"]
    open_ = [rate for rate, decision in decisions(sought, slo).items() if decision == "OPEN"]
    if open_:
        spelt = ", ".join(f"{rate:.4g}" for rate in open_)
        notes.append(f"not decided at 99 % confidence, so their estimate was used: {spelt} requests/s")
    if len(curve := points(probes)) > 1:
        rate, away = misfit(curve, slo)
        if away > MISFIT:
            notes.append(
                f"the fraction over the objective does not rise with the rate: {rate:.4g}/s deviates by "
                f"{away:.1f} sigma"
            )
    return tuple(notes)
