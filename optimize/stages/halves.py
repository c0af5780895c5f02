"""Held-out halves and one-sided intervals: what is chosen on one half is confirmed on the other. Pure."""

from dataclasses import dataclass

import numpy as np

from ..samples import Array, Samples

_LEAST = 20  # samples in a half, below which an interval says nothing


@dataclass(frozen=True, slots=True, kw_only=True)
class Bound:
    """Mean of paired differences over samples, with both ends of its interval."""

    mean: float
    low: float
    high: float


def halves(count: int, seed: int) -> tuple[Array, Array]:
    """Return the sorted row numbers of two random halves of `count` samples."""
    order = np.random.default_rng([seed, count]).permutation(count)
    return np.sort(order[: count // 2]), np.sort(order[count // 2 :])


def rows_of(samples: Samples, rows: Array) -> Samples:
    """Return the samples with these row numbers, which may repeat, as copies."""
    return Samples(
        split=samples.split,
        inputs={name: array[rows] for name, array in samples.inputs.items()},
        labels=None if samples.labels is None else samples.labels[rows],
        columns={name: array[rows] for name, array in samples.columns.items()},
    )


def bound(differences: Array, confidence: float) -> Bound:
    """Return the mean of differences [n]; each end of the interval holds with `confidence` by itself.

    A single difference bounds nothing: its interval is infinite. The interval is Student's t. Differences of decisions,
    which are -1, 0 and 1 alone, are rare events where they are few: there an end is no closer to the mean than
    Clopper and Pearson's bound of the events that would move it, so that no loss among n samples still allows 3 / n.
    """
    from scipy import stats  # a second, needless for everyone who only reads a recipe

    count, mean = len(differences), float(np.mean(differences))
    if count < 2:
        return Bound(mean=mean, low=-np.inf, high=np.inf)
    half = float(stats.t.ppf(confidence, count - 1)) * float(np.std(differences, ddof=1)) / float(np.sqrt(count))
    low, high = mean - half, mean + half
    if np.isin(differences, (-1.0, 0.0, 1.0)).all():
        most = [_most(int(np.count_nonzero(differences == sign)), count, confidence) for sign in (-1.0, 1.0)]
        shares = [float(np.mean(differences == sign)) for sign in (-1.0, 1.0)]
        low, high = min(low, shares[1] - most[0]), max(high, most[1] - shares[0])
    return Bound(mean=mean, low=low, high=high)


def _most(events: int, count: int, confidence: float) -> float:
    """Return the greatest probability that so many events leave possible (Clopper and Pearson)."""
    from scipy.special import betaincinv

    return 1.0 if events >= count else float(betaincinv(events + 1, count - events, confidence))


def too_few(count: int) -> str:
    """Return why that many samples cannot be parted into two halves, or an empty string."""
    return f"{count} calibration samples are too few for two halves of {_LEAST}" if count < 2 * _LEAST else ""
