"""The 2:4 pattern on a module's weights: chosen by magnitude, held while training, verified afterwards."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from typing import Any

import torch
from torch.nn.utils import prune

from ..errors import StageError
from . import pattern
from .on_cut import ties
from .on_layers import kept_by

_DENSITY = 0.4  # least share of weights that are not zero where a layer was pruned to the pattern, which leaves half


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


def sparse(module: torch.nn.Module) -> dict[str, Any]:
    """Layers, by name, that were pruned to the pattern: it holds and about half of the weights are not zero.

    A layer of zeros or an identity keeps the pattern too, without having been pruned to it.
    """
    return {
        name: layer
        for name, layer in eligible(module, ()).items()
        if pattern.holds(layer.weight.detach().cpu().numpy())
        and layer.weight.count_nonzero() >= _DENSITY * layer.weight.numel()
    }


@contextmanager
def held(module: torch.nn.Module, names: Sequence[str]) -> Iterator[None]:
    """Keep today's zeros in the weights of the named layers whatever trains inside, and prove them afterwards.

    A weight that is zero and has no gradient stays zero: moments and decay of it are zero too.

    Raises:
        StageError: training changed a zero after all.
    """
    layers = dict(module.named_modules())
    weights: dict[str, Any] = {name: layers[name].weight for name in names}
    masks = {name: weight.detach() != 0 for name, weight in weights.items()}
    hooks = [weight.register_hook(partial(_masked_gradient, masks[name])) for name, weight in weights.items()]
    try:
        yield
    finally:
        for hook in hooks:
            hook.remove()
    layers = dict(module.named_modules())
    if lost := [name for name in names if bool(layers[name].weight.detach().cpu()[~masks[name].cpu()].any())]:
        raise StageError(
            f"training broke the 2:4 pattern in {', '.join(lost[:4])}",
            next_step="set training.epochs to 0, or prune after this stage",
        )


def _masked_gradient(mask: torch.Tensor, gradient: torch.Tensor) -> torch.Tensor:
    return gradient * mask.to(gradient.device)
