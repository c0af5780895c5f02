"""The 2:4 pattern on a module's weights: chosen by magnitude, held while training, verified afterwards."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch.nn.utils import prune

from . import pattern
from .on_cut import ties
from .on_layers import kept_by


def eligible(module: torch.nn.Module, keep: Sequence[str]) -> dict[str, Any]:
    """Linear and convolution layers, by name, whose inputs come in whole groups of four.

    Weights that are computed, or shared with a layer that has no pattern, are left out.
    """
    kinds = (torch.nn.Linear, torch.nn.Conv1d, torch.nn.Conv2d, torch.nn.Conv3d)
    layers = dict(module.named_modules())
    found = {
        name: layer
        for name, layer in layers.items()
        if isinstance(layer, kinds)
        and "weight" in layer._parameters  # not computed by a parametrization
        and pattern.fits(tuple(layer.weight.shape), 1)
        and not kept_by(name, keep)
    }
    shared = {name for names in ties(module) for name in names if any(_layer(other) not in found for other in names)}
    return {name: layer for name, layer in found.items() if f"{name}.weight" not in shared}


def _layer(parameter: str) -> str:
    return parameter.rpartition(".")[0]


@contextmanager
def masked(layers: dict[str, Any]) -> Iterator[None]:
    """Put the pattern on every layer, hold it whatever trains inside, and leave plain weights that keep it."""
    for layer in layers.values():
        chosen = pattern.mask(layer.weight.detach().numpy())
        prune.custom_from_mask(layer, "weight", torch.from_numpy(chosen))  # type: ignore[no-untyped-call]
    try:
        yield
    finally:
        for layer in layers.values():
            prune.remove(layer, "weight")  # type: ignore[no-untyped-call]


def broken(layers: dict[str, Any]) -> list[str]:
    """Names of the layers whose weights do not keep the pattern."""
    return [name for name, layer in layers.items() if not pattern.holds(layer.weight.detach().numpy())]
