"""Channel flow: which slices of which weights belong to one channel, found by moving labels through the graph.

The module is traced to ATen operators. What only moves numbers moves the labels alike (a shuffle, a flip, a concat);
what combines channels element by element merges them; a convolution or a matrix product consumes the channels of its
input and makes new ones. A channel whose way is not understood, or that is mixed with others, is frozen with a reason.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch.func import functionalize
from torch.fx.experimental.proxy_tensor import make_fx

from ..errors import StageError
from ..samples import Array
from ..sessions.on_torch import call, outputs_of
from .on_cut import swapped
from .on_labels import Derived, Ids, Weight
from .on_layers import Tensors, first_line
from .on_rules import label_of
from .on_units import NONE, UnitSets, positions

_ELEMENTS = 2**21  # of a parameter that is followed element by element


@dataclass(frozen=True, slots=True, order=True)
class Axis:
    """One axis of a parameter or buffer, by its name in the module."""

    tensor: str
    axis: int

    @property
    def layer(self) -> str:
        """The module that holds it."""
        return self.tensor.rpartition(".")[0]


@dataclass(frozen=True, slots=True, kw_only=True)
class Group:
    """`count` removable units of one kind: unit u takes the positions ``places[axis][u]`` of each axis.

    `sources` are axes along which channels are made (and normalized, scaled, ...), `sinks` those that consume them.
    """

    places: dict[Axis, Array]
    sources: tuple[Axis, ...]
    sinks: tuple[Axis, ...]

    @property
    def count(self) -> int:
        """Return how many units there are."""
        return len(next(iter(self.places.values())))

    @property
    def name(self) -> str:
        """The layers that make these channels."""
        return ", ".join(dict.fromkeys(axis.layer or axis.tensor for axis in self.sources))


@dataclass(frozen=True, slots=True, kw_only=True)
class Flow:
    """Removable parts of a module: groups of units, and the layers whose channels stay with the reason."""

    groups: tuple[Group, ...]
    stays: dict[str, str]


class _Caller(torch.nn.Module):
    """The module as a function of a list of tensors to the list of its outputs."""

    def __init__(self, module: torch.nn.Module, names: tuple[str, ...], outputs: tuple[str, ...]) -> None:
        super().__init__()
        self.module = module
        self._names, self._outputs = names, outputs

    def forward(self, *tensors: torch.Tensor) -> list[torch.Tensor]:
        result = call(self.module, dict(zip(self._names, tensors, strict=True)))
        return list(outputs_of(result, self._outputs).values())


def find_flow(module: torch.nn.Module, tensors: Tensors, outputs: tuple[str, ...]) -> Flow:
    """Follow every channel of the module from the layer that makes it to those that read it.

    Raises:
        StageError: the module cannot be traced.
    """
    graph, names = _trace(module, tensors, outputs)
    labels: dict[torch.fx.Node, Any] = {}
    follower = _Follower(module)
    places = iter(names)
    for node in graph.nodes:
        if node.op == "placeholder":
            name = next(places, "")
            labels[node] = follower.weight(name) if name else None
        elif node.op == "call_function":
            labels[node] = label_of(node, labels, follower)
        elif node.op == "output":
            _freeze_outputs(node, labels, follower, outputs)
        else:
            labels[node] = None
    return follower.flow()


def _trace(
    module: torch.nn.Module, tensors: Tensors, outputs: tuple[str, ...]
) -> tuple[torch.fx.Graph, tuple[str, ...]]:
    """The graph whose first placeholders are the named parameters and buffers."""
    caller = _Caller(module.eval(), tuple(tensors), outputs)
    state = dict(module.named_parameters()) | dict(module.named_buffers())
    names = tuple(state)

    def run(*values: torch.Tensor) -> Any:
        with swapped(module, dict(zip(names, values, strict=False))):
            return caller(*values[len(names) :])

    values = (*(value.detach() for value in state.values()), *(tensor.clone() for tensor in tensors.values()))
    try:
        with torch.no_grad():
            traced = make_fx(functionalize(run), tracing_mode="real", _error_on_data_dependent_ops=False)(*values)
    except Exception as error:  # the user's forward may raise anything, and so may the tracer
        raise StageError(
            f"the module cannot be traced to find its channels: {first_line(error)}",
            next_step="prune heads, ffn, layers or pattern, or distill into a smaller module instead",
        ) from error
    return traced.graph, names


def _freeze_outputs(
    node: torch.fx.Node, labels: dict[torch.fx.Node, Any], follower: "_Follower", outputs: Sequence[str]
) -> None:
    made = node.args[0] if isinstance(node.args[0], list | tuple) else [node.args[0]]
    for name, value in zip(outputs, made, strict=False):
        label = labels.get(value) if isinstance(value, torch.fx.Node) else None
        if isinstance(label, Ids):
            follower.sets.freeze(label.labels, f"they are output {name!r}")
        elif isinstance(label, Weight | Derived):
            follower.nail(label, f"it is output {name!r}")


class _Follower:
    """Channels of the module's tensors: which axes of parameters and buffers they stand on."""

    def __init__(self, module: torch.nn.Module) -> None:
        self.sets = UnitSets()
        self._tensors = dict(module.named_parameters()) | dict(module.named_buffers())
        self._places: dict[str, torch.Tensor] = {}
        self._axes: dict[Axis, torch.Tensor] = {}
        self._sinks: set[Axis] = set()
        self._elements: dict[str, torch.Tensor] = {}
        self._nailed: dict[str, str] = {}

    def weight(self, name: str) -> Weight:
        """The label of a parameter or buffer: at each element its number in the tensor."""
        tensor = self._tensors[name]
        self._places[name] = torch.arange(tensor.numel()).view(tensor.shape)
        return Weight(name=name, places=self._places[name])

    def unmoved(self, weight: Weight) -> bool:
        """Tell whether a weight is the tensor as it is, no part or other order of it."""
        own, places = self._places[weight.name], weight.places
        return own.data_ptr() == places.data_ptr() and own.shape == places.shape and own.stride() == places.stride()

    def shape(self, name: str) -> tuple[int, ...]:
        """The shape of a parameter or buffer."""
        return tuple(self._tensors[name].shape)

    def attach(self, name: str, axis: int, labels: torch.Tensor, *, sink: bool = False) -> None:
        """Note that these channels [n] stand along an axis; a second use of the tensor merges the two."""
        key = Axis(name, axis)
        if key in self._axes:
            self.sets.union(self._axes[key], labels, f"{name} is used twice, with different channels")
        else:
            self._axes[key] = labels.clone()
        if sink:
            self._sinks.add(key)

    def elements(self, weight: Weight) -> torch.Tensor:
        """The channels of a tensor that takes part element by element: one for each element at first."""
        if weight.name not in self._elements:
            count = self._tensors[weight.name].numel()
            if count > _ELEMENTS:
                self.nail(weight, f"{weight.name} is too large to trace element by element")
                return torch.full(weight.places.shape, NONE)
            self._elements[weight.name] = self.sets.fresh(count)
        return self._elements[weight.name][weight.places]

    def nail(self, label: Weight | Derived, why: str) -> None:
        """Let every channel on the tensors' axes stay."""
        for name in [label.name] if isinstance(label, Weight) else label.names:
            self._nailed.setdefault(name, why)

    def flow(self) -> Flow:
        """Sort the channels that may go into groups of one kind."""
        for name, elements in self._elements.items():
            self._attach_elements(name, elements)
        for axis, labels in self._axes.items():
            if axis.tensor in self._nailed:
                self.sets.freeze(labels, self._nailed[axis.tensor])
        roots = {axis: self.sets.roots(labels).numpy() for axis, labels in self._axes.items()}
        found: dict[int, dict[Axis, Array]] = {}
        stays: dict[str, str] = {}
        for axis, sets in roots.items():
            for unit, places in positions(sets):
                if not (why := self.sets.why(unit)):
                    found.setdefault(unit, {})[axis] = places
                elif axis not in self._sinks:
                    stays.setdefault(axis.layer or axis.tensor, why)
            if (sets == NONE).all() and axis not in self._sinks:
                stays.setdefault(axis.layer or axis.tensor, "its channels do not come from a layer of the module")
        for tensor, why in self._nailed.items():
            stays.setdefault(tensor.rpartition(".")[0] or tensor, why)
        kinds: dict[tuple[tuple[Axis, int], ...], list[dict[Axis, Array]]] = {}
        for each in found.values():
            kinds.setdefault(tuple(sorted((axis, len(places)) for axis, places in each.items())), []).append(each)
        groups = [self._group([axis for axis, _ in kind], units) for kind, units in kinds.items()]
        return Flow(groups=tuple(group for group in groups if group.sources), stays=stays)

    def _group(self, axes: Sequence[Axis], units: Sequence[dict[Axis, Array]]) -> Group:
        """Return the group of those axes; of each unit the indices along every axis, stacked to [units, indices]."""
        wanted = set(axes)
        order = [axis for axis in self._axes if axis in wanted]  # of first use
        return Group(
            places={axis: np.stack([unit[axis] for unit in units]) for axis in order},
            sources=tuple(axis for axis in order if axis not in self._sinks),
            sinks=tuple(axis for axis in order if axis in self._sinks),
        )

    def _attach_elements(self, name: str, elements: torch.Tensor) -> None:
        """Find the axis along which the elements' channels vary; where there is none, all of them stay."""
        shape = self.shape(name)
        labels = elements.view(shape)
        axes = [axis for axis in range(len(shape)) if self.sets.varies(labels, axis)]
        if len(axes) > 1:
            self.sets.freeze(labels, f"{name} has no single axis for them")
        elif axes:
            line = labels.movedim(axes[0], 0).reshape(shape[axes[0]], -1)[:, 0]
            self.attach(name, axes[0], self.sets.roots(line))
        else:
            self.sets.freeze(labels, f"{name} has one number for all of them")
