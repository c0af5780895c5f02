"""Labels: what the channel flow knows of each tensor of a traced graph, and the operands that rules are given."""

from dataclasses import dataclass
from typing import Any, Protocol

import torch

from .on_units import NONE, UnitSets


@dataclass(frozen=True, slots=True)
class Ids:
    """Labels of an activation: at each element its channel, or none."""

    labels: torch.Tensor


@dataclass(frozen=True, slots=True, kw_only=True)
class Weight:
    """A parameter or buffer, possibly moved: at each element its number in the tensor."""

    name: str
    places: torch.Tensor


@dataclass(frozen=True, slots=True, kw_only=True)
class Derived:
    """Computed from parameters alone, such as a normalized weight."""

    names: tuple[str, ...]


Label = Ids | Weight | Derived | None


class Follower(Protocol):
    """Notes of the rules on the module's tensors."""

    sets: UnitSets

    def shape(self, name: str) -> tuple[int, ...]:
        """Return the shape of a parameter or buffer."""

    def unmoved(self, weight: Weight) -> bool:
        """Tell whether a weight is the tensor as it is, no part or other order of it."""

    def attach(self, name: str, axis: int, labels: torch.Tensor, *, sink: bool = False) -> None:
        """Note that channels stand along an axis."""

    def elements(self, weight: Weight) -> torch.Tensor:
        """Return the channels of a tensor that takes part element by element."""

    def nail(self, label: Weight | Derived, why: str) -> None:
        """Let everything of these tensors stay."""


@dataclass(frozen=True, slots=True)
class Operand:
    """A tensor that an operator reads: its node and its label."""

    node: torch.fx.Node
    label: Label

    @property
    def shape(self) -> tuple[int, ...]:
        """Its shape."""
        return shape_of(self.node)

    def ids(self, follower: Follower) -> torch.Tensor:
        """Return its channels; a tensor without any has none at every element."""
        if isinstance(self.label, Ids):
            return self.label.labels
        if isinstance(self.label, Weight):
            return follower.elements(self.label)
        if isinstance(self.label, Derived):
            follower.nail(self.label, "it is computed from parameters and used as an activation")
        return torch.tensor(NONE).expand(self.shape)


def shape_of(node: torch.fx.Node) -> tuple[int, ...]:
    """Return the shape of a node's result."""
    found = node.meta.get("tensor_meta") or node.meta.get("val")
    return tuple(found.shape)  # type: ignore[union-attr]


def operands_in(value: Any) -> list[Operand]:
    """Return all operands of an operator's arguments, in order."""
    if isinstance(value, Operand):
        return [value]
    if isinstance(value, tuple | list):
        return [each for part in value for each in operands_in(part)]
    return []
