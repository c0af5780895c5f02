"""The one figure that a run of a scenario is judged by. Pure."""

from dataclasses import dataclass

from seatrial.optimize.errors import ConfigError

from ..scenarios import Offline, Scenario, Tail, tail
from .run import LoadRun, Saturation


@dataclass(frozen=True, slots=True, kw_only=True)
class Score:
    """A scenario's own figure: `tail` for the latency-bound ones, `samples_per_second` for offline."""

    scenario: str
    tail: Tail | None = None
    samples_per_second: float | None = None


def score(scenario: Scenario, run: LoadRun | Saturation) -> Score:
    """The figure that MLPerf reports for a run of that scenario.

    Arrivals without a reply count with the time that they had waited; nothing answered gives neither figure.
    """
    if isinstance(scenario, Offline):
        if not isinstance(run, Saturation):
            raise ConfigError("offline is scored only from a closed-loop run")
        return Score(scenario=scenario.name, samples_per_second=run.inferences_per_second)
    times = run.latency_bounds if isinstance(run, LoadRun) else run.latency
    return Score(scenario=scenario.name, tail=tail(times, scenario.quantile) if len(times) else None)
