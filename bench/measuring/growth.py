"""Does memory grow with the requests served? Robust slopes of the run and of its later parts, and what came in steps.

Pure. Allocators of inference engines grow in steps and give nothing back, which a slope alone would take for a leak; so
both are told, and where most of the growth came in a few steps the note says so. A leak goes on to the end: what counts
is the growth over the last two thirds and over the last third of the run, which a warm-up does not reach and in which
a leak that began late stands out. How a limit judges them over many slots is `bench.gating.leaks`.
"""

import math
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from seatrial.optimize.record import Record

Floats = npt.NDArray[np.float64]
STEP = 1 << 20  # bytes between two looks that count as an arena's step
PARTS = (1 / 3, 2 / 3)  # of the requests, after which each later part begins
GAVE_BACK = 0.5  # of a part's own rise: after such a fall, memory is collected now and then, and a rise proves nothing
_POINTS = 120  # the slope is a median over all pairs of points
_WIDER = 1.05  # than the least-squares slope's error: the median slope's efficiency is 0.91 to 0.96
_MOST_CORRELATED = 0.97  # of neighbours; chosen: beyond it 120 looks are worth fewer than two independent ones
_DOUBT = 1.5  # standard errors by which the correlation of neighbours is raised
_FEW_STEPS = 5  # chosen: growth in so few steps is named as an arena's
_STILL = 0.1  # of all growth, in the last third
_LEAST = 8  # points


@dataclass(frozen=True, slots=True, kw_only=True)
class Part:
    """Growth from a share of the requests (`begin`) to the end of the run.

    `slope` is bytes per 1,000 requests (Theil-Sen), `error` its standard error with `freedom` degrees of freedom: those
    of noise as much alike in time as the residuals. `collected` says that memory fell meanwhile by half of what it
    rose, so that a rise over this part alone is no leak yet.
    """

    begin: float
    slope: float
    error: float
    freedom: float
    collected: bool

    def reach(self, alpha: float) -> float:
        """Return how far a one-sided bound lies from the slope."""
        from scipy import stats

        return float(stats.t.ppf(1 - alpha, self.freedom)) * self.error


@dataclass(frozen=True, slots=True, kw_only=True)
class Growth(Record):
    """Bytes by which memory grew while requests were served.

    `slope` is bytes per 1,000 requests over the whole run (Theil-Sen). `lower` and `upper` are one-sided 95 % bounds of
    the growth that goes on: above `lower` > 0 memory leaks; a leak of more than `upper` is ruled out. Both are the
    highest of the run's parts. `grown` is last minus first, `stepped` the part of the rises that came in `steps` of at
    least 1 MiB between two looks, `shrunk` what was given back at most. `parts` are the later parts of the run.
    Earlier versions recorded neither `upper` nor `parts`.
    """

    slope: float
    lower: float
    upper: float = math.inf
    grown: float
    stepped: float
    steps: int
    shrunk: float
    note: str
    parts: tuple[Part, ...] = ()


def growth(requests: npt.ArrayLike, held: npt.ArrayLike, *, alpha: float = 0.05) -> Growth | None:
    """The growth of `held` (bytes) over the number of requests served until then, both in order of time.

    None where too little is known: fewer than eight points in any part, or no request in between.
    """
    x, y = np.asarray(requests, np.float64) / 1000.0, np.asarray(held, np.float64)
    if x.size < _LEAST or x.shape != y.shape or x[-1] <= x[0]:
        return None
    moves = np.diff(y)
    steps = moves[moves >= STEP]
    grown, shrunk = float(y[-1] - y[0]), float(np.max(np.maximum.accumulate(y) - y))
    span = x[-1] - x[0]
    whole, *parts = (_part(x, y, begin) for begin in (0.0, *PARTS))
    if whole is None or None in parts:
        return None
    later = tuple(part for part in parts if part is not None)
    last = later[-1]
    shared = alpha / (1 + len(later))
    sure = [part.slope - part.reach(shared) for part in (whole, *later) if part is whole or not part.collected]
    lower, upper = max(sure), max(part.slope + part.reach(alpha) for part in later)
    still = (last.slope + last.reach(alpha)) * (1 - last.begin) * float(span) < _STILL * grown
    return Growth(
        slope=whole.slope,
        lower=lower,
        upper=upper,
        grown=grown,
        stepped=float(steps.sum()),
        steps=int(steps.size),
        shrunk=shrunk,
        note=_note(grown, float(steps.sum()), int(steps.size), shrunk, lower, still=still),
        parts=later,
    )


def _part(x: Floats, y: Floats, begin: float) -> Part | None:
    """The growth after that share of the requests; None from fewer than eight points."""
    later = x >= x[0] + begin * (x[-1] - x[0])
    x, y = x[later], y[later]
    if x.size < _LEAST or x[-1] <= x[0]:
        return None
    rise, fall = float(np.max(y - np.minimum.accumulate(y))), float(np.max(np.maximum.accumulate(y) - y))
    kept = np.unique(np.linspace(0, x.size - 1, min(x.size, _POINTS)).round().astype(int))
    x, y = x[kept], y[kept]
    slope = float(theil_sen(x, y[None, :])[0])
    error, freedom = _error(x, y, slope)
    return Part(begin=begin, slope=slope, error=error, freedom=freedom, collected=fall > max(STEP, GAVE_BACK * rise))


def theil_sen(x: Floats, rows: Floats) -> Floats:
    """The median slope over all pairs of points, for every row of y values; pairs at the same x are left out.

    Theil (1950) and Sen (1968): up to 29 % of the points may be anything.
    """
    i, j = np.triu_indices(x.size, k=1)
    apart = x[j] > x[i]
    i, j = i[apart], j[apart]
    return np.asarray(np.median((rows[:, j] - rows[:, i]) / (x[j] - x[i]), axis=1), np.float64)


def _error(x: Floats, y: Floats, slope: float) -> tuple[float, float]:
    """The standard error of the slope of `y` over `x`, [n] each, and its degrees of freedom.

    That of a least-squares slope through noise like the residuals, a little widened since a median of slopes scatters
    more; with the degrees of freedom of as many independent points as they are worth. The noise is a first-order
    process; its correlation of neighbours is the residuals' own, corrected for the bias of short series (Marriott and
    Pope, Biometrika 41, 1954) and raised by
    standard errors, since too little of it makes leaks out of slow waves.
    """
    n = x.size
    residual = y - slope * x
    residual = residual - residual.mean()
    squares = float(residual @ residual)
    if squares == 0:
        return 0.0, float(n - 2)
    r = float(residual[1:] @ residual[:-1]) / squares
    r = min(max(0.0, r + (1 + 4 * r) / n + _DOUBT * math.sqrt(max(0.0, 1 - r * r) / n)), _MOST_CORRELATED)
    worth = n * (1 - r) / (1 + r)  # independent points
    variance = squares / (n - 2) / max(1 - 1 / worth, 1e-3)
    weights = (x - x.mean()) / float(np.sum((x - x.mean()) ** 2))
    alike = r ** np.abs(np.subtract.outer(np.arange(n), np.arange(n)))
    return _WIDER * math.sqrt(variance * float(weights @ alike @ weights)), max(1.0, worth - 2)


def _note(grown: float, stepped: float, steps: int, shrunk: float, lower: float, *, still: bool) -> str:
    if grown < STEP:
        return "did not grow"
    if steps and stepped >= 0.8 * grown and steps <= _FEW_STEPS:
        gave = "released nothing" if shrunk < STEP else f"released {shrunk / STEP:.0f} MiB meanwhile"
        return f"grew in {steps} step{'s' if steps > 1 else ''} and {gave}: looks like an arena within this window"
    if still:
        return "grew at first, but not in the last third of the requests"
    return "grew with the requests" if lower > 0 else "grew, but not significantly with the requests"
