from collections.abc import Sequence
from math import inf

import pytest
from hypothesis import given
from hypothesis import strategies as st

from seatrial.optimize.graphs.execution_graph import Graph, Operation, Tensor
from seatrial.optimize.parity.divergence import Divergence, Pair, Reading, pairs, part


def operation(kind: str, inputs: str, output: str, name: str = "") -> Operation:
    return Operation(name=name, kind=kind, inputs=tuple(inputs.split()), outputs=(output,))


def graph(*operations: Operation, integers: str = "") -> Graph:
    names = {name for each in operations for name in (*each.inputs, *each.outputs)}
    kinds = {name: "uint8" if name in integers.split() else "float32" for name in names}
    tensors = {name: Tensor(dtype=kind, shape=(2, 2), constant=name.startswith("w")) for name, kind in kinds.items()}
    return Graph(operations=operations, tensors=tensors)


def matched(one: Graph, other: Graph) -> dict[str, str]:
    return {pair.candidate: pair.reference for pair in pairs(one, other)}


FLOAT = graph(
    operation("Conv", "x w0", "c0", "first"), operation("Relu", "c0", "r0"), operation("Conv", "r0 w1", "y", "second")
)


def test_a_cast_and_a_quantized_form_are_the_value_they_carry() -> None:
    quantized = graph(
        operation("QuantizeLinear", "x s", "xq"),
        operation("DequantizeLinear", "xq s", "xd"),
        operation("Conv", "xd w0", "c0", "first"),
        operation("Relu", "c0", "r0"),
        operation("QuantizeLinear", "r0 s", "rq"),
        operation("DequantizeLinear", "rq s", "rd"),
        operation("Conv", "rd w1", "y", "second"),
        integers="xq rq",
    )
    assert matched(FLOAT, quantized) == {"c0": "c0", "r0": "r0", "rd": "r0", "y": "y"}


def test_a_rectification_left_to_the_quantizer_is_seen_through() -> None:
    quantized = graph(
        operation("Conv", "x w0", "r0", "first"),  # took the name of the Relu that is gone
        operation("QuantizeLinear", "r0 s", "rq"),
        operation("DequantizeLinear", "rq s", "rd"),
        operation("Conv", "rd w1", "y", "second"),
        integers="rq",
    )
    assert matched(FLOAT, quantized) == {"r0": "c0", "rd": "r0", "y": "y"}


def test_without_names_the_order_of_kinds_tells_and_a_fused_node_is_passed_over() -> None:
    fused = graph(operation("FusedConv", "x w0", "a"), operation("Conv", "a w1", "b"))
    assert matched(FLOAT, fused) == {"b": "y"}  # by its weights
    fused = graph(operation("FusedConv", "x w7", "a"), operation("Conv", "a w8", "b"))
    assert matched(FLOAT, fused) == {}  # rather none than the wrong one
    same = graph(operation("Conv", "x w7", "a"), operation("Relu", "a", "b"), operation("Conv", "b w8", "c"))
    assert matched(FLOAT, same) == {"a": "c0", "b": "r0", "c": "y"}


def test_another_shape_is_no_counterpart() -> None:
    other = Graph(
        operations=FLOAT.operations, tensors=dict(FLOAT.tensors) | {"r0": Tensor(dtype="float32", shape=(9,))}
    )
    assert matched(FLOAT, other) == {"c0": "c0", "y": "y"}


@st.composite
def planted(draw: st.DrawFn) -> tuple[Graph, int]:
    """A random graph whose every node takes one or two earlier ones and flows into the last; and a bad node."""
    size = draw(st.integers(2, 40))
    operations = []
    for number in range(size):
        earlier = ["x", *(f"t{each}" for each in range(number))]
        inputs = draw(st.lists(st.sampled_from(earlier), min_size=1, max_size=2, unique=True))
        operations.append(operation("Add", " ".join(inputs), f"t{number}", f"n{number}"))
    every = " ".join(f"t{number}" for number in range(size))
    operations.append(operation("Sum", every, "y", "last"))
    return graph(*operations), draw(st.integers(0, size - 1))


def downstream(whole: Graph, bad: int) -> set[str]:
    """Everything that the bad node reaches."""
    reached = {f"t{bad}"}
    for each in whole.operations:
        if reached & set(each.inputs):
            reached.update(each.outputs)
    return reached


@given(planted())
@pytest.mark.slow
def test_the_bad_node_of_any_graph_is_found(case: tuple[Graph, int]) -> None:
    whole, bad = case
    reached, read = downstream(whole, bad), 0

    def reading(some: Sequence[Pair]) -> list[Reading]:
        nonlocal read
        read += len(some)
        errors = [0.5 if pair.candidate in reached else 1e-9 for pair in some]
        return [Reading(error=error, limit=1e-6, peak=1.0, candidate_peak=1.0) for error in errors]

    found = part(pairs(whole, whole), whole, ["y"], reading)
    assert (found.kind, found.node, found.error_out) == ("node", f"n{bad}", 0.5)
    assert found.error_in <= 1e-6
    assert read == len(found.probes) <= len(whole.operations)


def parted(errors: dict[str, float], seen: float) -> Divergence:
    def reading(some: Sequence[Pair]) -> list[Reading]:
        return [Reading(error=errors[pair.candidate], limit=0.1, peak=1.0, candidate_peak=1.0) for pair in some]

    return part(pairs(FLOAT, FLOAT), FLOAT, ["y"], reading, seen)


def test_where_no_node_is_bad_the_greatest_growth_or_the_engine_is_named() -> None:
    found = parted({"c0": 0.01, "r0": 0.01, "y": 0.06}, seen=0.06)
    assert (found.kind, found.node, found.error_in) == ("gradual", "second", 0.01)
    assert parted({"c0": 0.01, "r0": 0.01, "y": 0.02}, seen=0.4).kind == "engine"


@pytest.mark.parametrize("error", [0.2, inf])
def test_what_stands_between_is_named(error: float) -> None:
    other = graph(
        operation("Conv", "x w0", "c0", "first"),
        operation("Relu", "c0", "r0"),
        operation("ConvInteger", "r0 w1", "i", "inner"),
        operation("Mul", "i s", "y", "scale"),
        integers="i",
    )

    def reading(some: Sequence[Pair]) -> list[Reading]:
        errors = [error if pair.candidate == "y" else 0.0 for pair in some]
        return [Reading(error=each, limit=0.1, peak=1.0, candidate_peak=1.0) for each in errors]

    found = part(pairs(FLOAT, other), other, ["y"], reading)
    assert (found.node, found.original, found.between) == ("scale", "second (Conv)", ("inner (ConvInteger)",))
