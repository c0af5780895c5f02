"""Layers: what pruning must see of a module (call order, output layers, cost) and the two cuts of a Linear."""

from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from fnmatch import fnmatch
from typing import Any

import torch
from torch.utils.flop_counter import FlopCounterMode

from ..sessions.on_torch import call, outputs_of

Tensors = Mapping[str, torch.Tensor]
Hook = Callable[[str, torch.nn.Module, tuple[Any, ...], Any], None]


def kept_by(name: str, keep: Iterable[str]) -> bool:
    """Whether a module is under one of the globs, itself or by what it lies in."""
    parts = name.split(".")
    return any(fnmatch(".".join(parts[: depth + 1]), glob) for depth in range(len(parts)) for glob in keep)


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


def output_layers(module: torch.nn.Module, tensors: Tensors, outputs: tuple[str, ...]) -> list[torch.nn.Module]:
    """Layers whose result is one of the model's outputs: their channels are the answer and stay."""
    made: list[tuple[torch.nn.Module, torch.Tensor]] = []
    leaves = {name: layer for name, layer in module.named_modules() if not list(layer.children())}

    def note(name: str, layer: torch.nn.Module, given: tuple[Any, ...], result: Any) -> None:
        if isinstance(result, torch.Tensor):
            made.append((layer, result))

    with watched(leaves, note):
        results = list(answers(module, tensors, outputs).values())
    return [layer for layer, tensor in made if any(tensor.data_ptr() == result.data_ptr() for result in results)]


def parameters_of(module: torch.nn.Module) -> int:
    """How many parameters a module has."""
    return sum(parameter.numel() for parameter in module.parameters())


def macs_of(module: torch.nn.Module, tensors: Tensors) -> int:
    """Multiply-accumulates of one forward per sample, as torch's own counter sees them (convolutions, products)."""
    rows = len(next(iter(tensors.values())))
    module.eval()
    with FlopCounterMode(display=False) as counter, torch.enable_grad():
        call(module, tensors)
    return int(counter.get_total_flops()) // (2 * rows)


def cut_rows(layer: torch.nn.Linear, index: torch.Tensor) -> None:
    """Keep these outputs of a Linear."""
    layer.weight = torch.nn.Parameter(layer.weight.detach()[index].clone())
    if layer.bias is not None:
        layer.bias = torch.nn.Parameter(layer.bias.detach()[index].clone())
    layer.out_features = len(index)


def cut_columns(layer: torch.nn.Linear, index: torch.Tensor) -> None:
    """Keep these inputs of a Linear."""
    layer.weight = torch.nn.Parameter(layer.weight.detach()[:, index].clone())
    layer.in_features = len(index)
