from math import log10, sqrt

import pytest
from hypothesis import given
from hypothesis import strategies as st

from seatrial.optimize.artifact import TensorSpec
from seatrial.optimize.graphs.execution_graph import Graph, Operation, Tensor, in_order
from seatrial.optimize.parity.rounding import EQUAL, MARGIN, WIDEST, Depth, contract, depths, limit, tolerance


def product(number: int, *, name: str = "") -> Operation:
    inputs = (f"t{number}", f"w{number}")
    return Operation(name=name, kind="MatMul", inputs=inputs, outputs=(f"t{number + 1}",))


def chain(length: int, width: int, dtype: str = "float32", weights: str = "") -> Graph:
    tensors = {f"t{number}": Tensor(dtype=dtype, shape=(4, width)) for number in range(length + 1)}
    kept = Tensor(dtype=weights or dtype, shape=(width, width), constant=True)
    tensors |= {f"w{number}": kept for number in range(length)}
    return Graph(operations=tuple(product(number) for number in range(length)), tensors=tensors)


def deepest(graph: Graph) -> Depth:
    return max(depths(graph).values(), key=lambda depth: depth.variance)


@given(st.integers(1, 30), st.integers(1, 4096))
def test_a_chain_adds_its_variances_and_names_its_longest_sum(length: int, width: int) -> None:
    found = deepest(chain(length, width))
    unit = 2.0**-24
    assert found.variance == pytest.approx(((length * (width + 2)) + 1) * unit**2)  # the first weights once more
    assert (found.roundings, found.longest_sum) == (length, width)


@given(st.integers(1, 20), st.integers(1, 20), st.integers(1, 512))
def test_a_limit_grows_with_depth_and_with_coarser_numbers(length: int, more: int, width: int) -> None:
    fine, deep = deepest(chain(length, width)), deepest(chain(length + more, width))
    half, brain = deepest(chain(length, width, "float16")), deepest(chain(length, width, "bfloat16"))
    assert limit(fine, fine) < limit(deep, deep) < limit(deep, half) < limit(deep, brain) <= WIDEST
    assert limit(fine, half) == limit(half, fine)


def test_integer_weights_and_activations_count() -> None:
    plain = chain(1, 64)
    quantized = [
        Operation(name="q", kind="QuantizeLinear", inputs=("t0", "s"), outputs=("q",)),
        Operation(name="dq", kind="DequantizeLinear", inputs=("q", "s"), outputs=("d",)),
        Operation(name="dw", kind="DequantizeLinear", inputs=("w0", "s"), outputs=("dw0",)),
        Operation(name="m", kind="MatMul", inputs=("d", "dw0"), outputs=("t1",)),
    ]
    tensors = dict(plain.tensors) | {
        "w0": Tensor(dtype="int8", shape=(64, 64), constant=True),
        "q": Tensor(dtype="uint8", shape=(4, 64)),
        "d": plain.tensors["t0"],
        "dw0": Tensor(dtype="float32", shape=(64, 64)),
    }
    found = depths(Graph(operations=tuple(quantized), tensors=tensors))["t1"]
    assert limit(found, Depth()) == pytest.approx(MARGIN * sqrt(2) * 2**-8, rel=1e-3)


def test_the_contract_bounds_floats_by_error_and_noise_and_numbers_by_equality() -> None:
    graph = chain(2, 8)
    outputs = [
        TensorSpec(name="t2", dtype="float32", shape=("n", 8)),
        TensorSpec(name="k", dtype="int64", shape=("n",)),
    ]
    found = contract(graph, graph, outputs)
    most = found["t2"].relative_error
    assert most is not None
    assert found["t2"].snr == pytest.approx(-20 * log10(most))
    assert found["k"].agreement == EQUAL
    assert tolerance(Depth(), Depth()).relative_error == 2.0**-53


def test_what_only_moves_values_adds_nothing() -> None:
    move = Operation(name="", kind="Reshape", inputs=("t0",), outputs=("y",))
    tensors = {name: Tensor(dtype="float16", shape=(4, 4)) for name in ("t0", "y")}
    assert depths(Graph(operations=(move,), tensors=tensors))["y"].variance == 0


@given(st.permutations(range(6)))
def test_operations_are_put_in_order(order: list[int]) -> None:
    sound = chain(6, 2)
    mixed = [sound.operations[number] for number in order]
    assert in_order(mixed) == sound.operations
