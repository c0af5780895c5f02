"""Modules that write into their inputs leave samples alone; modules that remember are refused with what they change."""

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch

from seatrial.optimize.artifact import TensorSpec
from seatrial.optimize.errors import SourceError
from seatrial.optimize.intake.on_state import _equal, refuse_state
from seatrial.optimize.sessions.on_torch import TorchSession

X = np.random.default_rng(0).normal(size=(4, 8)).astype(np.float32)
IO = (TensorSpec(name="x", dtype="float32", shape=("n", 8)),), (TensorSpec(name="y", dtype="float32", shape=("n", 8)),)


class Module(torch.nn.Module):
    """A buffer, a number, a hidden state, and what a test does with them."""

    def __init__(self, act: Callable[[Any, torch.Tensor], Any]) -> None:
        super().__init__()
        self.act = act
        self.register_buffer("calls", torch.zeros(()))
        self.number = 0
        self.hidden: torch.Tensor | None = None

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return torch.as_tensor(self.act(self, x))


def shift(self: Any, x: torch.Tensor) -> Any:
    x -= 0.5
    x[:, 0] = 1.0
    return x


def counted(self: Any, x: torch.Tensor) -> Any:
    self.calls.add_(1.0)
    return x + self.calls


def quietly(self: Any, x: torch.Tensor) -> Any:
    self.calls.add_(1.0)
    return x * 2


def numbered(self: Any, x: torch.Tensor) -> Any:
    self.number += 1
    return x * self.number


def carried(self: Any, x: torch.Tensor) -> Any:
    self.hidden = x if self.hidden is None else x + 0.5 * self.hidden
    return self.hidden


def random(self: Any, x: torch.Tensor) -> Any:
    return x + torch.rand_like(x)


def cached(self: Any, x: torch.Tensor) -> Any:
    if self.hidden is None:
        self.hidden = torch.arange(8.0)
    return x + self.hidden


def session(act: Callable[[Any, torch.Tensor], Any]) -> tuple[Module, TorchSession]:
    module = Module(act)
    return module, TorchSession(module, *IO)


def test_a_forward_that_writes_its_input_leaves_the_samples_alone_and_answers_alike() -> None:
    module, opened = session(shift)
    given = X.copy()
    first, second = opened.run({"x": given})["y"], opened.run({"x": given})["y"]
    np.testing.assert_array_equal(given, X)
    np.testing.assert_array_equal(first, second)
    refuse_state(module, opened, {"x": given}, "net.py:shift")


def test_an_output_is_no_memory_of_the_module() -> None:
    _, other = session(lambda self, x: self.calls.add_(1.0).expand(4, 8))
    first = other.run({"x": X})["y"]
    kept = first.copy()
    other.run({"x": X})
    np.testing.assert_array_equal(first, kept)


@pytest.mark.parametrize(
    ("act", "cause"),
    [
        (counted, "buffer calls"),
        (quietly, "buffer calls"),
        (numbered, "attribute number"),
        (carried, "attribute hidden"),
        (random, "random numbers"),
    ],
)
def test_a_module_that_remembers_is_refused_with_what_it_changes(act: Any, cause: str) -> None:
    module, opened = session(act)
    with pytest.raises(SourceError, match=cause):
        refuse_state(module, opened, {"x": X}, "net.py:count")


def test_a_cache_that_is_filled_once_is_no_state() -> None:
    module, opened = session(cached)
    refuse_state(module, opened, {"x": X}, "net.py:cached")


@pytest.mark.parametrize(
    ("before", "after"), [(float("nan"), 0.0), (float("inf"), 3.4028234663852886e38), (0.0, float("nan"))]
)
def test_what_is_not_finite_is_no_other_value(before: float, after: float) -> None:
    one, other = torch.tensor([1.0, before]), torch.tensor([1.0, after])
    assert _equal(one, one.clone())
    assert not _equal(one, other)
