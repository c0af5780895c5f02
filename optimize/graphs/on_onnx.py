"""ONNX graphs with the graphs inside their nodes (If, Loop, Scan): names in use, readers, order, renaming.

Every editor of a graph asks here. A node that holds a body reads whatever its body reads from outside, so a tensor that
only a branch uses has a reader, and no edit of the outer graph removes or changes it unseen.
"""

from collections.abc import Iterable, Iterator, Mapping

import numpy as np
import onnx
import onnx.inliner

from ..samples import Array


def bodies(node: onnx.NodeProto) -> Iterator[onnx.GraphProto]:
    """The graphs that the node holds as attributes."""
    for attribute in node.attribute:
        if attribute.type == onnx.AttributeProto.GRAPH:
            yield attribute.g
        yield from attribute.graphs


def graphs(graph: onnx.GraphProto) -> Iterator[onnx.GraphProto]:
    """The graph and every graph inside it, outer ones first."""
    yield graph
    for node in graph.node:
        for body in bodies(node):
            yield from graphs(body)


def every_node(model: onnx.ModelProto) -> Iterator[onnx.NodeProto]:
    """The nodes of all graphs of the model."""
    for graph in graphs(model.graph):
        yield from graph.node


def names(model: onnx.ModelProto) -> set[str]:
    """Every name of a node or tensor in any graph of the model."""
    found: set[str] = set()
    for graph in graphs(model.graph):
        found.update(tensor.name for tensor in graph.initializer)
        found.update(sparse.values.name for sparse in graph.sparse_initializer)
        found.update(value.name for value in (*graph.input, *graph.output, *graph.value_info))
        for node in graph.node:
            found.update((node.name, *node.input, *node.output))
    return found - {""}


def fresh(name: str, taken: set[str]) -> str:
    """A name that is not taken yet; it is taken now."""
    free, number = name, 0
    while free in taken:
        number += 1
        free = f"{name}_{number}"
    taken.add(free)
    return free


def defined(graph: onnx.GraphProto) -> set[str]:
    """The tensors that the graph itself makes or is given."""
    found = {tensor.name for tensor in graph.initializer} | {value.name for value in graph.input}
    found.update(sparse.values.name for sparse in graph.sparse_initializer)
    return found.union(*(node.output for node in graph.node)) if graph.node else found


def captured(node: onnx.NodeProto) -> list[str]:
    """Tensors of the outer graphs that the node's bodies read or pass through, each once."""
    return list(dict.fromkeys(name for body in bodies(node) for name in _free(body)))


def _free(graph: onnx.GraphProto) -> Iterator[str]:
    own = defined(graph)
    for node in graph.node:
        yield from (name for name in reads(node) if name not in own)
    yield from (value.name for value in graph.output if value.name not in own)


def reads(node: onnx.NodeProto) -> list[str]:
    """Every tensor that the node reads, itself or through a body, each once."""
    return list(dict.fromkeys(name for name in (*node.input, *captured(node)) if name))


def consumers(model: onnx.ModelProto) -> dict[str, list[onnx.NodeProto]]:
    """The nodes of the outer graph that read each tensor; a graph output counts as read by a node without a name."""
    found: dict[str, list[onnx.NodeProto]] = {}
    for node in model.graph.node:
        for name in reads(node):
            found.setdefault(name, []).append(node)
    for value in model.graph.output:
        found.setdefault(value.name, []).append(onnx.NodeProto())
    return found


def rename_captured(node: onnx.NodeProto, renamed: Mapping[str, str]) -> None:
    """Let the node's bodies read other outer tensors; what a body defines itself keeps its name."""
    for body in bodies(node):
        own = defined(body)
        outer = {old: new for old, new in renamed.items() if old not in own}
        for inner in body.node:
            for slot, name in enumerate(inner.input):
                inner.input[slot] = outer.get(name, name)
            rename_captured(inner, outer)
        for value in body.output:
            value.name = outer.get(value.name, value.name)


def rename(model: onnx.ModelProto, renamed: Mapping[str, str]) -> None:
    """Rename inner tensors of the outer graph (no inputs or outputs of the model) wherever they are read."""
    graph = model.graph
    for node in graph.node:
        for slots in (node.input, node.output):
            for slot, name in enumerate(slots):
                slots[slot] = renamed.get(name, name)
        rename_captured(node, renamed)
    for one in (*graph.initializer, *graph.value_info):
        one.name = renamed.get(one.name, one.name)


def rename_own(graph: onnx.GraphProto, renamed: Mapping[str, str]) -> None:
    """Rename tensors that a body defines, wherever they are read in it and in the bodies inside it."""
    for node in graph.node:
        for slots in (node.input, node.output):
            for slot, name in enumerate(slots):
                slots[slot] = renamed.get(name, name)
        rename_captured(node, renamed)
    for one in (*graph.initializer, *graph.value_info, *graph.input, *graph.output):
        one.name = renamed.get(one.name, one.name)


def detach(
    model: onnx.ModelProto, inner: Mapping[str, str], operator: str, kinds: Mapping[str, tuple[int, int]]
) -> None:
    """Call inputs and outputs of the model otherwise inside, joined to their outer names by a node of that operator.

    `kinds` are the element types outside and inside, where the operator is a Cast.
    """
    taken = names(model) | set(inner.values())
    rename(model, inner)

    def joint(source: str, result: str, kind: int | None) -> onnx.NodeProto:
        name = fresh(f"{result}_{operator}", taken)
        if operator == "Cast":
            return onnx.helper.make_node(operator, [source], [result], name, to=kind)
        return onnx.helper.make_node(operator, [source], [result], name)

    for number, value in enumerate(value for value in model.graph.input if value.name in inner):
        node = joint(value.name, inner[value.name], kinds.get(value.name, (0, 0))[1])
        model.graph.node.insert(number, node)
    for value in model.graph.output:
        if value.name in inner:
            model.graph.node.append(joint(inner[value.name], value.name, kinds.get(value.name, (0, 0))[0]))


def sort(graph: onnx.GraphProto) -> None:
    """Bring the nodes into an order in which each reads what is made before it; nodes keep their order otherwise."""
    makers = {name: index for index, node in enumerate(graph.node) for name in node.output if name}
    waiting = [{makers[name] for name in reads(node) if name in makers} for node in graph.node]
    order: list[int] = []
    placed: set[int] = set()
    for start in range(len(waiting)):
        stack = [start]
        while stack:
            index = stack[-1]
            left = sorted(waiting[index] - placed) if index not in placed else []
            if left and len(stack) <= len(waiting):
                stack.append(left[0])
                continue
            stack.pop()
            if index not in placed:
                placed.add(index)
                order.append(index)
    if order != list(range(len(order))):
        nodes = [onnx.NodeProto.FromString(graph.node[index].SerializeToString()) for index in order]
        del graph.node[:]
        graph.node.extend(nodes)


def constants(model: onnx.ModelProto) -> dict[str, onnx.TensorProto]:
    """Initializers of the outer graph by name."""
    return {tensor.name: tensor for tensor in model.graph.initializer}


def array(tensor: onnx.TensorProto) -> Array:
    """The values of an initializer in its own shape, free to be changed."""
    return np.array(onnx.numpy_helper.to_array(tensor))


def add_constant(model: onnx.ModelProto, name: str, values: Array) -> str:
    """Add an initializer of the shape of `values` under a free name, which is returned."""
    free = fresh(name, names(model))
    model.graph.initializer.append(onnx.numpy_helper.from_array(np.asarray(values, order="C"), free))
    return free


def drop_unused(model: onnx.ModelProto) -> None:
    """Remove initializers of the outer graph that no node of any graph reads any more."""
    used = {name for node in model.graph.node for name in reads(node)} | {value.name for value in model.graph.output}
    kept = [tensor for tensor in model.graph.initializer if tensor.name in used]
    if len(kept) < len(model.graph.initializer):
        kept = [onnx.TensorProto.FromString(tensor.SerializeToString()) for tensor in kept]
        del model.graph.initializer[:]
        model.graph.initializer.extend(kept)


def name_nodes(model: onnx.ModelProto) -> None:
    """Give every node of every graph a name: its operator and its place, where it has none."""
    taken = {node.name for node in every_node(model)}
    for graph in graphs(model.graph):
        for number, node in enumerate(graph.node):
            if not node.name:
                node.name = fresh(f"{node.op_type}_{number}", taken)


def separate_constants(model: onnx.ModelProto) -> None:
    """Take constants out of the inputs, where files of IR 3 have every one of them."""
    known = {tensor.name for tensor in model.graph.initializer}
    inputs = [value for value in model.graph.input if value.name not in known]
    if len(inputs) < len(model.graph.input):
        inputs = [onnx.ValueInfoProto.FromString(value.SerializeToString()) for value in inputs]
        del model.graph.input[:]
        model.graph.input.extend(inputs)
    model.ir_version = max(model.ir_version, 4)


def inlined(model: onnx.ModelProto) -> onnx.ModelProto:
    """The model with the bodies of its local functions in the place of their calls."""
    return onnx.inliner.inline_local_functions(model) if model.functions else model


def opset(model: onnx.ModelProto) -> int:
    """The version of ONNX's own operators that the model uses; 0 where it uses none."""
    return next((entry.version for entry in model.opset_import if entry.domain in ("", "ai.onnx")), 0)


def set_types(model: onnx.ModelProto, types: Mapping[str, int]) -> None:
    """State element types of tensors that the graph says nothing of."""
    known = {value.name for value in (*model.graph.input, *model.graph.output, *model.graph.value_info)}
    known.update(tensor.name for tensor in model.graph.initializer)
    made: Iterable[str] = (name for node in model.graph.node for name in node.output if name)
    for name in made:
        if name not in known and types.get(name):
            model.graph.value_info.append(onnx.helper.make_tensor_value_info(name, types[name], None))
