"""Which layers to keep in float: a search over measured quality and measured latency together.

Pure: what a choice of layers is worth is told by the callable handed in, which builds and measures. The search measures
every layer alone, then keeps in float what regains most quality for the time it costs until the floor holds, and gives
back what turns out not to be needed. It never reports a choice that was not measured.
"""

from collections.abc import Callable, Iterable, Sequence
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
    """What keeping one layer alone in float does: quality regained, and latency paid (negative: it is faster so)."""

    layer: str
    regained: float
    paid: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Choice:
    """What a search found: all points in the order measured, the chosen one, and why each layer is kept in float.

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
"""Told how many points are measured and what comes next."""


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
    points: dict[Layers, Point] = {}

    def measured(kept: Iterable[str], text: str) -> Point | None:
        choice = frozenset(kept)
        if choice not in points:
            if len(points) >= most:
                return None
            tell(len(points), text)
            points[choice] = measure(choice)
        return points[choice]

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
    within = [point for point in points.values() if point.drop <= floor]
    chosen = min(within, key=lambda point: (point.latency, len(point.kept)), default=None)
    reasons = {} if chosen is None else {each.layer: _reason(each) for each in found if each.layer in chosen.kept}
    return Choice(
        points=tuple(points.values()),
        sensitivities=tuple(sorted(found, key=lambda each: -each.regained)),
        chosen=chosen,
        reasons=reasons,
    )


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
