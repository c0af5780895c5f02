"""Many p-values at once: what each must be read as. Pure; decides nothing."""

from collections.abc import Sequence


def holm(p_values: Sequence[float]) -> tuple[float, ...]:
    """Holm's adjusted p-values, in the order given: reject where the value is at most the family's alpha."""
    order = sorted(range(len(p_values)), key=lambda i: p_values[i])
    adjusted, running = [1.0] * len(p_values), 0.0
    for rank, i in enumerate(order):
        running = max(running, min(1.0, (len(p_values) - rank) * p_values[i]))
        adjusted[i] = running
    return tuple(adjusted)


def benjamini_hochberg(p_values: Sequence[float]) -> tuple[float, ...]:
    """Benjamini and Hochberg's adjusted p-values, in the order given: at most alpha of what is rejected is false.

    ``min over k >= rank of p_(k) m / k`` (Journal of the Royal Statistical Society B 57, 1995): what advisory metrics
    need, of which many are looked at and a false one costs a look.
    """
    order = sorted(range(len(p_values)), key=lambda i: p_values[i], reverse=True)
    adjusted, running = [1.0] * len(p_values), 1.0
    for place, i in enumerate(order):
        running = min(running, p_values[i] * len(p_values) / (len(p_values) - place))
        adjusted[i] = running
    return tuple(adjusted)
