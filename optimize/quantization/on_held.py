"""Nodes with bodies, held back from tools that do not look into bodies.

In their place stands a node that reads as inputs all that the bodies read, so that such a tool sees every reader, keeps
what only a branch uses, and gets the order right. Afterwards the nodes come back.
"""

from collections.abc import Mapping
from dataclasses import dataclass

import onnx
from onnx import helper

from ..graphs.on_onnx import bodies, constants, reads, rename_captured, sort

_DOMAIN = "seatrial.held"


@dataclass(frozen=True, slots=True, kw_only=True)
class Held:
    """The nodes that were taken out, by name, and which node made each tensor then."""

    nodes: Mapping[str, onnx.NodeProto]
    makers: Mapping[str, str]


def hold(model: onnx.ModelProto) -> Held:
    """Put a stand-in in the place of every node with a body."""
    held = {}
    for node in model.graph.node:
        if any(True for _ in bodies(node)):
            held[node.name] = onnx.NodeProto.FromString(node.SerializeToString())
            node.CopyFrom(helper.make_node("Held", reads(node), list(node.output), node.name, domain=_DOMAIN))
    if held:
        model.opset_import.append(helper.make_opsetid(_DOMAIN, 1))
    return Held(nodes=held, makers=_makers(model))


def _makers(model: onnx.ModelProto) -> dict[str, str]:
    """By tensor, the node that makes it; inputs and constants are made by none."""
    found = dict.fromkeys((*constants(model), *(value.name for value in model.graph.input)), "")
    return found | {name: node.name for node in model.graph.node for name in node.output if name}


def release(model: onnx.ModelProto, held: Held) -> None:
    """Bring the held nodes back and the graph into order.

    They read the float tensor that they read before, where it is still made by the same node. Where it is not (a
    constant that became integers, an activation function that went into a rounding), they read what stands for it now.
    """
    there = _makers(model)
    for node in model.graph.node:
        if node.domain != _DOMAIN:
            continue
        original = held.nodes[node.name]
        pairs = zip(reads(original), node.input, strict=True)
        moved = {old: new for old, new in pairs if there.get(old) != held.makers.get(old)}
        outputs = list(node.output)
        node.CopyFrom(original)
        for slot, name in enumerate(node.input):
            node.input[slot] = moved.get(name, name)
        del node.output[:]
        node.output.extend(outputs)
        rename_captured(node, moved)
    kept = [entry for entry in model.opset_import if entry.domain != _DOMAIN]
    del model.opset_import[:]
    model.opset_import.extend(kept)
    sort(model.graph)
