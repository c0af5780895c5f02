"""Load shedding: the fraction of a model's requests for a smaller one, so that the latency objective holds.

Pure, a table of steps with hysteresis: up at once when the measured p99 breaks the objective, down one step at a time
after a calm period, so that effective shedding does not end itself. Too few requests change
nothing. The last step leaves a tenth with the model: otherwise its recovery would not be visible.
"""

from collections.abc import Sequence
from dataclasses import dataclass

STEPS = (0.0, 0.25, 0.5, 0.75, 0.9)
LEAST = 50  # answers of a window, below which its p99 says nothing
CALM = 0.7  # of the promise: below that a window is calm
PATIENCE = 5  # calm windows in a row before a step down


@dataclass(frozen=True, slots=True, kw_only=True)
class Shedding:
    """State of load shedding: the step, and the number of consecutive calm windows."""

    step: int = 0
    calm: int = 0

    @property
    def share(self) -> float:
        """The share that the smaller model takes."""
        return STEPS[self.step]


def begun_at(share: float) -> Shedding:
    """Shedding as it is found in force: the first step that is not below that share."""
    return Shedding(step=next((step for step, each in enumerate(STEPS) if each >= share), len(STEPS) - 1))


def next_shedding(now: Shedding, latencies: Sequence[float], promised: float) -> Shedding:
    """Shedding after one more window of the model's own latencies (seconds); `promised` is the bound on their p99."""
    if len(latencies) < LEAST:
        return now
    p99 = sorted(latencies)[int(0.99 * (len(latencies) - 1))]
    if p99 > promised:
        return Shedding(step=min(now.step + 1, len(STEPS) - 1))
    if p99 > CALM * promised or now.step == 0:
        return Shedding(step=now.step)
    if now.calm + 1 < PATIENCE:
        return Shedding(step=now.step, calm=now.calm + 1)
    return Shedding(step=now.step - 1)
