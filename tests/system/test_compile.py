"""Compile in real builds: refused graphs, and planned artifacts that are stored, shown, not opened, and say why."""

import json
import shutil
from pathlib import Path

import onnx
import pytest
from onnxruntime.quantization import CalibrationDataReader, QuantFormat, QuantType, quantize_static
from onnxruntime.quantization.shape_inference import quant_pre_process
from typer.testing import CliRunner

from seatrial.optimize.building.build import build, plan
from seatrial.optimize.building.figures import figures
from seatrial.optimize.errors import ContractError, StageError
from seatrial.optimize.recipe.configs import Shapes
from seatrial.optimize.recipe.recipe import load_recipe
from seatrial.optimize.sessions.on_tensorrt_builder import at_hand
from seatrial.optimize.sessions.session import open_session
from seatrial.optimize.store import Store
from seatrial.optimize.tensorrt.legality import check
from seatrial.optimize.tensorrt.on_onnx import describe
from seatrial.optimize.tensorrt.plan import MODEL, PLAN, EnginePlan
from seatrial.serve.cli import app
from tests.support.built import TINY, Built
from tests.support.tiny import samples

pytestmark = [
    pytest.mark.experimental("TensorRT"),
    pytest.mark.system,
    pytest.mark.skipif(at_hand(), reason="TensorRT is installed: artifacts are engines here, see tests/gpu"),
]
PROFILE = {"signal": Shapes(min=(1, 1, 64), opt=(8, 1, 64), max=(32, 1, 64))}
COMPILE = '\n[[stages]]\nkind = "compile"\nbatch = [1, 8, 32]\n'


class Reader(CalibrationDataReader):  # type: ignore[misc]
    def __init__(self) -> None:
        inputs, _ = samples("calibration", 64)
        self._batches = iter([{"signal": inputs["signal"][start : start + 32]} for start in (0, 32)])

    def get_next(self) -> object:
        return next(self._batches, None)


def recipe(folder: Path, model: Path, stages: str = COMPILE) -> Path:
    """A recipe that starts from an ONNX file."""
    folder.mkdir(parents=True, exist_ok=True)
    shutil.copy(TINY.parent / "tiny.py", folder)
    shutil.copy(model, folder / "net.onnx")
    head = TINY.read_text().split("[[stages]]", 1)[0]
    head = head.replace('factory = "tiny.py:teacher"\noutputs = ["logits"]', 'onnx = "net.onnx"')
    (folder / "r.toml").write_text(head + stages)
    return folder / "r.toml"


@pytest.fixture
def exported(tiny: Built) -> Path:
    return tiny.store.path(tiny.build.steps[2].artifact, MODEL)


def quantized(source: Path, folder: Path, **options: object) -> Path:
    quant_pre_process(str(source), str(folder / "prepared.onnx"))
    quantize_static(
        str(folder / "prepared.onnx"),
        str(folder / "quantized.onnx"),
        Reader(),
        quant_format=QuantFormat.QDQ,
        per_channel=True,
        weight_type=QuantType.QInt8,
        **options,
    )
    return folder / "quantized.onnx"


def test_a_float_graph_becomes_a_planned_artifact_that_says_how_to_carry_it_out(tmp_path: Path, exported: Path) -> None:
    store = Store(tmp_path / "s" / "store")
    loaded = load_recipe(recipe(tmp_path, exported))
    made = build(loaded, store)
    artifact = made.artifact
    assert artifact.planned
    assert artifact.format == "tensorrt"
    assert artifact.made_by.notes["planned"] is True
    assert [file.path for file in artifact.files] == [MODEL, PLAN]
    document = json.loads(store.path(artifact, PLAN).read_text())
    assert EnginePlan.from_json(document).model == artifact.file(MODEL).digest
    assert "--stronglyTyped" in document["trtexec"]["10.16"]
    with pytest.raises(ContractError, match="plan of a TensorRT engine") as caught:
        open_session(artifact, store)
    assert "trtexec" in caught.value.next_step
    rows = figures(made, store)
    assert (rows[-1].quality, rows[-1].parent, rows[-1].reference) == (None, None, None)
    assert (rows[0].quality or 0.0) > 0.9
    assert figures(made, store) == rows
    assert not build(loaded, store).worked
    assert [step.artifact is not None for step in plan(loaded, store)] == [True, True]


def test_the_command_shows_a_planned_artifact_and_fails_on_an_illegal_one(tmp_path: Path, exported: Path) -> None:
    path = recipe(tmp_path, exported)
    done = CliRunner().invoke(app, ["build", str(path)])
    assert done.exit_code == 0, done.output
    assert "planned" in done.output
    assert "nothing was compiled" in done.output
    shown = json.loads(CliRunner().invoke(app, ["build", str(path), "--json"]).stdout)
    assert [step["planned"] for step in shown["steps"]] == [False, True]
    assert shown["steps"][-1]["quality"] is None


def test_the_linter_on_int8_from_onnx_runtime(tmp_path: Path, exported: Path) -> None:
    default = check(describe(quantized(exported, tmp_path, activation_type=QuantType.QInt8)), (PROFILE,))
    assert {breach.rule for breach in default} == {"zero point", "bias"}
    symmetric = {"ActivationSymmetric": True, "WeightSymmetric": True}
    with_bias = check(describe(quantized(exported, tmp_path, extra_options=symmetric)), (PROFILE,))
    assert [breach.rule for breach in with_bias] == ["bias"] * 3
    path = quantized(exported, tmp_path, extra_options=symmetric | {"QuantizeBias": False})
    assert sum(node.op_type == "QuantizeLinear" for node in onnx.load(path).graph.node) > 3
    assert check(describe(path), (PROFILE,), (1, 32)) == ()


def test_int8_for_the_cpu_is_refused_and_int8_for_tensorrt_is_planned(tmp_path: Path, exported: Path) -> None:
    store = Store(tmp_path / "s" / "store")
    cpu = recipe(tmp_path / "cpu", exported, '[[stages]]\nkind = "quantize"\n' + COMPILE)
    with pytest.raises(StageError) as caught:
        build(load_recipe(cpu), store)
    assert "zero point at" in caught.value.what
    assert "bias at" in caught.value.what
    assert caught.value.exit_code == 1
    symmetric = {"ActivationSymmetric": True, "WeightSymmetric": True, "QuantizeBias": False}
    legal = recipe(tmp_path / "gpu", quantized(exported, tmp_path, extra_options=symmetric))
    assert build(load_recipe(legal), store).artifact.planned
