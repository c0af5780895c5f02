"""Cuts: parameters and buffers made smaller in place, with layers' size attributes, shared tensors staying shared."""

from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import torch

from ..samples import Array

Slices = Mapping[str, Mapping[int, Array]]  # tensor name -> axis -> positions that stay


def cut(module: torch.nn.Module, slices: Slices) -> None:
    """Keep these positions of these parameters and buffers; every module that shares one gets the same new one."""
    tensors, owners = tensors_of(module), _owners(module)
    for name, axes in {id(tensors[name]): (name, axes) for name, axes in slices.items()}.values():
        old = tensors[name]
        new = old.detach()
        for axis, stay in axes.items():
            new = new.index_select(axis, torch.from_numpy(stay))
        new = new.clone()
        if isinstance(old, torch.nn.Parameter):
            new = torch.nn.Parameter(new, requires_grad=old.requires_grad)
        for layer, attribute in owners[id(old)]:
            setattr(layer, attribute, new)
    touched = {id(layer): layer for name in slices for layer, _ in owners[id(tensors[name])]}
    for layer in touched.values():
        count(layer)


def switch_off(module: torch.nn.Module, slices: Slices) -> None:
    """Set everything but these positions to zero in place, so that what was read there has no effect."""
    tensors = tensors_of(module)
    with torch.no_grad():
        for name, axes in slices.items():
            for axis, stay in axes.items():
                gone = torch.ones(tensors[name].shape[axis], dtype=torch.bool)
                gone[torch.from_numpy(stay)] = False
                tensors[name].index_fill_(axis, gone.nonzero().flatten(), 0)


def ties(module: torch.nn.Module) -> list[tuple[str, ...]]:
    """Return the names of parameters that are one tensor, each set of two or more once."""
    names: dict[int, list[str]] = {}
    for name, parameter in module.named_parameters(remove_duplicate=False):
        names.setdefault(id(parameter), []).append(name)
    return sorted(tuple(shared) for shared in names.values() if len(shared) > 1)


def tensors_of(module: torch.nn.Module) -> dict[str, torch.Tensor]:
    """Return parameters and buffers under every name that they have."""
    named: list[tuple[str, torch.Tensor]] = [
        *module.named_parameters(remove_duplicate=False),
        *module.named_buffers(remove_duplicate=False),
    ]
    return dict(named)


def _owners(module: torch.nn.Module) -> dict[int, list[tuple[torch.nn.Module, str]]]:
    owners: dict[int, list[tuple[torch.nn.Module, str]]] = {}
    for layer in module.modules():
        held: Iterable[tuple[str, Any]] = (*layer._parameters.items(), *layer._buffers.items())
        for attribute, tensor in held:
            if tensor is not None:
                owners.setdefault(id(tensor), []).append((layer, attribute))
    return owners


@contextmanager
def swapped(module: torch.nn.Module, values: Mapping[str, torch.Tensor]) -> Iterator[None]:
    """Let a module use other tensors for its parameters and buffers, wherever it holds them, and put its own back."""
    own, owners = tensors_of(module), _owners(module)
    places = [
        (layer._parameters if attribute in layer._parameters else layer._buffers, attribute, own[name], value)
        for name, value in values.items()
        for layer, attribute in owners[id(own[name])]
    ]
    try:
        for held, attribute, _, value in places:
            held[attribute] = value  # type: ignore[assignment]
        yield
    finally:
        for held, attribute, before, _ in places:
            held[attribute] = before  # type: ignore[assignment]


def count(layer: Any) -> None:
    """Set a layer's size attributes to those of its tensors."""
    weight = getattr(layer, "weight", None)
    if isinstance(layer, torch.nn.modules.conv._ConvNd):
        _count_convolution(layer)
    elif isinstance(layer, torch.nn.Linear):
        layer.out_features, layer.in_features = layer.weight.shape
    elif isinstance(layer, torch.nn.modules.batchnorm._NormBase):
        held = weight if weight is not None else layer.running_mean
        layer.num_features = layer.num_features if held is None else len(held)
    elif isinstance(layer, torch.nn.GroupNorm) and weight is not None:
        layer.num_groups = layer.num_groups * len(weight) // layer.num_channels
        layer.num_channels = len(weight)
    elif isinstance(layer, torch.nn.LayerNorm) and weight is not None:
        layer.normalized_shape = tuple(weight.shape)
    elif isinstance(layer, torch.nn.PReLU):
        layer.num_parameters = len(layer.weight)
    elif isinstance(layer, torch.nn.Embedding):
        layer.num_embeddings, layer.embedding_dim = layer.weight.shape


def _count_convolution(layer: Any) -> None:
    first, second = layer.weight.shape[:2]
    alone = layer.groups > 1 and layer.in_channels == layer.groups
    if alone:
        each = layer.out_channels // layer.groups
        layer.groups = first if layer.transposed else first // each
    if layer.transposed:
        layer.in_channels, layer.out_channels = first, second * layer.groups
    else:
        layer.out_channels, layer.in_channels = first, second * layer.groups
