"""Search for the layers to keep in float, by measured quality and measured latency.

Pure: the callable passed in builds and measures a choice of layers. `search` measures
every layer alone, then keeps in float what regains most quality for the time it costs until the floor holds, and gives
back what turns out not to be needed. `search_by_noise` is for many layers: it trusts an order of them, finds by
bisection how many of the first must stay in float, and gives back likewise. Both report measured points only.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass

Layers = frozenset[str]


@dataclass(frozen=True, slots=True, kw_only=True)
class Point:
    """One measured choice: the layers kept in float, the quality lost and the latency ratio, both against the parent.

    `low` and `high` bound the latency ratio with 95 % confidence.
    """

    kept: Layers
    drop: float
    latency: float
    low: float
    high: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Sensitivity:
    """Effect of keeping one layer alone in float: quality regained and latency paid (negative: float is faster)."""

    layer: str
    regained: float
    paid: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Choice:
    """Result of a search: all points in the order measured, the chosen one, and why each layer is kept in float.

    `chosen` is the fastest point within the floor, or None where no choice of layers is.
    """

    points: tuple[Point, ...]
    sensitivities: tuple[Sensitivity, ...]
    chosen: Point | None
    reasons: dict[str, str]

    @property
    def front(self) -> tuple[Point, ...]:
        """The points that no other beats in both quality and latency, fastest first."""
        return front(self.points)


Measure = Callable[[Layers], Point]
Tell = Callable[[int, str], None]
"""Callback for progress: the number of points measured so far, and the next one as text."""


def search(
    layers: Sequence[str],
    measure: Measure,
    *,
    floor: float,
    most: int,
    tell: Tell = lambda measured, text: None,
) -> Choice:
    """Find the fastest choice of layers to keep in float whose quality drop is at most `floor`.

    At most `most` choices are measured; where layers alone would take more than half of them, only as many of the first
    layers as fit are tried alone, so order them by weight.
    """
    measured = _Measured(measure, most, tell)
    base = measured((), "every layer in integers")
    if base is None:
        return Choice(points=(), sensitivities=(), chosen=None, reasons={})
    alone = {}
    for layer in layers[: max(1, most // 2)]:
        point = measured((layer,), f"{layer} in float")
        if point is not None:
            alone[layer] = point
    found = [
        Sensitivity(layer=layer, regained=base.drop - point.drop, paid=point.latency - base.latency)
        for layer, point in alone.items()
    ]
    kept = {each.layer for each in found if alone[each.layer].high < base.low}  # integers are slower there
    _grow(kept, found, measured, floor)
    _shrink(kept, measured, floor)
    chosen = measured.fastest(floor)
    reasons = {} if chosen is None else {each.layer: _reason(each) for each in found if each.layer in chosen.kept}
    return Choice(
        points=tuple(measured.points.values()),
        sensitivities=tuple(sorted(found, key=lambda each: -each.regained)),
        chosen=chosen,
        reasons=reasons,
    )


def search_by_noise(
    noise: Mapping[str, float],
    measure: Measure,
    *,
    floor: float,
    most: int,
    tell: Tell = lambda measured, text: None,
) -> Choice:
    """Find a fast choice within the floor by keeping the noisiest layers in float, in at most `most` measurements.

    `noise` is how much integers disturb each layer's own output. Of n layers about 2 log2(n) choices find how many must
    stay in float; what measurements are left are for giving single ones back, the least noisy first.
    """
    measured = _Measured(measure, most, tell)
    order = sorted(noise, key=lambda layer: (-noise[layer], layer))

    def holds(count: int) -> bool:
        point = measured(order[:count], f"the {count} noisiest of {len(order)} layers in float")
        return point is not None and point.drop <= floor

    enough = 0
    while not holds(enough) and enough < len(order):
        enough = min(max(1, 2 * enough), len(order))
    few = enough // 2  # does not hold
    while enough - few > 1:
        middle = (few + enough) // 2
        few, enough = (few, middle) if holds(middle) else (middle, enough)
    kept = order[:enough]
    for layer in reversed(order[:enough]):
        before = measured(kept, "")
        less = measured([each for each in kept if each != layer], f"{layer} in integers again")
        if less is not None and before is not None and less.drop <= floor and less.latency < before.latency:
            kept.remove(layer)
    chosen = measured.fastest(floor)
    places = {layer: place for place, layer in enumerate(order, start=1)}
    reasons = {
        layer: f"int8 noise of {noise[layer]:.2%} of its variance, {places[layer]} of {len(order)}"
        for layer in sorted(chosen.kept if chosen else (), key=places.__getitem__)
    }
    return Choice(points=tuple(measured.points.values()), sensitivities=(), chosen=chosen, reasons=reasons)


class _Measured:
    """Choices measured so far, each once; None for a further one when there are as many as may be."""

    def __init__(self, measure: Measure, most: int, tell: Tell) -> None:
        self.points: dict[Layers, Point] = {}
        self._measure, self._most, self._tell = measure, most, tell

    def __call__(self, kept: Iterable[str], text: str) -> Point | None:
        choice = frozenset(kept)
        if choice not in self.points:
            if len(self.points) >= self._most:
                return None
            self._tell(len(self.points), text)
            self.points[choice] = self._measure(choice)
        return self.points[choice]

    def fastest(self, floor: float) -> Point | None:
        """The fastest point within the floor."""
        within = [point for point in self.points.values() if point.drop <= floor]
        return min(within, key=lambda point: (point.latency, len(point.kept)), default=None)


def front(points: Iterable[Point]) -> tuple[Point, ...]:
    """The points that no other beats in both quality and latency, fastest first."""
    best: list[Point] = []
    for point in sorted(points, key=lambda each: (each.latency, each.drop)):
        if not best or point.drop < best[-1].drop:
            best.append(point)
    return tuple(best)


def _grow(
    kept: set[str], found: Sequence[Sensitivity], measured: Callable[[Iterable[str], str], Point | None], floor: float
) -> None:
    """Keep one more layer in float after the other, the best bargain first, until the floor holds."""
    helping = [each for each in found if each.regained > 0 and each.layer not in kept]
    bargains = sorted(helping, key=lambda each: -each.regained / max(each.paid, 1e-3))
    point = measured(kept, "what is faster in float")
    for each in bargains:
        if point is None or point.drop <= floor:
            return
        kept.add(each.layer)
        point = measured(kept, f"also {each.layer} in float")


def _shrink(kept: set[str], measured: Callable[[Iterable[str], str], Point | None], floor: float) -> None:
    """Give back what is not needed: a layer without which the floor still holds and the model is faster."""
    point = measured(kept, "")
    if point is None or point.drop > floor:
        return
    for layer in sorted(kept):
        less = measured(kept - {layer}, f"{layer} in integers again")
        if less is None:
            return
        if less.drop <= floor and less.latency < point.latency:
            kept.discard(layer)
            point = less


def _reason(each: Sensitivity) -> str:
    if each.regained <= 0:
        return f"faster in float by {-each.paid:.1%} of the parent's time"
    return f"regains {each.regained:.4f} of quality alone, for {each.paid:+.1%} of the parent's time"
