"""Planted faults: channels that pruning maps wrongly, because the cut is wrong or because the network permutes them."""

import copy
from typing import Any
from unittest.mock import patch

import numpy as np
import torch

from scripts.benchmarks.faults import Fault
from scripts.benchmarks.random_nets import attentive, is_right, ordinary, permuting
from seatrial.optimize.errors import StageError
from seatrial.optimize.pruning import on_attention, on_channels
from seatrial.optimize.pruning.on_attention import find_units, prune_units
from seatrial.optimize.pruning.on_channels import prune_channels, removable
from seatrial.optimize.pruning.on_cut import cut
from seatrial.optimize.pruning.widths import WidthReduction


def _input(random: np.random.Generator, *shape: int) -> torch.Tensor:
    return torch.from_numpy(random.normal(size=shape))


def _prune_channels(net: torch.nn.Module, x: torch.Tensor, share: float) -> None:
    groups = removable(net, {"input": x}, ("y",), ())
    prune_channels(
        net,
        groups,
        WidthReduction(share=share, original={group.name: group.count for group in groups}, multiple=2, scope="layer"),
        importance="magnitude",
        tensors={"input": x},
        outputs=("y",),
    )


def _prune_units(net: torch.nn.Module, x: torch.Tensor, share: float) -> None:
    heads, columns = find_units(net, {"input": x}, ())
    for units in (heads, columns):
        prune_units(
            net,
            units,
            WidthReduction(share=share, original={unit.name: unit.count for unit in units}, multiple=1, scope="layer"),
            importance="magnitude",
            tensors={"input": x},
            outputs=("y",),
        )


def _wrong(random: np.random.Generator, module: torch.nn.Module, slices: Any) -> None:
    """Cut other positions than were chosen, of the same number, along one axis of one weight matrix."""
    shapes = {name: tensor.shape for name, tensor in module.named_parameters()}
    axes = [
        (name, axis)
        for name, places in slices.items()
        for axis, left in places.items()
        if len(shapes.get(name, ())) > 1 and 0 < len(left) < shapes[name][axis]
    ]
    name, axis = axes[np.random.default_rng(len(axes)).integers(len(axes))]
    left, size = slices[name][axis], shapes[name][axis]
    changed = {key: dict(places) for key, places in slices.items()}
    if random.integers(2):
        changed[name][axis] = np.sort((left + 1 + random.integers(size - 1)) % size)
        if np.array_equal(changed[name][axis], left):
            changed[name][axis] = np.roll(left, 1)
    else:
        order = random.permutation(left)
        changed[name][axis] = np.roll(left, 1) if np.array_equal(order, left) else order
    cut(module, changed)


def _planted(random: np.random.Generator) -> bool:
    share = float(random.choice([0.25, 0.5]))
    kind = random.choice(["wrong cut", "wrong cut of heads", "permuting"], p=[0.4, 0.2, 0.4])
    if kind == "permuting":
        return _is_right_or_refused(permuting(random), _input(random, 2, 3, 6, 6), share)
    seed = int(random.integers(2**31))

    def wrong(module: torch.nn.Module, slices: Any) -> None:
        _wrong(np.random.default_rng(seed), module, slices)

    room, net, run = (
        (on_channels, ordinary(random), _prune_channels)
        if kind == "wrong cut"
        else (on_attention, attentive(random), _prune_units)
    )
    x = _input(random, 2, 3, 6, 6) if kind == "wrong cut" else _input(random, 2, 6, 8)
    with patch.object(room, "cut", wrong):
        try:
            run(net, x, share)
        except StageError:
            return True
    return False


def _is_right_or_refused(net: torch.nn.Module, x: torch.Tensor, share: float) -> bool:
    smaller = copy.deepcopy(net)
    try:
        _prune_channels(smaller, x, share)
    except StageError:
        return True
    return is_right(net, smaller, x)


def _sound(random: np.random.Generator) -> bool:
    """Return whether an ordinary network is refused, or comes out wrong or no smaller."""
    attention = random.integers(4) == 0
    net = attentive(random) if attention else ordinary(random)
    x = _input(random, 2, 6, 8) if attention else _input(random, 2, 3, 6, 6)
    smaller = copy.deepcopy(net)
    try:
        (_prune_units if attention else _prune_channels)(smaller, x, 0.5)
    except StageError:
        return True
    count, left = (sum(each.numel() for each in module.parameters()) for module in (net, smaller))
    return left >= count or not (attention or is_right(net, smaller, x))


FAULTS = (
    Fault(
        name="prune-mapping",
        claim="a pruned network computes what the whole one does with those channels off, or is refused",
        planted=_planted,
        sound=_sound,
    ),
)
