"""Power of labels: how many of a random sample would show that a model got worse, before any of them is there. Pure."""

import math

from scipy.stats import beta, norm

_ALPHA, _POWER = 0.05, 0.9


def labels_needed(accuracy: float, effect: float, *, alpha: float = _ALPHA, power: float = _POWER) -> int:
    """Return the random labels that show a fall of the accuracy by `effect`, by a one-sided test of a share."""
    before = min(max(accuracy, 0.01), 0.99)
    after = max(before - effect, 0.005)
    chance, miss = norm.ppf(1 - alpha), norm.ppf(power)
    spread = chance * math.sqrt(before * (1 - before)) + miss * math.sqrt(after * (1 - after))
    return math.ceil((spread / (before - after)) ** 2)


def detectable(accuracy: float, labels: int, *, alpha: float = _ALPHA, power: float = _POWER) -> float:
    """Return the smallest fall of the accuracy that so many random labels show; the accuracy itself where none is."""
    low, high = 1e-4, max(accuracy, 1e-3)
    if labels_needed(accuracy, high, alpha=alpha, power=power) > labels:
        return accuracy
    for _ in range(40):
        middle = (low + high) / 2
        if labels_needed(accuracy, middle, alpha=alpha, power=power) <= labels:
            high = middle
        else:
            low = middle
    return high


def share_interval(count: int, labels: int, *, alpha: float = _ALPHA) -> tuple[float, float]:
    """Return the exact interval (Clopper and Pearson, 1934) of a share that was seen `count` times of `labels`."""
    if not labels:
        return 0.0, 1.0
    low = float(beta.ppf(alpha / 2, count, labels - count + 1)) if count else 0.0
    high = float(beta.ppf(1 - alpha / 2, count + 1, labels - count)) if count < labels else 1.0
    return low, high
