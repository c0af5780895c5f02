"""One short climb of the rate, and the largest rate up to which the objective held.

Pure. A climb finds in seconds what a search over steady rates finds in minutes, and costs what it leaves out: a queue
that would only overflow after a while looks better, so its figure compares settings, and is no capacity to promise.
"""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from seatrial.bench.capacity.slo import Slo
from seatrial.bench.load.run import OK, LoadRun
from seatrial.bench.schedule import Schedule, ramp
from seatrial.optimize.errors import ConfigError

WIDTH = 1.2  # a stretch of the climb is judged together: from its rate over this to its rate


@dataclass(frozen=True, slots=True, kw_only=True)
class RateRamp:
    """From a rate to a higher one (requests per second) within so many seconds, evenly."""

    low: float
    high: float
    seconds: float

    def __post_init__(self) -> None:
        if not (0 < self.low < self.high and self.seconds > 0):
            raise ConfigError(f"the ramp must rise from a positive rate, got {self}")

    def schedule(self, seed: int) -> Schedule:
        """Poisson arrivals of the climb."""
        return ramp([(0.0, self.low), (self.seconds, self.high)], seed)


@dataclass(frozen=True, slots=True, kw_only=True)
class Sustained:
    """The largest rate of a climb up to which the objective held; `ended` where it held to the end, so "at least"."""

    rate: float
    ended: bool


def sustained(run: LoadRun, climb: RateRamp, slo: Slo) -> Sustained:
    """Read it off a run: the highest rate of which the stretch before held the objective.

    An arrival without a good answer in time misses, whatever the reason. Stretches after a stall of the machine are
    judged again, so that one stall far below the limit decides nothing.
    """
    missed = (run.status != OK) | ~(run.done - run.intended <= slo.seconds)
    return held(run.intended, missed, climb, slo)


def held(intended: npt.NDArray[np.float64], missed: npt.NDArray[np.bool_], climb: RateRamp, slo: Slo) -> Sustained:
    """`sustained` for arrivals (seconds after the start, in order) and whether each missed."""
    rates = climb.low + (climb.high - climb.low) * intended / climb.seconds
    sums = np.concatenate([[0], np.cumsum(missed)])
    begins = np.searchsorted(rates, rates / WIDTH)
    stops = np.arange(1, len(rates) + 1)
    share = (sums[stops] - sums[begins]) / (stops - begins)
    full = rates >= min(climb.low * WIDTH, climb.high)
    good = np.flatnonzero(full & (share <= slo.budget))
    if not len(good):
        return Sustained(rate=climb.low, ended=False)
    return Sustained(rate=float(rates[good[-1]]), ended=bool(good[-1] == len(rates) - 1))
