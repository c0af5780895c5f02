"""Layers of a module by name: found by glob, and watched while the module runs."""

from collections.abc import Iterable, Mapping
from difflib import get_close_matches
from fnmatch import fnmatchcase
from typing import Any

import torch

from ..errors import ConfigError, StageError
from ..sessions.on_torch import call, outputs_of


def find_layers(module: torch.nn.Module, glob: str, where: str) -> list[str]:
    """Names that fit, in order of definition; `*` stands for (a part of) one level of a dotted name.

    Raises:
        ConfigError: none fits; the next step lists near ones.
    """
    names = [name for name, _ in module.named_modules() if name]
    levels = glob.split(".")
    found = [
        name for name in names if name.count(".") == glob.count(".") and all(map(fnmatchcase, name.split("."), levels))
    ]
    if not found:
        near = get_close_matches(glob, names, n=4, cutoff=0.4)
        near = near or [name for name in names if name.count(".") == glob.count(".")][:8] or names[:8]
        raise ConfigError(f"no layer fits {glob!r}", where=where, next_step=f"there are: {', '.join(near)}")
    return found


def observe(
    module: torch.nn.Module, tensors: Mapping[str, torch.Tensor], output: str, layers: Iterable[str]
) -> tuple[torch.Tensor, dict[str, Any]]:
    """Run the module: its output, and what the named layers returned (their last result, where they run twice).

    Raises:
        StageError: a layer did not run.
    """
    seen: dict[str, Any] = {}
    wanted = dict.fromkeys(layers)
    modules = {name: module.get_submodule(name) for name in wanted}

    def keep(name: str) -> Any:
        def hook(_: torch.nn.Module, __: object, result: object) -> None:
            seen[name] = result

        return hook

    hooks = [layer.register_forward_hook(keep(name)) for name, layer in modules.items()]
    try:
        answer = outputs_of(call(module, tensors), (output,))[output]
    finally:
        for hook in hooks:
            hook.remove()
    if silent := [name for name in wanted if name not in seen]:
        raise StageError(
            f"these layers do not run in forward: {', '.join(silent)}", next_step="name layers that forward runs"
        )
    return answer, seen


def hidden_of(result: Any, name: str) -> torch.Tensor:
    """A layer's result as one tensor [n, ...]: itself, or the first value of a sequence or mapping."""
    while isinstance(result, tuple | list | Mapping) and result:
        result = next(iter(result.values())) if isinstance(result, Mapping) else result[0]
    if not isinstance(result, torch.Tensor) or result.ndim < 2:
        raise StageError(f"layer {name} returns no tensor of two or more axes", next_step="name another layer")
    return result


def attention_of(result: Any, layer: torch.nn.Module, name: str) -> torch.Tensor:
    """An attention layer's probabilities: its second value, or what it holds as ``attention_weights``.

    Raises:
        StageError: it gives none, for instance because it is configured so (``need_weights=False``, fused kernels).
    """
    second = result[1] if isinstance(result, tuple | list) and len(result) > 1 else None
    weights = second if second is not None else getattr(layer, "attention_weights", None)
    if not isinstance(weights, torch.Tensor) or weights.ndim not in (3, 4):
        raise StageError(
            f"layer {name} returns no attention weights [n, (heads,) queries, keys]",
            next_step='let it return them (need_weights=True, eager attention), or use maps = "activations"',
        )
    return weights
