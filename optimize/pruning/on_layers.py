"""Layers: what pruning must see of a module: names under globs, outputs, call order, cost."""

from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from difflib import get_close_matches
from fnmatch import fnmatch
from typing import Any

import torch
from torch.utils.flop_counter import FlopCounterMode

from ..errors import ConfigError
from ..sessions.on_torch import call, outputs_of

Tensors = Mapping[str, torch.Tensor]
Hook = Callable[[str, torch.nn.Module, tuple[Any, ...], Any], None]


def kept_by(name: str, keep: Iterable[str]) -> bool:
    """Return True if one of the globs matches the module or a module that contains it."""
    parts = name.split(".")
    return any(fnmatch(".".join(parts[: depth + 1]), glob) for depth in range(len(parts)) for glob in keep)


def check_globs(module: torch.nn.Module, globs: Iterable[str], where: str) -> None:
    """Check that every glob fits a module or a parameter of its own.

    Raises:
        ConfigError: one fits none; the next step lists near names.
    """
    names = [name for name, _ in module.named_modules() if name]
    names += [name for name, _ in module.named_parameters(recurse=False)]
    for glob in globs:
        if any(kept_by(name, [glob]) for name in names):
            continue
        near = get_close_matches(glob.strip("*."), names, n=4, cutoff=0.4) or names[:8]
        raise ConfigError(f"no module fits {glob!r}", where=where, next_step=f"there are: {', '.join(near)}")


def first_line(error: BaseException) -> str:
    """The first line of what an error says, or its kind where it says nothing."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return lines[0] if lines else type(error).__name__


def answers(module: torch.nn.Module, tensors: Tensors, outputs: tuple[str, ...]) -> dict[str, torch.Tensor]:
    """The module's outputs in evaluation mode, without gradients."""
    with torch.no_grad():
        return outputs_of(call(module.eval(), tensors), outputs)


@contextmanager
def watched(layers: Mapping[str, torch.nn.Module], hook: Hook) -> Iterator[None]:
    """Have `hook` called with name, layer, arguments and result after each forward of a layer."""
    handles = [
        layer.register_forward_hook(lambda layer, given, result, name=name: hook(name, layer, given, result))
        for name, layer in layers.items()
    ]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


def called(module: torch.nn.Module, tensors: Tensors) -> list[str]:
    """Names of all Linear layers in the order of their first call.

    With gradients on: without them torch's transformer layers take a fused path that calls no layer.
    """
    order: dict[str, None] = {}
    linears = {name: layer for name, layer in module.named_modules() if isinstance(layer, torch.nn.Linear)}
    with watched(linears, lambda name, layer, given, result: order.setdefault(name)), torch.enable_grad():
        call(module.eval(), tensors)
    return list(order)


def parameters_of(module: torch.nn.Module) -> int:
    """Count the parameters of a module."""
    return sum(parameter.numel() for parameter in module.parameters())


def macs_of(module: torch.nn.Module, tensors: Tensors) -> int:
    """Multiply-accumulates of one forward per sample, as torch's own counter sees them (convolutions, products)."""
    rows = len(next(iter(tensors.values())))
    module.eval()
    with FlopCounterMode(display=False) as counter, torch.enable_grad():
        call(module, tensors)
    return int(counter.get_total_flops()) // (2 * rows)
