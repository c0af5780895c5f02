"""Does memory grow with the requests served? A robust slope, and how much of the growth came in steps.

Pure. Allocators of inference engines grow in steps and give nothing back, which a slope alone would take for a leak; so
both are told, and where most of the growth came in a few steps the note says so.
"""

from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float64]
STEP = 1 << 20  # bytes between two looks that count as an arena's step
_POINTS = 120  # the slope is a median over all pairs of points
_DRAWS = 200
_FEW_STEPS = 5
_LEAST = 8  # points


@dataclass(frozen=True, slots=True, kw_only=True)
class Growth:
    """Bytes by which memory grew while requests were served.

    `slope` is bytes per 1,000 requests (Theil-Sen), `lower` its one-sided 95 % lower bound by a block bootstrap of the
    residuals, which keeps their dependence in time: it is above 0 where memory leaks. `grown` is last minus first,
    `stepped` the part of the rises that came in `steps` of at least 1 MiB between two looks, `shrunk` what was given
    back at most.
    """

    slope: float
    lower: float
    grown: float
    stepped: float
    steps: int
    shrunk: float
    note: str

    def to_json(self) -> dict[str, Any]:
        """JSON values."""
        return asdict(self)


def growth(requests: npt.ArrayLike, held: npt.ArrayLike, *, seed: int = 0, alpha: float = 0.05) -> Growth | None:
    """The growth of `held` (bytes) over the number of requests served until then, both in order of time.

    None where too little is known: fewer than eight points, or no request in between.
    """
    x, y = np.asarray(requests, np.float64) / 1000.0, np.asarray(held, np.float64)
    if x.size < _LEAST or x.shape != y.shape or x[-1] <= x[0]:
        return None
    moves = np.diff(y)
    steps = moves[moves >= STEP]
    grown, shrunk = float(y[-1] - y[0]), float(np.max(np.maximum.accumulate(y) - y))
    kept = np.unique(np.linspace(0, x.size - 1, min(x.size, _POINTS)).round().astype(int))
    x, y = x[kept], y[kept]
    slope = theil_sen(x, y[None, :])[0]
    lower = float(slope) - _reach(x, y, slope, seed, alpha)
    return Growth(
        slope=float(slope),
        lower=lower,
        grown=grown,
        stepped=float(steps.sum()),
        steps=int(steps.size),
        shrunk=shrunk,
        note=_note(grown, float(steps.sum()), int(steps.size), shrunk, lower),
    )


def theil_sen(x: Floats, rows: Floats) -> Floats:
    """The median slope over all pairs of points, for every row of y values; pairs at the same x are left out.

    Theil (1950) and Sen (1968): up to 29 % of the points may be anything.
    """
    i, j = np.triu_indices(x.size, k=1)
    apart = x[j] > x[i]
    i, j = i[apart], j[apart]
    return np.asarray(np.median((rows[:, j] - rows[:, i]) / (x[j] - x[i]), axis=1), np.float64)


def _reach(x: Floats, y: Floats, slope: float, seed: int, alpha: float) -> float:
    """How far the lower bound lies below the slope.

    The spread of slopes refitted to the line plus residuals drawn in blocks (of about ``2 n^(1/3)`` points, so that
    their dependence in time is kept), times the t quantile for that few blocks. Without a leak the bound was above 0 in
    5.5 % of simulated series of independent noise, in 11 % where neighbours correlate by 0.8.
    """
    from scipy import stats

    random = np.random.default_rng(seed)
    residual = y - slope * x
    residual = residual - np.median(residual)
    size = min(max(2, round(2 * x.size ** (1 / 3))), x.size // 3)
    blocks = -(-x.size // size)
    starts = random.integers(0, x.size - size + 1, (_DRAWS, blocks))
    places = (starts[:, :, None] + np.arange(size)).reshape(_DRAWS, -1)[:, : x.size]
    slopes = [theil_sen(x, slope * x + residual[part]) for part in np.array_split(places, 8)]
    freedom = max(1, x.size // size - 2)
    return float(stats.t.ppf(1 - alpha, freedom) * np.concatenate(slopes).std(ddof=1))


def _note(grown: float, stepped: float, steps: int, shrunk: float, lower: float) -> str:
    if grown < STEP:
        return "did not grow"
    if steps and stepped >= 0.8 * grown and steps <= _FEW_STEPS:
        gave = "gave nothing back" if shrunk < STEP else f"gave back {shrunk / STEP:.0f} MiB meanwhile"
        return f"grew in {steps} step{'s' if steps > 1 else ''} and {gave}: an arena, as far as this window shows"
    return "grew with the requests" if lower > 0 else "grew, but not surely with the requests"
