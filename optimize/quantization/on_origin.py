"""Origins of the nodes of a prepared graph: the user's nodes that each stands for, through fusion and folding."""

from collections.abc import Mapping
from dataclasses import dataclass

import onnx

from ..graphs.on_onnx import defined, every_node, reads

WEIGHTED = ("Conv", "ConvTranspose", "MatMul", "Gemm")


@dataclass(frozen=True, slots=True, kw_only=True)
class Origin:
    """The names and operators under which a node may be meant: its own, and those of the user's nodes within it."""

    names: frozenset[str]
    operators: frozenset[str]


@dataclass(frozen=True, slots=True, kw_only=True)
class Origins:
    """Of each prepared node by name its origin, and every name and operator that the user's graph has."""

    nodes: Mapping[str, Origin]
    names: frozenset[str]
    operators: frozenset[str]

    def of(self, node: onnx.NodeProto) -> Origin:
        """The node's origin; a node that came later has none but itself."""
        itself = Origin(names=frozenset({node.name}), operators=frozenset({node.op_type}))
        return self.nodes.get(node.name, itself)


def origins(model: onnx.ModelProto, prepared: onnx.ModelProto) -> Origins:
    """Trace every prepared node back through the user's graph, from its outputs to the tensors that are still there.

    A fused node keeps the name of its last tensor and of its inputs, so what lies between them is what it is made of.
    A node that is still there under its name belongs to no other.
    """
    makers = {name: node for node in model.graph.node for name in node.output if name}
    folded = _constant(model)
    there = defined(prepared.graph)
    still = {node.name for node in prepared.graph.node}
    found = {}
    for node in prepared.graph.node:
        within: dict[str, onnx.NodeProto] = {}
        stack = [name for name in node.output if name]
        while stack:
            name = stack.pop()
            maker = makers.get(name)
            if maker is None or maker.name in within or name in folded:
                continue
            within[maker.name] = maker
            stack.extend(one for one in reads(maker) if one not in there)
        within = {name: maker for name, maker in within.items() if name == node.name or name not in still}
        kinds = {maker.op_type for maker in within.values()}
        alike = {kind for kind in kinds if (kind in WEIGHTED) == (node.op_type in WEIGHTED)}
        found[node.name] = Origin(names=frozenset({node.name, *within}), operators=frozenset({node.op_type, *alike}))
    every = [*every_node(model), *every_node(prepared)]
    return Origins(
        nodes=found,
        names=frozenset(node.name for node in every),
        operators=frozenset(node.op_type for node in every if node.op_type != "Constant"),
    )


def _constant(model: onnx.ModelProto) -> set[str]:
    """Tensors that depend on no input."""
    found = {tensor.name for tensor in model.graph.initializer}
    for node in model.graph.node:
        if all(name in found for name in reads(node)) and not node.op_type.startswith("Random"):
            found.update(node.output)
    return found
