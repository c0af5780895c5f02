"""Planted faults of modules: those that remember, beside those that only write into what they are given."""

from collections.abc import Callable
from typing import Any

import numpy as np
import torch

from scripts.benchmarks.faults import Fault
from seatrial.optimize.artifact import TensorSpec
from seatrial.optimize.errors import SourceError
from seatrial.optimize.intake.on_state import refuse_state
from seatrial.optimize.parity.parity import answers
from seatrial.optimize.samples import Samples
from seatrial.optimize.sessions.on_torch import TorchSession

Act = Callable[[Any, torch.Tensor], Any]
_WIDTH = 6


class _Module(torch.nn.Module):
    """A linear layer behind something that a case does to the input, with places to remember in."""

    def __init__(self, act: Act, inner: bool) -> None:
        super().__init__()
        self.layer = torch.nn.Linear(_WIDTH, _WIDTH)
        self.inner = _Module(act, False) if inner else None
        self.act = act
        self.register_buffer("seen", torch.zeros(_WIDTH))
        self.register_buffer("unsaved", torch.zeros(1), persistent=False)
        self.number = 0
        self.hidden: torch.Tensor | None = None
        self.states = [torch.zeros(_WIDTH)]

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        if self.inner is not None:
            return torch.as_tensor(self.inner(x))
        return torch.as_tensor(self.layer(self.act(self, x)))


def _remembering(random: np.random.Generator) -> Act:
    """A module whose outputs or tensors change with every call."""
    size = float(random.uniform(0.05, 2))

    def mean(self: Any, x: torch.Tensor) -> Any:
        self.seen.mul_(0.9).add_(x.mean(dim=0), alpha=0.1 * size)
        return x - self.seen

    def unsaved(self: Any, x: torch.Tensor) -> Any:
        self.unsaved += size
        return x * self.unsaved

    def number(self: Any, x: torch.Tensor) -> Any:
        self.number += 1
        return x + size * self.number

    def hidden(self: Any, x: torch.Tensor) -> Any:
        last = 0 if self.hidden is None else self.hidden
        self.hidden = torch.tanh(x.mean(dim=0) + size * last)
        return x + self.hidden

    def states(self: Any, x: torch.Tensor) -> Any:
        self.states[0] = self.states[0] + size
        return x + self.states[0]

    def weights(self: Any, x: torch.Tensor) -> Any:
        self.layer.weight.data.add_(0.01 * size)
        return x

    def drawn(self: Any, x: torch.Tensor) -> Any:
        return torch.nn.functional.dropout(x, 0.3) if size < 1 else x + torch.randn_like(x)

    def logged(self: Any, x: torch.Tensor) -> Any:
        self.seen += 1
        return x

    acts = (mean, unsaved, number, hidden, states, weights, drawn, logged)
    return acts[int(random.integers(len(acts)))]


def _writing(random: np.random.Generator) -> Act:
    """A module that writes into its input, or caches once, and is a function all the same."""
    place, size = int(random.integers(_WIDTH)), float(random.uniform(-2, 2))

    def shift(self: Any, x: torch.Tensor) -> Any:
        x -= size
        return x

    def column(self: Any, x: torch.Tensor) -> Any:
        x[:, place] = size
        return x

    def relu(self: Any, x: torch.Tensor) -> Any:
        return torch.relu_(x)

    def order(self: Any, x: torch.Tensor) -> Any:
        return x.copy_(x.flip(1))

    def cached(self: Any, x: torch.Tensor) -> Any:
        if self.hidden is None:
            self.hidden = torch.arange(float(_WIDTH))
        return x.add_(self.hidden)

    def scratch(self: Any, x: torch.Tensor) -> Any:
        self.hidden = x.clamp_(-1, 1)
        return x

    acts = (shift, column, relu, order, cached, scratch)
    return acts[int(random.integers(len(acts)))]


def _accused(random: np.random.Generator, act: Act) -> bool:
    """Return whether the module is refused, or changed the samples or its answers where it is not."""
    torch.manual_seed(int(random.integers(2**31)))
    rows = int(random.integers(2, 9))
    module = _Module(act, bool(random.random() < 0.3))
    inputs = (TensorSpec(name="x", dtype="float32", shape=("n", _WIDTH)),)
    session = TorchSession(module, inputs, (TensorSpec(name="y", dtype="float32", shape=("n", _WIDTH)),))
    array = random.normal(size=(rows, _WIDTH)).astype(np.float32)
    samples = Samples(split="calibration", inputs={"x": array.copy()}, labels=None)
    try:
        refuse_state(module, session, samples.inputs, "case")
    except SourceError:
        return True
    first, second = (answers(session, samples, 2)["y"] for _ in range(2))
    return not (np.array_equal(first, second) and np.array_equal(samples.inputs["x"], array))


FAULTS = (
    Fault(
        name="A7-modules",
        claim="modules that remember, beside modules that write into their inputs or cache",
        planted=lambda random: _accused(random, _remembering(random)),
        sound=lambda random: _accused(random, _writing(random)),
    ),
)
