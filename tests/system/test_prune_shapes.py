"""Channel pruning on networks that move channels about: the right mapping, read from the weights, or a refusal."""

import copy
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from seatrial.optimize.errors import ConfigError, StageError
from seatrial.optimize.pruning import on_channels
from seatrial.optimize.pruning.on_channels import prune_channels, removable
from seatrial.optimize.pruning.on_cut import cut, switch_off, ties
from seatrial.optimize.pruning.on_layers import check_globs
from seatrial.optimize.pruning.on_proof import prove
from seatrial.optimize.pruning.widths import WidthReduction
from seatrial.optimize.sessions.on_torch import open_module
from tests.support import shapes
from tests.system.test_prune import built, prune

pytestmark = pytest.mark.system

X = {"x": torch.from_numpy(shapes.samples("train", 4)[0]["x"]).double()}


def halved(kind: str, share: float = 0.5, keep: tuple[str, ...] = ()) -> tuple[Any, Any]:
    """The network in double precision with random weights, whole and pruned."""
    whole = shapes.make(kind).double()
    for parameter in whole.parameters():
        torch.nn.init.normal_(parameter, std=0.3)
    smaller = copy.deepcopy(whole)
    groups = removable(smaller, X, ("y",), keep)
    prune_channels(
        smaller,
        groups,
        WidthReduction(share=share, original={group.name: group.count for group in groups}, multiple=4, scope="layer"),
        importance="magnitude",
        tensors=X,
        outputs=("y",),
    )
    return whole, smaller


def columns(whole: torch.Tensor, smaller: torch.Tensor) -> list[int]:
    """Which inputs of a weight [out, in, ...] are left, found by their values."""
    known = {float(value): index for index, row in enumerate(whole.transpose(0, 1)) for value in row.flatten()}
    return [known[float(column.flatten()[0])] for column in smaller.transpose(0, 1)]


@pytest.mark.parametrize("kind", sorted(shapes.NETS))
def test_the_smaller_network_is_the_whole_one_with_those_channels_off(kind: str) -> None:
    whole, smaller = halved(kind)
    assert smaller.b.weight.shape[1] < whole.b.weight.shape[1] or smaller.b.weight.shape[0] < whole.b.weight.shape[0]
    gone = np.setdiff1d(np.arange(whole.b.in_channels), columns(whole.b.weight.detach(), smaller.b.weight.detach()))
    gone_last = np.setdiff1d(
        np.arange(whole.fc.in_features), columns(whole.fc.weight.detach(), smaller.fc.weight.detach())
    )
    with torch.no_grad():
        whole.b.weight[:, gone] = 0  # nothing between a and b mixes channels: b is where they count
        whole.fc.weight[:, gone_last] = 0
        for name in ("grouped", "one"):
            if (layer := getattr(whole.between, name, None)) is not None:
                left = columns(layer.weight.detach(), getattr(smaller.between, name).weight.detach())
                layer.weight[:, np.setdiff1d(np.arange(layer.weight.shape[1]), left)] = 0
        if isinstance(whole.between, torch.nn.ConvTranspose2d):
            rows = columns(whole.between.weight.transpose(0, 1), smaller.between.weight.transpose(0, 1))
            whole.between.weight[np.setdiff1d(np.arange(32), rows)] = 0
    torch.testing.assert_close(smaller(X["x"]), whole(X["x"]), rtol=1e-9, atol=1e-12)


REFUSED = {"numbers": ("a",)}  # the graph does not show that a number is fixed: the proof does


@pytest.mark.parametrize("kind", sorted(shapes.FIXED))
def test_channels_that_a_cut_cannot_follow_stay_or_are_refused_by_name(kind: str) -> None:
    keep = REFUSED.get(kind, ())
    if keep:
        with pytest.raises(StageError, match=r"removed|differ from the whole module's") as caught:
            halved(kind)
        assert caught.value.where == ", ".join(keep)
        assert f'keep = ["{keep[0]}"' in caught.value.next_step
    whole, smaller = halved(kind, keep=keep)
    assert smaller.a.weight.shape == whole.a.weight.shape
    assert smaller.b.weight.shape[1] == whole.b.weight.shape[1]
    assert smaller.fc.weight.shape[1] < whole.fc.weight.shape[1]


def test_a_cut_of_the_wrong_channels_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    def shifted(module: torch.nn.Module, slices: Any) -> None:
        wrong = {name: dict(axes) for name, axes in slices.items()}
        if 1 in wrong.get("b.weight", {}):
            wrong["b.weight"][1] = np.sort((wrong["b.weight"][1] + 1) % 32)
        cut(module, wrong)

    monkeypatch.setattr(on_channels, "cut", shifted)
    with pytest.raises(StageError, match="the smaller module's outputs differ from the whole module's"):
        halved("flip")


def test_the_proof_sees_what_the_own_weights_hide() -> None:
    whole: Any = shapes.make("flip")
    torch.nn.init.zeros_(whole.a.weight)
    torch.nn.init.zeros_(whole.a.bias)
    keep, wrong = np.arange(16), np.arange(8, 24)
    with pytest.raises(StageError, match="differs by"):
        prove(
            whole,
            lambda module: switch_off(module, {"b.weight": {1: wrong}}),
            lambda module: cut(module, {"a.weight": {0: keep}, "a.bias": {0: keep}, "b.weight": {1: wrong}}),
            {"x": X["x"].float()},
            ("y",),
            "a",
        )


@pytest.mark.parametrize("kind", ["tied", "scaled", "group norm"])
def test_what_was_pruned_opens_again_with_ties_and_bare_tensors(kind: str, tmp_path: Path) -> None:
    stage = prune("ratio = 0.5", "training = { epochs = 1, batch_size = 32 }")
    made, store = built(tmp_path, "shapes.py:make", f'{{ kind = "{kind}" }}', stage, 'kind = "export"')
    module: Any = open_module(made.steps[0].artifact, store)
    assert module.a.out_channels == 16
    assert ties(module) == ties(shapes.make(kind))


def test_a_glob_that_fits_nothing_is_refused_with_near_names() -> None:
    with pytest.raises(ConfigError, match=r"no module fits 'between\.norn'") as caught:
        check_globs(shapes.make("grouped"), ("a", "between.norn"), "prune.keep")
    assert "between.norm" in caught.value.next_step
