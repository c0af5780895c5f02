"""Attacks: within epsilon and the bounds, up the loss, more steps at least as strong; refused without a source."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from seatrial.bench.quality import adversarial
from seatrial.bench.quality.adversarial import AdversarialCheck
from seatrial.bench.quality.on_torch import attacked
from seatrial.optimize.errors import ConfigError, SourceError
from seatrial.optimize.recipe.metrics import accuracy
from seatrial.optimize.samples import Samples
from seatrial.optimize.store import Store

Array = np.ndarray[Any, np.dtype[Any]]
CHECK = AdversarialCheck(attack="pgd", epsilon=0.2, max_drop=0.1)


class Net(torch.nn.Module):
    """Two layers over `x` [n, 6]; `mask` is passed through untouched."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.layers = torch.nn.Sequential(torch.nn.Linear(6, 16), torch.nn.Tanh(), torch.nn.Linear(16, 3))

    def forward(self, x: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
        result: torch.Tensor = self.layers(x) * mask[:, None]
        return result


NET = Net().requires_grad_(False)
X = np.random.default_rng(0).normal(size=(200, 6)).astype(np.float32)
MASK = np.ones(200, np.int64)
LABELS = NET(torch.from_numpy(X), torch.from_numpy(MASK)).argmax(dim=1).numpy()
BOUNDS = {"x": (float(X.min()), float(X.max()))}


def moved(epsilon: float, steps: int) -> Array:
    made = attacked(NET, {"x": X, "mask": MASK}, LABELS, ("logits",), epsilon=epsilon, steps=steps, bounds=BOUNDS)
    assert np.array_equal(made["mask"], MASK)
    return made["x"]


def loss(x: Array) -> float:
    logits = NET(torch.from_numpy(x), torch.from_numpy(MASK))
    return float(torch.nn.functional.cross_entropy(logits, torch.from_numpy(LABELS)))


@given(st.floats(1e-3, 1.0), st.integers(1, 8))
@settings(max_examples=10, deadline=None)
def test_an_attack_keeps_its_epsilon_and_the_data_s_bounds_and_raises_the_loss(epsilon: float, steps: int) -> None:
    x = moved(epsilon, steps)
    assert x.dtype == X.dtype
    assert np.abs(x - X).max() <= epsilon * (1 + 1e-5) + 1e-6
    assert BOUNDS["x"][0] <= x.min()
    assert x.max() <= BOUNDS["x"][1]
    assert loss(x) > loss(X)
    assert np.array_equal(x, moved(epsilon, steps))


def test_more_steps_are_stronger_and_every_step_costs_accuracy() -> None:
    losses = [loss(X), loss(moved(0.3, 1)), loss(moved(0.3, 20))]
    assert losses == sorted(losses)

    def right(x: Array) -> float:
        logits = NET(torch.from_numpy(x), torch.from_numpy(MASK)).numpy()
        return float(accuracy(logits, LABELS).mean())

    assert right(X) == 1
    assert right(moved(0.3, 20)) <= right(moved(0.3, 1)) < 0.9


def test_regressions_are_attacked_through_their_squared_error() -> None:
    target = NET(torch.from_numpy(X), torch.from_numpy(MASK)).numpy()[:, :3] + 0.1
    x = attacked(NET, {"x": X, "mask": MASK}, target, ("y",), epsilon=0.1, steps=3, bounds=BOUNDS)["x"]

    def error(values: Array) -> float:
        return float(np.mean((NET(torch.from_numpy(values), torch.from_numpy(MASK)).numpy() - target) ** 2))

    assert error(x) > 1.5 * error(X)


def test_a_source_without_gradients_and_no_source_at_all_are_told(tmp_path: Path) -> None:
    class Cut(Net):
        def forward(self, x: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
            return super().forward(x, mask).detach()

    with pytest.raises(SourceError, match="no gradient"):
        attacked(Cut(), {"x": X, "mask": MASK}, LABELS, ("y",), epsilon=0.1, steps=1, bounds=BOUNDS)
    samples = Samples(split="evaluation", inputs={"x": X}, labels=LABELS)
    store = Store(tmp_path / "store")
    with pytest.raises(ConfigError, match="source's gradients"):
        adversarial.prepared((CHECK,), samples, lambda outputs, labels: labels, None, store)
    assert not adversarial.prepared((), samples, lambda outputs, labels: labels, None, store).crafted
