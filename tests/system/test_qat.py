"""Fine-tuning under fake quantization: the integers that each target wants, kernels that fuse, answers that agree."""

import shutil
from pathlib import Path

import numpy as np
import onnx
import onnxruntime as ort
import pytest
import torch

from seatrial.optimize.building.build import build
from seatrial.optimize.environment import environment
from seatrial.optimize.errors import ConfigError, StageError
from seatrial.optimize.recipe.metrics import accuracy
from seatrial.optimize.recipe.recipe import load_recipe
from seatrial.optimize.recipe.targets import TARGETS, resolve
from seatrial.optimize.samples import Samples
from seatrial.optimize.sessions.on_torch import open_module
from seatrial.optimize.sessions.session import open_session
from seatrial.optimize.stages.fake_quantization import Grid, fix
from seatrial.optimize.stages.qat import calibrate, prepare
from seatrial.optimize.store import Store
from tests.support import tiny as model
from tests.support.built import TINY, Built

pytestmark = pytest.mark.system


def samples(split: str, rows: int) -> Samples:
    inputs, labels = model.samples(split, rows)
    return Samples(split=split, inputs=inputs, labels=labels)


def recipe_in(folder: Path, stage: str) -> Path:
    """The tiny recipe, its distilled student followed by that stage."""
    shutil.copy(TINY.parent / "tiny.py", folder)
    head = "[[stages]]".join(TINY.read_text().split("[[stages]]")[:2])
    (folder / "tiny.toml").write_text(f"{head}\n[[stages]]\n{stage}")
    return folder / "tiny.toml"


def optimized(path: Path, folder: Path) -> list[str]:
    """Kinds of the nodes that ONNX Runtime really runs."""
    options = ort.SessionOptions()
    options.optimized_model_filepath = str(folder / "optimized.onnx")
    ort.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    return [node.op_type for node in onnx.load(str(folder / "optimized.onnx")).graph.node]


def test_the_built_file_fuses_agrees_and_keeps_its_quality(tiny: Built, tmp_path: Path) -> None:
    shutil.copytree(tiny.home, tmp_path / "copy")
    store = Store(tmp_path / "copy" / "store")
    stage = 'kind = "qat"\ntarget = "auto"\ntraining = { epochs = 2, batch_size = 64, learning_rate = 1e-3 }'
    recipe = load_recipe(recipe_in(tmp_path, stage))
    made = build(recipe, store)
    assert [step.cached for step in made.steps] == [True, False]
    assert all(not agreement.broken for agreement in made.steps[1].agreements)
    assert not build(recipe, store).worked
    path = store.path(made.artifact, "model.onnx")
    kinds = optimized(path, tmp_path)
    assert kinds.count("QLinearConv") == 2
    assert "QGemm" in kinds
    assert "Conv" not in kinds
    tensors = {tensor.name: tensor for tensor in onnx.load(str(path)).graph.initializer}
    assert sum(tensor.data_type == onnx.TensorProto.INT8 and len(tensor.dims) > 1 for tensor in tensors.values()) == 3
    assert not [name for name, tensor in tensors.items() if tensor.data_type == 1 and len(tensor.dims) > 1]
    held_out = samples("evaluation", 400)
    float_score, int_score = (
        accuracy(open_session(step.artifact, store).run(held_out.inputs)["logits"], held_out.labels).mean()
        for step in made.steps
    )
    assert int_score > float_score - 0.02 > 0.8
    assert made.artifact.requires["cpu_flags_any"]
    assert not list((tmp_path / "copy" / "cache" / "checkpoints").iterdir())


@pytest.mark.parametrize("target", sorted(TARGETS))
def test_fixed_grids_are_the_arithmetic_that_was_trained(tiny: Built, target: str) -> None:
    contract = TARGETS[target]
    trained = prepare(open_module(tiny.build.steps[0].artifact, tiny.store), samples("calibration", 128), contract, ())
    calibrate(trained, samples("calibration", 128))
    signal = torch.from_numpy(samples("evaluation", 200).inputs["signal"])
    with torch.no_grad():
        expected = trained.train()(signal)  # batch normalization is frozen; the last look of the observers
        fixed = fix(trained, contract)
        trained.apply(torch.ao.quantization.disable_observer)
        expected = trained.eval()(signal)
        got = fixed(signal)
    assert float((got.argmax(1) == expected.argmax(1)).double().mean()) > 0.97
    assert float(torch.nn.functional.cosine_similarity(got, expected).mean()) > 0.999
    points = {layer.zero_point for layer in fixed.modules() if isinstance(layer, Grid)}
    assert points == {0} if contract.activation_symmetric else len(points) > 1
    weights = [tensor for tensor in fixed.state_dict().values() if tensor.dtype == torch.int8]
    assert len(weights) == 3
    largest = max(int(np.abs(tensor.numpy().astype(int)).max()) for tensor in weights)
    assert 60 <= largest <= 64 if contract.reduce_range else 120 <= largest <= 128


def test_excluded_layers_stay_in_float(tiny: Built) -> None:
    module = open_module(tiny.build.steps[0].artifact, tiny.store)
    prepared = prepare(module, samples("calibration", 64), TARGETS["x86-vnni"], ("head",))
    calibrate(prepared, samples("calibration", 64))
    fixed = fix(prepared, TARGETS["x86-vnni"])
    assert type(fixed.get_submodule("head")) is torch.nn.Linear
    assert sum(tensor.dtype == torch.int8 for tensor in fixed.state_dict().values()) == 2


def test_a_layer_that_is_called_twice_has_a_bias_for_each_scale(tmp_path: Path) -> None:
    class Twice(torch.nn.Module):
        """One layer called at two scales."""

        def __init__(self) -> None:
            super().__init__()
            self.first, self.shared, self.last = (
                torch.nn.Linear(16, 32),
                torch.nn.Linear(32, 32),
                torch.nn.Linear(32, 4),
            )

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            """[n, 4]."""
            hidden = torch.relu(self.shared(torch.relu(self.first(x))))
            result: torch.Tensor = self.last(torch.relu(self.shared(8 * hidden)))
            return result

    torch.manual_seed(0)
    x = np.random.default_rng(0).normal(size=(64, 16)).astype(np.float32)
    some = Samples(split="train", inputs={"x": x}, labels=None)
    contract = TARGETS[resolve("auto", environment())]
    trained = prepare(Twice(), some, contract, ())
    calibrate(trained, some)
    trained.apply(torch.ao.quantization.disable_observer)
    fixed = fix(trained.eval(), contract)
    path = tmp_path / "twice.onnx"
    torch.onnx.export(fixed, (torch.from_numpy(x),), path, input_names=["x"], dynamo=True, verbose=False)
    got = ort.InferenceSession(str(path)).run(None, {"x": x})[0]
    with torch.no_grad():
        expected = trained(torch.from_numpy(x)).numpy()
    assert np.abs(got - expected).max() < 0.03 * np.abs(expected).max()


@pytest.mark.parametrize("glob", ["haed", "norm"])
def test_globs_without_effect_are_refused(tiny: Built, glob: str) -> None:
    module = open_module(tiny.build.steps[0].artifact, tiny.store)
    with pytest.raises(ConfigError, match=f"'{glob}'") as caught:
        prepare(module, samples("calibration", 64), TARGETS["x86-vnni"], (glob,))
    assert caught.value.where == "qat.exclude"


def test_what_cannot_be_quantized_is_said(tiny: Built) -> None:
    class Twisted(torch.nn.Module):
        """Its path depends on the numbers."""

        def forward(self, signal: torch.Tensor) -> torch.Tensor:
            """The signal or its negative."""
            return signal if signal.sum() > 0 else -signal

    with pytest.raises(StageError, match="cannot be traced") as caught:
        prepare(Twisted(), samples("calibration", 4), TARGETS["x86-vnni"], ())
    assert "quantize" in caught.value.next_step
    module = open_module(tiny.build.steps[0].artifact, tiny.store)
    with pytest.raises(StageError, match="nothing can be quantized"):
        prepare(module, samples("calibration", 4), TARGETS["x86-vnni"], ("*",))
