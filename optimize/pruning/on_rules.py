"""Rules of the channel flow: finds the rule of each ATen operator, and freezes what an unknown one reads."""

import operator
from collections.abc import Mapping
from typing import Any

import torch

from . import on_math, on_moves
from .on_labels import Derived, Follower, Ids, Label, Operand, Weight


def label_of(node: torch.fx.Node, labels: Mapping[torch.fx.Node, Any], follower: Follower) -> Any:
    """Return the label of a node's result (a list for several results), from those of what it reads."""
    if node.target is operator.getitem:
        made, index = labels[node.args[0]], int(node.args[1])  # type: ignore[index, arg-type]
        return made[index] if isinstance(made, list) else made
    if all(labels.get(each) is None for each in node.all_input_nodes):
        return None
    name = _name(node)
    rule = on_moves.RULES.get(name) or on_math.rule_of(name, node.target)
    if rule is None:
        return _unknown(node, name, labels, follower)
    operands = _operands(node.args, labels)
    made = rule(follower, node, *operands)
    return _unknown(node, name, labels, follower) if made is NotImplemented else made


def _operands(arguments: Any, labels: Mapping[torch.fx.Node, Any]) -> list[Any]:
    """An operator's arguments with every node as an operand."""
    return [
        Operand(each, labels.get(each))
        if isinstance(each, torch.fx.Node)
        else _operands(each, labels)
        if isinstance(each, list | tuple)
        else each
        for each in arguments
    ]


def _name(node: torch.fx.Node) -> str:
    return getattr(getattr(node.target, "overloadpacket", None), "__name__", str(node.target))


def _unknown(node: torch.fx.Node, name: str, labels: Mapping[torch.fx.Node, Any], follower: Follower) -> Label:
    """Freeze all that an operator without a rule reads."""
    why = f"operator {name.strip('_')} reads them, which may mix channels"
    names: list[str] = []
    tracked = False
    for each in node.all_input_nodes:
        found = labels.get(each)
        for label in found if isinstance(found, list) else [found]:
            if isinstance(label, Ids):
                tracked = True
                follower.sets.freeze(label.labels, why)
            elif isinstance(label, Weight | Derived):
                follower.nail(label, why)
                names += [label.name] if isinstance(label, Weight) else label.names
    return None if tracked or not names else Derived(names=tuple(dict.fromkeys(names)))
