"""Modules of any signature: inputs by keyword, position or mapping, and results of any nesting by name."""

from collections import namedtuple
from dataclasses import dataclass
from typing import Any

import numpy as np
import pytest
import torch

from seatrial.optimize.artifact import TensorSpec
from seatrial.optimize.errors import SourceError, StageError
from seatrial.optimize.intake.on_rows import refuse_dependence
from seatrial.optimize.sessions.on_calls import leaves, named
from seatrial.optimize.sessions.on_torch import TorchSession, call

ONE, TWO = torch.ones(2, 3), torch.zeros(2, 3)
Pair = namedtuple("Pair", ["scores", "boxes"])


@dataclass
class Record:
    """An object with tensors."""

    scores: torch.Tensor
    loss: None = None


def module(forward: Any) -> torch.nn.Module:
    """A module of that forward, which takes the module first."""
    made: torch.nn.Module = type("Made", (torch.nn.Module,), {"forward": forward})()
    return made


def session(forward: Any, *outputs: str, rank: int = 2) -> TorchSession:
    """A session of one input `x` and those outputs."""
    inputs = (TensorSpec(name="x", dtype="float32", shape=("batch",) * rank),)
    return TorchSession(module(forward), inputs, tuple(TensorSpec(name=n, dtype="", shape=()) for n in outputs))


@pytest.mark.parametrize(
    "forward",
    [
        lambda self, y, x: x - y,
        lambda self, x, y, **rest: x - y,
        lambda self, **rest: rest["x"] - rest["y"],
        lambda self, batch: batch["x"] - batch["y"],
    ],
)
def test_inputs_reach_a_forward_of_any_signature(forward: Any) -> None:
    assert torch.equal(call(module(forward), {"x": ONE, "y": TWO}), ONE)


def test_one_input_goes_by_position_or_as_a_mapping_whatever_the_parameter_is_called() -> None:
    assert torch.equal(call(module(lambda self, image: image + 1), {"x": TWO}), ONE)
    mapping = module(lambda self, batch: batch["x"] + 1)
    assert torch.equal(call(mapping, {"x": TWO}), ONE)
    assert torch.equal(call(mapping, {"x": TWO}), ONE)


def test_the_first_error_of_a_forward_is_told() -> None:
    with pytest.raises(ZeroDivisionError):
        call(module(lambda self, image: image / (1 // 0)), {"x": TWO})


def test_a_forward_that_writes_into_its_input_changes_no_sample() -> None:
    array = np.ones((2, 3), np.float32)
    got = session(lambda self, x: x.mul_(2), "y").run({"x": array})
    assert (array == 1).all()
    assert (got["y"] == 2).all()


@pytest.mark.parametrize(
    ("result", "names", "wanted"),
    [
        (ONE, ("y",), [ONE]),
        ((ONE, (TWO, ONE)), ("y", "h", "c"), [ONE, TWO, ONE]),
        ((ONE, None), ("y",), [ONE]),
        ({"a": {"b": ONE, "c": [TWO]}}, ("a_c_0", "a_b"), [TWO, ONE]),
        (Pair(ONE, TWO), ("boxes",), [TWO]),
        (Record(ONE), ("scores",), [ONE]),
        ((ONE, TWO), ("output_1",), [TWO]),
    ],
)
def test_results_are_named(result: Any, names: tuple[str, ...], wanted: list[torch.Tensor]) -> None:
    assert [id(tensor) for tensor in named(result, names).values()] == [id(tensor) for tensor in wanted]
    assert all(isinstance(tensor, torch.Tensor) for tensor in leaves(result).values())


@pytest.mark.parametrize("result", [3, "text", (ONE,), {"z": ONE}, Record(ONE)])
def test_a_result_without_the_named_outputs_is_described(result: Any) -> None:
    with pytest.raises(ValueError, match="it returns"):
        named(result, ("y", "z"))


@pytest.mark.parametrize(
    ("forward", "why"),
    [
        (lambda self, x: torch.fft.rfft(x), "complex"),
        (lambda self, x: x.bfloat16(), "bfloat16"),
        (lambda self, x: x.to_sparse(), "not a plain dense tensor"),
        (lambda self, x: 3, "returns a int without tensors"),
    ],
)
def test_outputs_that_no_server_can_give_are_refused(forward: Any, why: str) -> None:
    with pytest.raises(StageError, match=why):
        session(forward, "y").run({"x": np.ones((2, 4), np.float32)})


@pytest.mark.parametrize(
    ("forward", "why"),
    [
        (lambda self, x: x / len(x), "depends on the samples beside it"),
        (lambda self, x: x - x.mean(0), "depends on the samples beside it"),
        (lambda self, x: x * 2 if float(x.sum()) > 0 else x, "depends on the samples beside it"),
        (lambda self, x: x + torch.rand(x.shape), "differs between two runs"),
        (lambda self, x: x.view(4, 2), "but not a single one"),
    ],
)
def test_a_sample_s_output_is_its_own(forward: Any, why: str) -> None:
    rows = np.array([[3, 1], [-2, -1], [0, -3], [5, 4]], np.float32)
    with pytest.raises(SourceError, match=why):
        refuse_dependence(session(forward, "y"), {"x": rows}, "here")
    refuse_dependence(session(lambda self, x: x.softmax(-1), "y"), {"x": rows}, "here")
