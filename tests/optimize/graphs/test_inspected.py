"""The reader of the inspector's JSON, on documents in the documented form (no TensorRT run produced them)."""

import json
from pathlib import Path

import pytest

from seatrial.optimize.errors import IntegrityError, StageError
from seatrial.optimize.graphs.coverage import Coverage, coverage, enforce
from seatrial.optimize.graphs.engine_inspector import read_layers
from seatrial.optimize.graphs.execution_graph import macs

pytestmark = pytest.mark.experimental("TensorRT")

GOLDEN = Path(__file__).parent.parent.parent / "golden" / "inspector"
PIXELS = 32 * 32


def read(name: str, length: int = 8) -> Coverage:
    return coverage(read_layers((GOLDEN / name).read_text(), length=length))


def test_the_form_with_bindings_shows_shares_and_the_island_with_its_reason() -> None:
    found = read("bindings.json")
    costs = {layer.name.split(" ")[-1]: (layer.precision, layer.macs) for layer in found.layers}
    assert costs == {
        "relu1": ("int8", 16 * PIXELS * 3 * 9),
        "add": ("int8", 16 * PIXELS * 9),  # depthwise; the residual that was fused in is fp16 and does not count
        "conv3": ("fp16", 8 * PIXELS * 16),
    }
    (island,) = found.islands
    assert island.layer.name == "conv3"
    assert "TensorRT dequantizes" in island.reason
    assert (found.engine, found.unseen) == ("TensorRT", ())
    with pytest.raises(StageError, match="conv3"):
        enforce(found, 0.9, "engine")


@pytest.mark.parametrize("length", [1, 16])
def test_the_form_with_io_tensors_counts_products_and_tells_what_it_cannot(length: int) -> None:
    found = read("io-tensors.json", length)
    costs = {layer.name: (layer.precision, layer.macs) for layer in found.layers}
    assert costs == {
        "projection_MatMul_myl0_1": ("int8", length * 64 * 32),
        "head_MatMul_myl0_2": ("fp16", length * 32 * 8),
    }
    assert found.unseen == ("_gemm_mha_v2_myl0_3 (Opaque)",)
    with pytest.raises(StageError, match="cost unknown"):
        enforce(found, 0.5, "engine")


def test_a_fused_layer_costs_what_the_nodes_cost_that_it_names() -> None:
    text = (GOLDEN / "io-tensors.json").read_text()
    costs = {"/qk/MatMul": 700, "/softmax/Softmax": 0, "/av/MatMul": 300}
    found = coverage(read_layers(text, costs=costs))
    assert [(layer.name, layer.precision, layer.macs) for layer in found.layers if layer.kind == "Opaque"] == [
        ("_gemm_mha_v2_myl0_3", "fp16", 1000)
    ]
    assert not found.unseen
    assert coverage(read_layers(text, costs={"/qk/MatMul": 700})).unseen  # in part is not at all


def layer(**changes: object) -> str:
    tensor: dict[str, object] = {"Name": "x", "Dimensions": [1, 8, 4, 4], "Format/Datatype": "Half"}
    plain: dict[str, object] = {
        "Name": "l",
        "LayerType": "CaskDeconvolutionV2",
        "ParameterType": "Deconvolution",
        "Inputs": [tensor],
    }
    plain |= {"Outputs": [tensor | {"Name": "y", "Dimensions": [1, 6, 8, 8]}], "OutMaps": 6, "Kernel": [2, 2]}
    return json.dumps({"Layers": [plain | {"Weights": {"Type": "Half", "Count": 8 * 6 * 4}} | changes]})


def test_transposed_convolutions_count_every_input_through_its_filter() -> None:
    graph = read_layers(layer())
    assert macs(graph.operations[0], graph.tensors) == 8 * 16 * 6 * 4
    assert coverage(graph).shares == {"fp16": 1.0}


@pytest.mark.parametrize(
    ("said", "precision"),
    [
        ("Thirty-two wide channel vectorized row major Int8 format", "int8"),
        ("Row major linear BFloat16 format", "bf16"),
        ("FP8", "fp8"),
        ("Float", "fp32"),
        ("N/A due to dynamic shapes", "fp16"),  # the weights tell
    ],
)
def test_formats_of_either_spelling_are_understood(said: str, precision: str) -> None:
    tensor = {"Name": "x", "Dimensions": [1, 8, 4, 4], "Datatype": said}
    weights = {"Type": "Half" if precision == "fp16" else "Int8" if precision == "int8" else said, "Count": 192}
    found = coverage(read_layers(layer(Inputs=[tensor], Weights=weights)))
    assert found.shares == {precision: 1.0}


@pytest.mark.parametrize(
    ("text", "error", "said"),
    [
        ("not JSON", IntegrityError, "not an inspector"),
        ("[]", IntegrityError, "not an inspector"),
        ('{"Layers": []}', IntegrityError, "no layers"),
        ('{"Layers": ["conv1 + relu1", "pool"]}', StageError, "only the names of layers"),
    ],
)
def test_other_documents_are_refused(text: str, error: type[Exception], said: str) -> None:
    with pytest.raises(error, match=said):
        read_layers(text)
