"""Channels: ranks the removable units of a module without attention, removes some, and proves each removal.

It decides which channels go; how often, and what is trained between, is the stage's business.
"""

from collections.abc import Sequence
from math import gcd, lcm
from typing import Literal

import numpy as np
import torch
from torch.nn.utils.parametrize import is_parametrized

from ..errors import StageError
from ..samples import Array
from .on_cut import cut, switch_off, tensors_of
from .on_flow import Axis, Flow, Group, find_flow
from .on_layers import Tensors, kept_by
from .on_proof import hint, prove
from .widths import WidthReduction, choose

Importance = Literal["magnitude", "taylor", "bn"]
_SHOWN = 6


def removable(
    module: torch.nn.Module, tensors: Tensors, outputs: tuple[str, ...], keep: Sequence[str]
) -> tuple[Group, ...]:
    """Groups of units that may go; those that a kept layer makes stay.

    Raises:
        StageError: there are none; it names the layers and why they stay.
    """
    flow = find_flow(module, tensors, outputs)
    groups = tuple(
        group
        for group in flow.groups
        if group.count > 1 and not any(kept_by(axis.layer or axis.tensor, keep) for axis in group.sources)
    )
    if not groups:
        raise StageError(
            f"no channel of this module can be removed: {_reasons(flow, keep)}",
            next_step=_next_step(module),
        )
    return groups


def _next_step(module: torch.nn.Module) -> str:
    computed = [name for name, layer in module.named_modules() if is_parametrized(layer) or hasattr(layer, "weight_g")]
    if computed:
        return f"fold the computed weights in the factory (remove_parametrizations): {', '.join(computed[:_SHOWN])}"
    return "prune heads, ffn, layers or pattern, or distill into a smaller module instead"


def _reasons(flow: Flow, keep: Sequence[str]) -> str:
    kept_layers = [axis.layer for group in flow.groups for axis in group.sources if kept_by(axis.layer, keep)]
    found = dict(flow.stays) | dict.fromkeys(kept_layers, "it is named under keep")
    lines = [f"{layer} ({why})" for layer, why in found.items()]
    more = f" and {len(lines) - _SHOWN} more" if len(lines) > _SHOWN else ""
    return ("; ".join(lines[:_SHOWN]) or "no layer produces channels that another layer reads") + more


def multiple_of(group: Group, round_to: int) -> int:
    """Return of how many units a group must keep a multiple, so that every width is a multiple of `round_to`."""
    sizes = {group.places[axis].shape[1] for axis in group.sources}
    return lcm(*(round_to // gcd(round_to, size) for size in sizes))


def prune_channels(
    module: torch.nn.Module,
    groups: Sequence[Group],
    reduction: WidthReduction,
    *,
    importance: Importance,
    tensors: Tensors,
    outputs: tuple[str, ...],
) -> None:
    """Remove units in place as far as the reduction says, and prove the result.

    Every width stays a multiple of `reduction.multiple`. ``taylor`` reads gradients that must be there.

    Raises:
        StageError: the smaller module does not compute what the whole one does with these channels switched off.
    """
    ranked = [(group, score) for group in groups if (score := scores(module, group, importance)) is not None]
    if not ranked:
        raise StageError("importance bn on a module without batch norm", next_step='use importance = "magnitude"')
    multiples = [multiple_of(group, reduction.multiple) for group, _ in ranked]
    counts = [
        min(group.count, reduction.kept(group.name, multiple))
        for (group, _), multiple in zip(ranked, multiples, strict=True)
    ]
    chosen = choose([score for _, score in ranked], counts, multiples, reduction.scope)
    stays = [(group, units) for (group, _), units in zip(ranked, chosen, strict=True) if len(units) < group.count]
    if not stays:
        return
    _prove_all(module, stays, tensors, outputs)
    cut(module, _slices(module, stays))


def _prove_all(
    module: torch.nn.Module, stays: Sequence[tuple[Group, Array]], tensors: Tensors, outputs: tuple[str, ...]
) -> None:
    """Prove all removals at once (indices [kept] of what stays); where that fails, find out which are at fault."""
    try:
        _prove(module, stays, tensors, outputs)
    except StageError as error:
        guilty, first = [], error
        for each in stays if len(stays) > 1 else ():
            try:
                _prove(module, [each], tensors, outputs)
            except StageError as one:
                guilty.append(each[0].name)
                first = one if len(guilty) == 1 else first
        if not guilty:
            raise
        names = ", ".join(dict.fromkeys(guilty))
        raise StageError(first.what, where=names, next_step=hint(names)) from error


def _prove(
    module: torch.nn.Module, stays: Sequence[tuple[Group, Array]], tensors: Tensors, outputs: tuple[str, ...]
) -> None:
    """Prove that a module without the removed channels computes what it does with them at 0; indices [kept] stay."""
    slices = _slices(module, stays)
    sinks = {(axis.tensor, axis.axis) for group, _ in stays for axis in group.sinks}
    off = {
        name: chosen
        for name, axes in slices.items()
        if (chosen := {axis: stay for axis, stay in axes.items() if (name, axis) in sinks})
    }
    prove(
        module,
        lambda whole: switch_off(whole, off),
        lambda smaller: cut(smaller, slices),
        tensors,
        outputs,
        ", ".join(dict.fromkeys(group.name for group, _ in stays)),
    )


def _slices(module: torch.nn.Module, stays: Sequence[tuple[Group, Array]]) -> dict[str, dict[int, Array]]:
    """Return what stays of each tensor, by axis."""
    tensors = tensors_of(module)
    gone: dict[Axis, list[Array]] = {}
    for group, units in stays:
        leaves = np.setdiff1d(np.arange(group.count), units)
        for axis, places in group.places.items():
            gone.setdefault(axis, []).append(places[leaves].ravel())
    slices: dict[str, dict[int, Array]] = {}
    for axis, parts in gone.items():
        size = tensors[axis.tensor].shape[axis.axis]
        slices.setdefault(axis.tensor, {})[axis.axis] = np.setdiff1d(np.arange(size), np.concatenate(parts))
    return slices


def scores(module: torch.nn.Module, group: Group, importance: Importance) -> Array | None:
    """One score per unit, higher stays, [count]; None where the criterion says nothing of this group.

    ``magnitude`` is the mean over tensors of the unit's sum of squares, ``taylor`` of its ``sum |w dL/dw|``, ``bn`` of
    the absolute scale in batch normalization; each divided by its mean over the group.
    """
    parameters = dict(module.named_parameters())
    layers = dict(module.named_modules())
    found = []
    for axis, places in group.places.items():
        if (weight := parameters.get(axis.tensor)) is None or not weight.is_floating_point():
            continue
        if importance == "bn":
            normalizing = isinstance(layers[axis.layer], torch.nn.modules.batchnorm._BatchNorm)
            if not normalizing or not axis.tensor.endswith("weight"):
                continue
            value = weight.detach().abs()
        elif importance == "taylor":
            if weight.grad is None:
                continue
            value = (weight.detach() * weight.grad).abs()
        elif weight.ndim == 1 and not isinstance(layers[axis.layer], torch.nn.modules.batchnorm._BatchNorm):
            continue  # biases and scales are less informative than their weights
        else:
            value = weight.detach().square()
        line = value.movedim(axis.axis, 0).flatten(1).sum(1) if value.ndim > 1 else value
        found.append(line.double().numpy()[places].sum(axis=1))
    if not found:
        return np.ones(group.count) if importance == "taylor" else None
    score: Array = np.mean(found, axis=0)
    return score / max(float(score.mean()), 1e-30)
