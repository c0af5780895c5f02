"""Columns of tabular inputs: where they enter an ONNX graph, and the graph without some of them.

A column that goes is a constant from then on: what it adds to the first product moves into the bias, and its row of
the weights is removed. Chooses nothing.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import onnx
from onnx import helper, numpy_helper
from onnx.reference import ReferenceEvaluator

from ..errors import ConfigError
from ..graphs.on_onnx import captured
from ..samples import Array

_ALONE = frozenset(
    ("Identity", "Cast", "Relu", "Sigmoid", "Tanh", "Abs", "Neg", "Exp", "Log", "Sqrt", "Clip", "Erf", "Floor", "Round")
)
_WITH_CONSTANT = frozenset(("Add", "Sub", "Mul", "Div", "Pow", "Min", "Max", "BatchNormalization"))
_LISTS = {"Scaler": ("offset", "scale"), "Imputer": ("imputed_value_floats",)}
_SUFFIX = "_kept"


@dataclass(slots=True, kw_only=True)
class _Graph:
    """A graph on its way to fewer columns: `masks` are the columns that stay, bool [columns], by tensor."""

    model: onnx.ModelProto
    masks: dict[str, Array]
    constants: dict[str, Array]
    tables: Mapping[str, int]
    before: list[onnx.NodeProto] = field(default_factory=list)
    products: list[onnx.NodeProto] = field(default_factory=list)

    def mask(self, name: str) -> Array | None:
        """Return the columns of a tensor that stay: all of a table that loses none; None where unknown."""
        if name in self.masks or name not in self.tables:
            return self.masks.get(name)
        return np.ones(self.tables[name], dtype=bool)

    def sliced(self, node: onnx.NodeProto, slot: int, axis: int, mask: Array) -> None:
        """Let the node read a copy of a constant that holds only the columns that stay."""
        self.replace(node, slot, np.compress(mask, self.constants[node.input[slot]], axis=axis))

    def replace(self, node: onnx.NodeProto, slot: int, value: Array) -> None:
        """Let the node read a new constant in that slot."""
        taken = {tensor.name for tensor in self.model.graph.initializer} | set(self.constants)
        name = f"{node.output[0]}_{slot}{_SUFFIX}"
        while name in taken:
            name += "_"
        self.model.graph.initializer.append(numpy_helper.from_array(np.ascontiguousarray(value), name))
        node.input[slot] = name


def tabular(model: onnx.ModelProto) -> dict[str, int]:
    """Return the number of columns of each input that is a table, [n, columns]."""
    found = {}
    for value in model.graph.input:
        dims = value.type.tensor_type.shape.dim
        if value.type.HasField("tensor_type") and len(dims) == 2 and dims[1].dim_value > 0:
            found[value.name] = dims[1].dim_value
    return found


def check(model: onnx.ModelProto, inputs: Mapping[str, int]) -> None:
    """Refuse a graph whose columns cannot be followed to the weights that they enter.

    Raises:
        ConfigError: names the node at which a column is lost.
    """
    copy = onnx.ModelProto()
    copy.CopyFrom(model)
    _walked(copy, {name: np.ones(count, dtype=bool) for name, count in inputs.items()})


def without(model: onnx.ModelProto, kept: Mapping[str, Array], constants: Mapping[str, Array]) -> onnx.ModelProto:
    """Return the graph that reads only the `kept` columns, bool [columns] by input; `constants` [columns] fill others.

    Raises:
        ConfigError: as `check`.
    """
    made = onnx.ModelProto()
    made.CopyFrom(model)
    graph = _walked(made, dict(kept))
    entering = _entering(graph, constants)
    for node in graph.products:
        _without_rows(graph, node, entering[node.input[0]][0])
    _take_columns(graph, kept)
    _tidy(made)
    return made


def _walked(model: onnx.ModelProto, masks: dict[str, Array]) -> _Graph:
    """Follow the columns through the graph up to the products, slicing the constants on the way."""
    constants = {tensor.name: numpy_helper.to_array(tensor) for tensor in model.graph.initializer}
    for node in model.graph.node:
        if node.op_type == "Constant" and node.attribute[0].name == "value":
            constants[node.output[0]] = numpy_helper.to_array(node.attribute[0].t)
    graph = _Graph(model=model, masks=masks, constants=constants, tables=tabular(model))
    for node in model.graph.node:
        if any(name in masks for name in captured(node)):
            raise _lost(node, "reads them inside a subgraph")
        if any(name in masks for name in node.input):
            _step(graph, node)
    if outputs := [value.name for value in model.graph.output if value.name in masks]:
        raise ConfigError(
            f"the columns come out again as output {outputs[0]!r}", next_step="leave it out in source.outputs"
        )
    return graph


def _step(graph: _Graph, node: onnx.NodeProto) -> None:
    """Take one node that reads columns: pass them on, or end at its weights."""
    kind = node.op_type
    if kind in ("MatMul", "Gemm"):
        _end(graph, node)
        return
    graph.before.append(onnx.NodeProto.FromString(node.SerializeToString()))
    if kind == "Concat":
        masks = [graph.mask(name) for name in node.input]
        if _attribute(node, "axis", 1) not in (1, -1) or any(mask is None for mask in masks):
            raise _lost(node, "joins them with something else than columns")
        graph.masks[node.output[0]] = np.concatenate([mask for mask in masks if mask is not None])
        return
    mask = next(graph.masks[name] for name in node.input if name in graph.masks)
    if kind in _WITH_CONSTANT:
        _beside_constants(graph, node, mask)
    elif kind in _LISTS:
        for attribute in node.attribute:
            if attribute.name in _LISTS[kind] and len(attribute.floats) == len(mask):
                values = [value for value, stays in zip(attribute.floats, mask, strict=True) if stays]
                del attribute.floats[:]
                attribute.floats.extend(values)
    elif kind not in _ALONE and not (kind == "Flatten" and _attribute(node, "axis", 1) == 1):
        raise _lost(node, "has no weights from which a column could be removed")
    graph.masks[node.output[0]] = mask


def _beside_constants(graph: _Graph, node: onnx.NodeProto, mask: Array) -> None:
    for slot, name in enumerate(node.input):
        if name in graph.masks:
            continue
        constant = graph.constants.get(name)
        if constant is None or constant.ndim > 2:
            raise _lost(node, "combines them with something that is no constant")
        if constant.ndim and constant.shape[-1] == len(mask) > 1:
            graph.sliced(node, slot, constant.ndim - 1, mask)
    if sum(name in graph.masks for name in node.input) > 1:
        raise _lost(node, "combines them with each other")


def _end(graph: _Graph, node: onnx.NodeProto) -> None:
    weights = graph.constants.get(node.input[1])
    if node.input[0] not in graph.masks or weights is None or weights.ndim != 2 or _attribute(node, "transA", 0):
        raise _lost(node, "does not multiply them with a constant matrix")
    graph.products.append(node)


def _entering(graph: _Graph, constants: Mapping[str, Array]) -> dict[str, Array]:
    """Return the row, [1, columns], that enters each product where every column holds its constant."""
    model, ends = graph.model, {node.input[0] for node in graph.products}
    passed = {node.output[0] for node in graph.before}
    feeds = {name: constants[name][None] for name in constants}
    for name, count in tabular(model).items():
        feeds.setdefault(name, np.zeros((1, count), dtype=_dtype(model, name)))
    given = {name: row for name, row in feeds.items() if name in ends}
    if not passed:
        return given
    held = {name for node in graph.before for name in node.input if name in graph.constants}
    part = helper.make_graph(
        graph.before,
        "columns",
        [value for value in model.graph.input if value.name in feeds],
        [helper.make_empty_tensor_value_info(name) for name in sorted(ends & passed)],
        [numpy_helper.from_array(graph.constants[name], name) for name in sorted(held)],
    )
    whole = helper.make_model(part, opset_imports=model.opset_import, ir_version=model.ir_version)
    found: Any = ReferenceEvaluator(whole).run(None, feeds) if ends & passed else []
    return given | dict(zip(sorted(ends & passed), map(np.asarray, found), strict=True))


def _without_rows(graph: _Graph, node: onnx.NodeProto, entering: Array) -> None:
    """Remove a product's rows of weights, and add what the constants gave, [units], to its bias."""
    mask, weights = graph.masks[node.input[0]], graph.constants[node.input[1]]
    if mask.all():
        return
    across = bool(node.op_type == "Gemm" and _attribute(node, "transB", 0))
    matrix = weights.T if across else weights
    added = np.asarray(entering[~mask].astype(np.float64) @ matrix[~mask].astype(np.float64))
    graph.sliced(node, 1, 1 if across else 0, mask)
    if node.op_type == "Gemm" and _into_gemm(graph, node, added, weights.dtype):
        return
    behind = [each for each in graph.model.graph.node if node.output[0] in each.input]
    outputs = {value.name for value in graph.model.graph.output}
    if len(behind) == 1 and behind[0].op_type == "Add" and node.output[0] not in outputs:
        slot = 1 if behind[0].input[0] == node.output[0] else 0
        bias = graph.constants.get(behind[0].input[slot])
        if bias is not None and bias.ndim < 2:
            graph.replace(behind[0], slot, (bias.astype(np.float64) + added).astype(weights.dtype))
            return
    name = f"{node.output[0]}_rest"
    final = helper.make_node("Add", [name, name], [node.output[0]], name=f"{node.name or node.output[0]}_constant")
    node.output[0] = name
    graph.replace(final, 1, added.astype(weights.dtype))
    graph.model.graph.node.insert(list(graph.model.graph.node).index(node) + 1, final)


def _into_gemm(graph: _Graph, node: onnx.NodeProto, added: Array, dtype: Any) -> bool:
    """Add to a Gemm's own bias; False where that is no constant."""
    alpha, beta = float(_attribute(node, "alpha", 1.0)), float(_attribute(node, "beta", 1.0))
    if len(node.input) < 3 or not node.input[2] or beta == 0:
        bias: Array | None = np.zeros_like(added)
    else:
        bias = graph.constants.get(node.input[2])
    if bias is None:
        return False
    del node.input[2:]
    node.input.append("")
    graph.replace(node, 2, (beta * bias.astype(np.float64) + alpha * added).astype(dtype))
    for attribute in [each for each in node.attribute if each.name == "beta"]:
        node.attribute.remove(attribute)
    return True


def _take_columns(graph: _Graph, kept: Mapping[str, Array]) -> None:
    """Let every reader of an input read its kept columns, by one Gather."""
    nodes = list(graph.model.graph.node)
    for name, mask in kept.items():
        if mask.all():
            continue
        gather = helper.make_node("Gather", [name, name], [f"{name}_columns"], name=f"{name}_columns", axis=1)
        graph.replace(gather, 1, np.flatnonzero(mask).astype(np.int64))
        for node in nodes:
            for slot, read in enumerate(node.input):
                if read == name:
                    node.input[slot] = gather.output[0]
        graph.model.graph.node.insert(0, gather)


def _tidy(model: onnx.ModelProto) -> None:
    """Remove constants that no node reads any more, and shapes that no longer hold."""
    read = {name for node in model.graph.node for name in (*node.input, *captured(node))}
    read |= {value.name for value in model.graph.output}
    for node in [each for each in model.graph.node if each.op_type == "Constant" and each.output[0] not in read]:
        model.graph.node.remove(node)
    for tensor in [each for each in model.graph.initializer if each.name not in read]:
        model.graph.initializer.remove(tensor)
    del model.graph.value_info[:]


def _lost(node: onnx.NodeProto, why: str) -> ConfigError:
    return ConfigError(
        f"the columns enter {node.op_type} {node.name or node.output[0]!r}, which {why}",
        next_step="train the model again without the columns, or remove this stage",
    )


def _attribute(node: onnx.NodeProto, name: str, default: float) -> Any:
    found = next((each for each in node.attribute if each.name == name), None)
    return default if found is None else helper.get_attribute_value(found)


def _dtype(model: onnx.ModelProto, name: str) -> Any:
    value = next(each for each in model.graph.input if each.name == name)
    return helper.tensor_dtype_to_np_dtype(value.type.tensor_type.elem_type)
