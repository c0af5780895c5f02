"""Fine-tuning under fake quantization and distillation hold the 2:4 pattern, and the written file proves it."""

from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import torch

from seatrial.optimize.errors import StageError
from seatrial.optimize.pruning import on_pattern, pattern
from seatrial.optimize.pruning.on_graphs import sparse_weights
from seatrial.optimize.recipe.configs import Training
from seatrial.optimize.recipe.targets import TARGETS
from seatrial.optimize.samples import Samples
from seatrial.optimize.stages.fake_quantization import fix
from seatrial.optimize.stages.qat import calibrate, prepare, prove
from seatrial.optimize.stages.training import fit


class Net(torch.nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.conv, self.norm = torch.nn.Conv2d(4, 8, 3), torch.nn.BatchNorm2d(8)
        self.one, self.two = torch.nn.Linear(8, 8), torch.nn.Linear(8, 3)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        hidden = torch.relu(self.one(torch.relu(self.norm(self.conv(x))).flatten(1)))
        found: torch.Tensor = self.two(hidden)
        return found


def pruned() -> Net:
    torch.manual_seed(0)
    module = Net()
    with on_pattern.masked(on_pattern.eligible(module, ("two",))):
        pass
    return module


def samples() -> Samples:
    rows = np.random.default_rng(3).normal(size=(64, 4, 3, 3)).astype(np.float32)
    return Samples(split="train", inputs={"x": rows}, labels=None)


def trained(module: torch.nn.Module) -> None:
    answers = torch.randn(64, 3, generator=torch.Generator().manual_seed(1))
    training = Training(epochs=3, batch_size=16, learning_rate=0.05)
    fit(module, samples(), answers, training, output="y", seed=0, progress=lambda share, text: None)


def test_layers_of_the_pattern_are_those_that_were_pruned_to_it() -> None:
    module = pruned()
    assert list(on_pattern.sparse(module)) == ["conv", "one"]
    torch.nn.init.zeros_(module.conv.weight)
    torch.nn.init.eye_(module.one.weight)
    assert on_pattern.sparse(module) == {}


@pytest.mark.slow
def test_training_loses_the_pattern_unless_it_is_held() -> None:
    free, held = pruned(), pruned()
    trained(free)
    assert on_pattern.sparse(free) == {}
    before = held.one.weight.detach().clone()
    with on_pattern.held(held, ("conv", "one")):
        trained(held)
    assert list(on_pattern.sparse(held)) == ["conv", "one"]
    assert bool(((held.one.weight == 0) == (before == 0)).all())
    assert not torch.equal(held.one.weight, before)


def test_a_zero_that_changes_is_an_error() -> None:
    module = pruned()
    with pytest.raises(StageError, match="broke the 2:4 pattern in one"), on_pattern.held(module, ("one",)):
        torch.nn.init.ones_(module.one.weight)


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")  # of torch, in its exporter
def test_fake_quantization_keeps_the_zeros_into_the_file(tmp_path: Path) -> None:
    module = prepare(pruned(), samples(), TARGETS["tensorrt"], ())
    calibrate(module, samples())
    with on_pattern.held(module, ("conv", "one")):
        trained(module)
    fixed: Any = fix(module.eval(), TARGETS["tensorrt"])
    weights = {name: each.numpy() for name, each in fixed.named_buffers() if name.endswith("weight")}
    assert sum(pattern.holds(each) for each in weights.values()) == 2
    path = tmp_path / "model.onnx"
    with torch.no_grad():
        program = torch.onnx.export(fixed, (torch.zeros(2, 4, 3, 3),), dynamo=True, verbose=False)
    onnx.save(program.model_proto, str(path))  # type: ignore[union-attr]
    assert sum(each.holds for each in sparse_weights(path)) == 2
    prove(path, 2)
    with pytest.raises(StageError, match="3 layers keep the 2:4 pattern, but only 2"):
        prove(path, 3)
