"""Divergence: first node at which two graphs of one network disagree, found by bisection in order of execution.

Pairs the tensors of both graphs and searches; reads no file and runs nothing (a reading of a pair is handed in). What
exists in one graph only, because it was fused or renamed, is passed over.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from difflib import SequenceMatcher
from math import inf
from typing import Literal

from ..graphs.execution_graph import Graph, Operation

_BETWEEN = frozenset(("Cast", "QuantizeLinear", "DequantizeLinear", "Identity"))  # they carry a value on
_CUTS = frozenset(("Relu", "Clip"))
_FAR_LESS = 0.25  # of the error that the engines gave; chosen: with less than this the nodes alone are not its cause


@dataclass(frozen=True, slots=True, kw_only=True)
class Pair:
    """One value in both graphs, by its tensor in each, and the operations that make it."""

    reference: str
    candidate: str
    original: Operation
    operation: Operation


@dataclass(frozen=True, slots=True, kw_only=True)
class Reading:
    """Difference of a pair of tensors relative to the greatest value, the part that rounding explains, and both peaks.

    `error` is infinite where the candidate is NaN or infinite and the reference is not.
    """

    error: float
    limit: float
    peak: float
    candidate_peak: float

    @property
    def bad(self) -> bool:
        """True if the difference exceeds the part that rounding explains."""
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
    """First disagreement of two graphs.

    ``node``: its inputs agree and its output does not. ``gradual``: no such node exists, the named one adds the
    most. ``engine``: run without fusion both graphs agree, so the engine's fusions make the difference.

    `node` and `operator` are the candidate's, `original` the reference's node that makes the same value; `between` are
    the candidate's nodes that have no counterpart and stand between the agreeing inputs and the node.
    """

    kind: Literal["node", "gradual", "engine"]
    node: str = ""
    operator: str = ""
    original: str = ""
    between: tuple[str, ...] = ()
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

    Tensors of one name belong together, unless that name went to another node when a rectification was dropped; then
    outputs of nodes of one kind and name, or of one kind with the same weights; then the rest by place, where the
    sequences of kinds agree. A cast or a quantized form of a paired value is that value, and that of its rectification
    where the candidate leaves this to the quantizer.
    """
    makers = {name: each for each in reference.operations for name in each.outputs if name}
    origins = _origins(candidate)
    nodes = {(each.name, each.kind): each for each in reference.operations if each.name}
    weighted = {(name, each.kind): each for each in reference.operations for name in _weights(reference, each)}
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
            else:
                twin = nodes.get((operation.name, operation.kind))
                same = makers.get(name)
                if same is not None and (same.kind == operation.kind or not (twin or same.kind in _CUTS)):
                    twin = same
                used = (weighted.get((weight, operation.kind)) for weight in _weights(candidate, operation))
                twin = twin or next((each for each in used if each), None) or places.get(operation.outputs[0])
                match = twin.outputs[index] if twin is not None and index < len(twin.outputs) else None
            if match and _alike(reference, match, candidate, name):
                of[name] = match
                found.append(Pair(reference=match, candidate=name, original=makers[match], operation=operation))
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
        """Read every pair, several at a time, where bisection does not apply."""
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
            original=f"{pair.original.name or pair.reference} ({pair.original.kind})",
            between=self._between(number),
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
        """The nearest pairs before this one."""
        taken = (name for each in self._region(number) for name in each.inputs)
        return sorted({self._place[name] for name in taken if name in self._place})

    def _between(self, number: int) -> tuple[str, ...]:
        return tuple(f"{each.name or each.outputs[0]} ({each.kind})" for each in self._region(number)[1:])

    def _region(self, number: int) -> list[Operation]:
        """The pair's operation and, before it, whatever stands between and has no pair; constants' own included."""
        found = [self._pairs[number].operation]
        for operation in found:
            for name in operation.inputs:
                maker = self._makers.get(name)
                if maker is not None and name not in self._place and maker not in found:
                    found.append(maker)
        return found

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


def _weights(graph: Graph, operation: Operation) -> list[str]:
    """Names of the constants with more than one axis that it takes."""
    tensors = {name: graph.tensors[name] for name in operation.inputs if name in graph.tensors}
    return [name for name, tensor in tensors.items() if tensor.constant and len(tensor.shape) > 1]


def _places(reference: Graph, candidate: Graph) -> Mapping[str, Operation]:
    """The reference's operation in the same place as the candidate's, by its first output.

    Both must take the same inputs of the graph, or none: a node that was fused away shifts what follows.
    """
    one = [each for each in reference.operations if each.kind not in _BETWEEN]
    other = [each for each in candidate.operations if each.kind not in _BETWEEN]
    given, taken = _given(reference), _given(candidate)
    same = SequenceMatcher(None, [each.kind for each in one], [each.kind for each in other], autojunk=False)
    return {
        other[block.b + step].outputs[0]: one[block.a + step]
        for block in same.get_matching_blocks()
        for step in range(block.size)
        if given & set(one[block.a + step].inputs) == taken & set(other[block.b + step].inputs)
    }


def _given(graph: Graph) -> set[str]:
    """The graph's inputs."""
    made = {name for each in graph.operations for name in each.outputs}
    return {name for name, tensor in graph.tensors.items() if not tensor.constant and name not in made}


def _alike(reference: Graph, one: str, candidate: Graph, other: str) -> bool:
    """Return True if both tensors were read, hold floats, and have the same shape."""
    first, second = reference.tensors.get(one), candidate.tensors.get(other)
    if first is None or second is None or first.constant or first.shape != second.shape:
        return False
    return "float" in first.dtype and "float" in second.dtype
