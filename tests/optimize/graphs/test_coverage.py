from collections.abc import Mapping
from math import prod

import pytest
from hypothesis import given
from hypothesis import strategies as st

from seatrial.optimize.errors import StageError
from seatrial.optimize.graphs.coverage import Coverage, Layer, coverage, enforce
from seatrial.optimize.graphs.execution_graph import Graph, Operation, Tensor, macs


def operation(kind: str, inputs: str, outputs: str = "y", name: str = "node", **attributes: object) -> Operation:
    return Operation(
        name=name, kind=kind, inputs=tuple(inputs.split()), outputs=tuple(outputs.split()), attributes=attributes
    )


def tensors(dtype: str = "float32", constants: str = "w", /, **shapes: tuple[int, ...]) -> dict[str, Tensor]:
    return {name: Tensor(dtype=dtype, shape=shape, constant=name in constants) for name, shape in shapes.items()}


@pytest.mark.parametrize(
    ("node", "shapes", "expected"),
    [
        (operation("Conv", "x w"), {"x": (2, 8, 9, 9), "w": (4, 2, 3, 3), "y": (2, 4, 7, 7)}, 2 * 4 * 49 * 2 * 9),
        (operation("QLinearConv", "x s z w"), {"w": (4, 8, 5), "y": (1, 4, 60)}, 4 * 60 * 8 * 5),
        (operation("ConvTranspose", "x w"), {"x": (1, 8, 5, 5), "w": (8, 4, 2, 2), "y": (1, 4, 10, 10)}, 8 * 25 * 16),
        (operation("MatMul", "x w"), {"x": (2, 3, 5), "w": (5, 7), "y": (2, 3, 7)}, 2 * 3 * 5 * 7),
        (operation("Gemm", "x w", transA=1), {"x": (5, 3), "w": (5, 7), "y": (3, 7)}, 3 * 5 * 7),
        (operation("MatMulNBits", "x w"), {"x": (2, 64), "w": (7, 2, 16), "y": (2, 7)}, 2 * 64 * 7),
        # two heads of width 4 over 6 tokens: 6x6 scores and 6x6 weighted values, each of hidden 8
        (operation("MultiHeadAttention", "x k v"), {"x": (1, 6, 8), "k": (1, 6, 8), "y": (1, 6, 8)}, 2 * 6 * 6 * 8),
        (operation("Attention", "x w"), {"x": (1, 6, 8), "w": (8, 24), "y": (1, 6, 8)}, 6 * 8 * 24 + 2 * 6 * 6 * 8),
        (operation("LSTM", "x w r"), {"x": (5, 2, 3), "w": (1, 16, 3), "r": (1, 16, 4), "y": (5, 1, 2, 4)}, 10 * 112),
        (operation("Einsum", "x w", equation="bij,jk->bik"), {"x": (2, 3, 5), "w": (5, 7), "y": (2, 3, 7)}, 210),
        (operation("Relu", "x"), {"x": (2, 2), "y": (2, 2)}, 0),
    ],
)
def test_macs_by_hand(node: Operation, shapes: Mapping[str, tuple[int, ...]], expected: int) -> None:
    assert macs(node, tensors(**shapes)) == expected


@given(st.lists(st.integers(1, 6), min_size=2, max_size=4), st.integers(1, 9))
def test_a_product_costs_rows_times_inner_times_columns(rows: list[int], columns: int) -> None:
    known = tensors(x=tuple(rows), w=(rows[-1], columns), y=(*rows[:-1], columns))
    assert macs(operation("MatMul", "x w"), known) == prod(rows) * columns


def test_an_unknown_shape_is_unseen_and_breaks_a_promise() -> None:
    found = coverage(Graph(operations=(operation("Conv", "x w"),), tensors={}))
    assert found.unseen == ("node (Conv)",)
    with pytest.raises(StageError, match="cost unknown: node"):
        enforce(found, 0.5, "here")
    enforce(found, 0.0, "here")


def pattern(
    activation: str, *, weights: bool = True, inputs: bool = True, output: bool = True, machine: str = "x86_64"
) -> Coverage:
    """A float Conv between Q and DQ, as an engine leaves it where it has no kernel."""
    nodes = [operation("DequantizeLinear", "xq s", "x", "xdq")] if inputs else []
    nodes += [operation("DequantizeLinear", "wq s", "w", "wdq")] if weights else []
    nodes += [operation("Conv", "x w", "c", "conv"), operation("Relu", "c", "r")]
    nodes += [operation("QuantizeLinear", "r s", "y")] if output else []
    known = tensors("float32", "" if weights else "w", x=(1, 3, 8), w=(4, 3, 3), c=(1, 4, 6), r=(1, 4, 6))
    known |= tensors(activation, "", xq=(1, 3, 8), y=(1, 4, 6)) | tensors("int8", "wq", wq=(4, 3, 3))
    return coverage(Graph(operations=tuple(nodes), tensors=known, engine="ONNX Runtime", machine=machine))


@pytest.mark.parametrize(
    ("found", "reason"),
    [
        (pattern("int8"), "its activations are int8 (S8), and the kernels of ONNX Runtime on x86_64 fuse"),
        (pattern("uint8", inputs=False), "only its weights are quantized"),
        (pattern("uint8", weights=False), "its weights are not"),
        (pattern("uint8", output=False), "its output is not quantized"),
        (pattern("uint8"), "ONNX Runtime on x86_64 has no integer kernel"),
        (pattern("int8", machine="aarch64"), "ONNX Runtime on aarch64 has no integer kernel"),
    ],
)
def test_every_island_has_its_reason(found: Coverage, reason: str) -> None:
    (island,) = found.islands
    assert reason in island.reason
    assert ("dequantized on every run" in island.reason) == ("weights are not" not in island.reason)
    assert found.shares == {"fp32": 1.0}
    with pytest.raises(StageError, match="conv"):
        enforce(found, 0.01, "here")


def test_a_plain_float_layer_is_no_island() -> None:
    assert not pattern("uint8", weights=False, inputs=False).islands


@pytest.mark.parametrize(("level", "precision"), [(4, "int8"), (0, "fp32")])
def test_weight_only_runs_in_int8_only_where_the_kernel_quantizes_activations(level: int, precision: str) -> None:
    node = operation("MatMulNBits", "x w", accuracy_level=level)
    found = coverage(Graph(operations=(node,), tensors=tensors(x=(2, 64), y=(2, 7))))
    assert found.shares == {precision: 1.0}


layers = st.lists(
    st.builds(Layer, name=st.just("n"), kind=st.just("Conv"), precision=st.sampled_from(["int8", "fp16", "fp32"]),
              macs=st.integers(1, 10**12)), min_size=1, max_size=8,
)  # fmt: skip


@given(layers)
def test_shares_add_up_and_a_threshold_holds_exactly_up_to_the_share(some: list[Layer]) -> None:
    found = Coverage(layers=tuple(some), islands=(), unseen=())
    assert sum(found.shares.values()) == pytest.approx(1)
    enforce(found, found.share("int8"), "here")
    if found.share("int8") < 0.99:
        with pytest.raises(StageError, match="requires"):
            enforce(found, found.share("int8") + 0.005, "here")
