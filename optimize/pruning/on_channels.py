"""Channels: whole channels by dependency groups (torch-pruning), for modules without attention.

It decides which channels go; how often, and what is trained between, is the stage's business.
"""

from collections.abc import Callable, Sequence
from typing import Any, Literal

import torch
import torch_pruning

from ..errors import StageError
from ..sessions.on_torch import by_keyword, call
from .on_layers import Tensors, kept_by, output_layers
from .widths import Scope

Importance = Literal["magnitude", "taylor", "bn"]


def channel_pruner(
    module: torch.nn.Module,
    tensors: Tensors,
    outputs: tuple[str, ...],
    *,
    ratio: float,
    steps: int,
    round_to: int,
    importance: Importance,
    scope: Scope,
    keep: Sequence[str],
) -> Callable[[], None]:
    """A function that removes the next step's channels in place each time it is called.

    ``taylor`` reads gradients that must be there at each call.

    Raises:
        StageError: ``bn`` on a module without batch norm.
    """
    if importance == "bn" and not any(
        isinstance(layer, torch.nn.modules.batchnorm._BatchNorm) and layer.affine for layer in module.modules()
    ):
        raise StageError("importance bn on a module without batch norm", next_step='use importance = "magnitude"')
    for parameter in module.parameters():
        parameter.requires_grad_(True)
    kept = [layer for name, layer in module.named_modules() if name and kept_by(name, keep)]
    pruner = torch_pruning.pruner.BasePruner(
        module,
        dict(tensors) if by_keyword(module, tensors) else tuple(tensors.values()),
        importance=_importance(importance),
        global_pruning=scope == "global",
        pruning_ratio=ratio,
        iterative_steps=steps,
        round_to=round_to,
        ignored_layers=[*kept, *output_layers(module, tensors, outputs)],
        forward_fn=lambda model, data: call(model, data) if isinstance(data, dict) else model(*data),
        in_channel_groups={},  # the library's own defaults are shared between all pruners of a process
        out_channel_groups={},
        num_heads={},
    )
    return lambda: pruner.step()


def channel_widths(module: torch.nn.Module) -> list[int]:
    """The widths that pruning to a ratio changes, every one once."""
    kinds = (torch.nn.modules.conv._ConvNd, torch.nn.Linear)
    return sorted({layer.weight.shape[0] for layer in module.modules() if isinstance(layer, kinds)})


def _importance(name: Importance) -> Any:
    if name == "taylor":
        return torch_pruning.importance.GroupTaylorImportance()
    if name == "bn":
        return torch_pruning.importance.BNScaleImportance()
    return torch_pruning.importance.GroupMagnitudeImportance(p=2)
