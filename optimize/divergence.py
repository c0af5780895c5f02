"""Divergence: the first node at which two graphs of one network part, found by bisection along the order of execution.

Pairs the tensors of both graphs and searches; reads no file and runs nothing (a reading of a pair is handed in). What
exists in one graph only, because it was fused or renamed, is passed over.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from difflib import SequenceMatcher
from math import inf
from typing import Literal

from .executed import Graph, Operation

_BETWEEN = frozenset(("Cast", "QuantizeLinear", "DequantizeLinear", "Identity"))  # they carry a value on
_CUTS = frozenset(("Relu", "Clip"))
_FAR_LESS = 0.25


@dataclass(frozen=True, slots=True, kw_only=True)
class Pair:
    """One value in both graphs, by its tensor in each, and the candidate's operation that makes it."""

    reference: str
    candidate: str
    operation: Operation


@dataclass(frozen=True, slots=True, kw_only=True)
class Reading:
    """How a pair came out: difference relative to the greatest value, what rounding explains of it, both peaks.

    `error` is infinite where the candidate is NaN or infinite and the reference is not.
    """

    error: float
    limit: float
    peak: float
    candidate_peak: float

    @property
    def bad(self) -> bool:
        """Whether the difference is beyond what rounding explains."""
        return not self.error <= self.limit


@dataclass(frozen=True, slots=True, kw_only=True)
class Probe:
    """A tensor that was looked at: its place among the pairs, and how it came out."""

    place: int
    tensor: str
    error: float
    limit: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Divergence:
    """Where two graphs part. ``node``: its inputs agree and its output does not. ``gradual``: no such node, but the one
    named adds the most. ``engine``: as written both graphs agree, so the engine's fusions make the difference.
    """

    kind: Literal["node", "gradual", "engine"]
    node: str = ""
    operator: str = ""
    tensor: str = ""
    error_in: float = 0.0
    error_out: float = 0.0
    limit: float = 0.0
    peak: float = 0.0
    candidate_peak: float = 0.0
    pairs: int = 0
    probes: tuple[Probe, ...] = ()


def pairs(reference: Graph, candidate: Graph) -> tuple[Pair, ...]:
    """The values that both graphs compute, in the candidate's order of execution.

    Tensors belong together that have one name and one kind of maker; then outputs of nodes of one name and kind; then
    the rest by place, where the sequences of kinds agree. A cast or a quantized form of a paired value is that value,
    and that of its rectification where the candidate leaves this to the quantizer.
    """
    makers = {name: each for each in reference.operations for name in each.outputs if name}
    origins = _origins(candidate)
    nodes = {(each.name, each.kind): each for each in reference.operations if each.name}
    places = _places(reference, candidate)
    rectified = _rectified(reference, candidate)
    of: dict[str, str] = {}  # the candidate's tensor to the reference's
    found = []
    for operation in candidate.operations:
        for index, name in enumerate(operation.outputs):
            if operation.kind in _BETWEEN and name in origins:
                origin = origins[name]
                match = of.get(origin) or (origin if origin in makers else None)
                match = rectified.get(match or "", match)
            elif name in makers and makers[name].kind == operation.kind:
                match = name
            else:
                twin = nodes.get((operation.name, operation.kind)) or places.get(operation.outputs[0])
                match = twin.outputs[index] if twin is not None and index < len(twin.outputs) else None
            if match and _alike(reference, match, candidate, name):
                of[name] = match
                found.append(Pair(reference=match, candidate=name, operation=operation))
    return tuple(found)


def part(
    found: Sequence[Pair],
    candidate: Graph,
    outputs: Sequence[str],
    read: Callable[[Sequence[Pair]], Sequence[Reading]],
    seen: float = inf,
) -> Divergence:
    """Search the pairs for the first node whose output disagrees while its inputs agree.

    A bisection among the ancestors of a disagreeing output ends at a neighbouring pair of an agreeing and a disagreeing
    value; where branches run side by side these need not be connected, and the search goes on among the ancestors.
    `seen` is the relative error that the engines gave: where these graphs give far less, their nodes are not the cause.
    """
    search = _Search(found, candidate, read)
    ends = [number for number, pair in enumerate(found) if pair.candidate in outputs]
    bad = next((number for number in ends if search.reading(number).bad), None)
    if bad is None:
        search.read_all()
        if not ends:  # no output has a pair: whatever is bad must do
            bad = next((number for number in range(len(found)) if search.reading(number).bad), None)
    if bad is not None:
        return search.told("node", search.first(bad))
    if not found or (ends and max(search.reading(number).error for number in ends) < _FAR_LESS * seen):
        return Divergence(kind="engine", pairs=len(found))
    growth = {number: search.reading(number).error - search.error_in(number) for number in range(len(found))}
    return search.told("gradual", max(growth, key=lambda number: growth[number]))


class _Search:
    def __init__(
        self, found: Sequence[Pair], candidate: Graph, read: Callable[[Sequence[Pair]], Sequence[Reading]]
    ) -> None:
        self._pairs, self._read = found, read
        self._place = {pair.candidate: number for number, pair in enumerate(found)}
        self._makers = {name: each for each in candidate.operations for name in each.outputs if name}
        self._readings: dict[int, Reading] = {}

    def reading(self, number: int) -> Reading:
        if number not in self._readings:
            self._readings[number] = self._read([self._pairs[number]])[0]
        return self._readings[number]

    def read_all(self, at_once: int = 32) -> None:
        """Read every pair, some at once: for where no bisection helps."""
        left = [number for number in range(len(self._pairs)) if number not in self._readings]
        for start in range(0, len(left), at_once):
            some = left[start : start + at_once]
            self._readings |= dict(zip(some, self._read([self._pairs[number] for number in some]), strict=True))

    def first(self, bad: int) -> int:
        while True:
            line = [*self._ancestors(bad), bad]
            low, high = -1, len(line) - 1  # the graph's inputs agree by definition, the last is bad
            while high - low > 1:
                middle = (low + high) // 2
                low, high = (low, middle) if self.reading(line[middle]).bad else (middle, high)
            bad = line[high]
            above = next((number for number in self._parents(bad) if self.reading(number).bad), None)
            if above is None:
                return bad
            bad = above

    def error_in(self, number: int) -> float:
        return max((self.reading(parent).error for parent in self._parents(number)), default=0.0)

    def told(self, kind: Literal["node", "gradual", "engine"], number: int) -> Divergence:
        pair, reading = self._pairs[number], self.reading(number)
        error_in = self.error_in(number)
        probes = tuple(
            Probe(place=place, tensor=self._pairs[place].reference, error=each.error, limit=each.limit)
            for place, each in sorted(self._readings.items())
        )
        return Divergence(
            kind=kind,
            node=pair.operation.name or pair.candidate,
            operator=pair.operation.kind,
            tensor=pair.candidate,
            error_in=error_in,
            error_out=reading.error,
            limit=reading.limit,
            peak=reading.peak,
            candidate_peak=reading.candidate_peak,
            pairs=len(self._pairs),
            probes=probes,
        )

    def _parents(self, number: int) -> list[int]:
        """The nearest pairs before this one, through whatever stands between and has no pair."""
        found, seen, left = set(), set(), list(self._pairs[number].operation.inputs)
        while left:
            name = left.pop()
            if name in seen or not name:
                continue
            seen.add(name)
            if name in self._place:
                found.add(self._place[name])
            elif name in self._makers:
                left += self._makers[name].inputs
        return sorted(found)

    def _ancestors(self, number: int) -> list[int]:
        found: set[int] = set()
        left = [number]
        while left:
            new = [parent for parent in self._parents(left.pop()) if parent not in found]
            found.update(new)
            left += new
        return sorted(found)


def _origins(graph: Graph) -> Mapping[str, str]:
    """Of everything that a cast or a quantizer gives: the value that it carries on."""
    found: dict[str, str] = {}
    for each in graph.operations:
        if each.kind in _BETWEEN and each.inputs:
            found[each.outputs[0]] = found.get(each.inputs[0], each.inputs[0])
    return found


def _rectified(reference: Graph, candidate: Graph) -> Mapping[str, str]:
    """The reference's tensors that go into nothing but a Relu or Clip which the candidate does not have, to its output.

    Quantizers drop those: a zero point at the end of the range cuts negative values off.
    """
    takers: dict[str, list[Operation]] = {}
    for each in reference.operations:
        for name in each.inputs:
            takers.setdefault(name, []).append(each)
    still = {each.outputs[0] for each in candidate.operations if each.kind in _CUTS}
    return {
        name: some[0].outputs[0]
        for name, some in takers.items()
        if len(some) == 1 and some[0].kind in _CUTS and some[0].outputs[0] not in still
    }


def _places(reference: Graph, candidate: Graph) -> Mapping[str, Operation]:
    """The reference's operation in the same place as the candidate's, by its first output."""
    one = [each for each in reference.operations if each.kind not in _BETWEEN]
    other = [each for each in candidate.operations if each.kind not in _BETWEEN]
    same = SequenceMatcher(None, [each.kind for each in one], [each.kind for each in other], autojunk=False)
    return {
        other[block.b + step].outputs[0]: one[block.a + step]
        for block in same.get_matching_blocks()
        for step in range(block.size)
    }


def _alike(reference: Graph, one: str, candidate: Graph, other: str) -> bool:
    """Whether both tensors were seen, hold floats, and have one shape."""
    first, second = reference.tensors.get(one), candidate.tensors.get(other)
    if first is None or second is None or first.constant or first.shape != second.shape:
        return False
    return "float" in first.dtype and "float" in second.dtype
