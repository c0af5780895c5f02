"""Stateful PyTorch modules: refuses a module whose outputs depend on earlier calls.

Its export would freeze one state, and every later comparison would depend on the order of the runs.
"""

from collections.abc import Mapping
from typing import Any

import numpy as np
import torch

from ..errors import SourceError
from ..samples import Array
from ..sessions.on_torch import TorchSession

_SAME = 1e-5  # allowed difference between two runs of one module, relative to the greatest value


def refuse_state(module: torch.nn.Module, session: TorchSession, inputs: Mapping[str, Array], where: str) -> None:
    """Run the same samples [n, ...] three times, and refuse a module whose outputs or tensors change.

    The first run is free, since caches are filled in it.

    Raises:
        SourceError: naming what changed.
    """
    before = session.run(inputs)
    state, random = _state(module), torch.get_rng_state()
    middle = session.run(inputs)
    after = session.run(inputs)
    drawn = not torch.equal(random, torch.get_rng_state())
    changed = [name for name, value in _state(module).items() if not _equal(value, state.get(name))]
    tensors = [name for name in changed if isinstance(_state(module)[name], torch.Tensor)]
    differs = [name for name in after if _apart(before[name], middle[name]) or _apart(middle[name], after[name])]
    if not differs and not tensors:
        return
    causes = [f"it changes {', '.join(changed[:5])}"] if changed else []
    causes += ["it draws random numbers"] if drawn else []
    what = f"output {differs[0]!r} differs between runs of the same samples" if differs else "it changes in every run"
    raise SourceError(
        f"outputs depend on more than the inputs: {what}; {' and '.join(causes) or 'no tensor of it changed'}",
        where=where,
        next_step="make the state an input and an output of forward, or remove it",
    )


def _state(module: torch.nn.Module) -> dict[str, Any]:
    """Copies of buffers and tensor attributes, versions of parameters, and numbers that are attributes, by name."""
    found: dict[str, Any] = {f"parameter {name}": value._version for name, value in module.named_parameters()}
    found |= {f"buffer {name}": value.detach().clone() for name, value in module.named_buffers()}
    for place, part in module.named_modules():
        for name, value in vars(part).items():
            label = f"attribute {place}.{name}" if place else f"attribute {name}"
            if isinstance(value, torch.Tensor):
                found[label] = value.detach().clone()
            elif isinstance(value, int | float) and name != "training":
                found[label] = value
            elif isinstance(value, list | tuple) and all(isinstance(each, torch.Tensor) for each in value):
                found |= {f"{label}[{number}]": each.detach().clone() for number, each in enumerate(value)}
    return found


def _equal(one: Any, other: Any) -> bool:
    if isinstance(one, torch.Tensor) and isinstance(other, torch.Tensor):
        if one.shape != other.shape or one.dtype != other.dtype:
            return False
        return bool(((one == other) | ((one != one) & (other != other))).all())  # NaN is equal to NaN alone
    return bool(one == other) if not isinstance(other, torch.Tensor) else False


def _apart(one: Array, other: Array) -> bool:
    """Tell outputs apart by shape, by where they are finite, or by a difference above `_SAME` of the largest value."""
    if one.shape != other.shape:
        return True
    first, second = one.astype(np.float64), other.astype(np.float64)
    known = np.isfinite(first) & np.isfinite(second)
    if not np.array_equal(first[~known], second[~known], equal_nan=True):
        return True
    return bool(np.abs(first[known] - second[known]).max(initial=0.0) > _SAME * np.abs(first[known]).max(initial=0.0))
