"""A float graph read for casting, and the pass that makes it low precision or an emulation of it.

A tensor ``x`` in fp32 keeps its name, so that a body (If, Loop, Scan) that reads it reads fp32; its low form has
another. Types come from ONNX Runtime, which knows its own operators; those stay in fp32, with a
Cast at each border.
"""

from collections.abc import Iterator, Sequence

import ml_dtypes
import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper
from onnx.defs import OpSchema, get_schema

from ..errors import StageError
from ..graphs.on_onnx import (
    bodies,
    captured,
    constants,
    drop_unused,
    fresh,
    inlined,
    name_nodes,
    names,
    opset,
    separate_constants,
)
from ..sessions.on_ort_graph import element_types

_BFLOAT_OPSET = 22
_TYPES_FIXED = """
Constant ConstantOfShape EyeLike RandomNormal RandomUniform RandomNormalLike RandomUniformLike Range Bernoulli
Multinomial HannWindow HammingWindow BlackmanWindow MelWeightMatrix CastLike SequenceEmpty QuantizeLinear
DequantizeLinear DynamicQuantizeLinear
"""  # the type of their result stands in an attribute, or their scales must be exact
_TYPED = frozenset(_TYPES_FIXED.split())
_KINDS = {"fp16": TensorProto.FLOAT16, "bf16": TensorProto.BFLOAT16}
_NUMPY = {"fp16": np.dtype(np.float16), "bf16": np.dtype(ml_dtypes.bfloat16)}
_VALUES = {"value_float": np.float32, "value_floats": np.float32, "value_int": np.int64, "value_ints": np.int64}


class FloatGraph:
    """A float graph with a name for each node, its constants as initializers, and the type of every tensor."""

    def __init__(self, model: onnx.ModelProto, precision: str) -> None:
        self.kind, self.numpy = _KINDS[precision], _NUMPY[precision]
        self.opset = opset(model)
        if precision == "bf16" and self.opset < _BFLOAT_OPSET:
            raise StageError(
                f"bf16 needs opset {_BFLOAT_OPSET}, the model has {self.opset}",
                next_step="set opset = 22 in the export stage",
            )
        model = inlined(model)
        separate_constants(model)
        name_nodes(model)
        _hoist(model)
        self.model = model
        del model.graph.value_info[:]
        self.types = {value.name: value.type.tensor_type.elem_type for value in (*model.graph.input,)}
        self.types |= {tensor.name: tensor.data_type for tensor in model.graph.initializer}
        self.types |= element_types(model)
        self.floats = {name for name, kind in self.types.items() if kind == TensorProto.FLOAT}
        self.weights = {name: item for name, item in constants(model).items() if name in self.floats}
        self.names = [node.name for node in model.graph.node]

    def unsupported(self) -> dict[str, str]:
        """Nodes that cannot be typed low, each with the reason."""
        why = {node.name: self._why_not(node) for node in self.model.graph.node}
        return {name: reason for name, reason in why.items() if reason}

    def touches(self, node: onnx.NodeProto) -> bool:
        """Return whether a float tensor goes in or out."""
        return any(name in self.floats for name in (*node.input, *node.output))

    def converted(self, kept: set[str], *, emulate: bool) -> onnx.ModelProto:
        """The graph with all other nodes in low precision, or in fp32 with the same roundings (`emulate`)."""
        return _Conversion(self, kept, emulate=emulate).model

    def low(self, schema: OpSchema, formal: str) -> bool:
        """Return whether that type of the operator may be the low precision; ``tensor(float)`` itself never is."""
        text = "tensor(float16)" if self.kind == TensorProto.FLOAT16 else "tensor(bfloat16)"
        return any(item.type_param_str == formal and text in item.allowed_type_strs for item in schema.type_constraints)

    def schema(self, node: onnx.NodeProto) -> OpSchema:
        """ONNX's definition of the operator in the model's version."""
        return get_schema(node.op_type, self.opset, "")

    def _why_not(self, node: onnx.NodeProto) -> str:
        if any(True for _ in bodies(node)):
            return "it contains a subgraph"
        if node.domain not in ("", "ai.onnx"):
            return f"its types in domain {node.domain} are unknown"
        if any(name and name not in self.types for name in (*node.input, *node.output)):
            return "an input or output is not a tensor"
        if node.op_type in _TYPED:
            return "its type is fixed"
        try:
            schema = self.schema(node)
        except Exception:  # noqa: BLE001  an operator that ONNX does not know in this version
            return "no definition lists its types"
        places = [*zip(node.input, formals(schema.inputs, node.input), strict=True)]
        places += zip(node.output, formals(schema.outputs, node.output), strict=True)
        fits = all(self.low(schema, formal) for name, formal in places if name in self.floats and "(" not in formal)
        return "" if fits else "it has no kernel for this type"


class _Conversion:
    """One pass over the nodes: a Cast is made where a form of a tensor is missing."""

    def __init__(self, graph: FloatGraph, kept: set[str], *, emulate: bool) -> None:
        self._graph, self._emulate = graph, emulate
        self.model = onnx.ModelProto()
        self.model.CopyFrom(graph.model)
        del self.model.graph.node[:]
        self._taken = names(graph.model)
        self._lower: dict[str, str] = {}
        self._have = set(graph.floats - {name for node in graph.model.graph.node for name in node.output})
        for node in graph.model.graph.node:
            self._convert(node, low=node.name not in kept)
        for value in self.model.graph.output:
            if value.name in graph.floats:
                self._form(value.name, low=False)
        drop_unused(self.model)

    def _convert(self, original: onnx.NodeProto, *, low: bool) -> None:
        graph = self._graph
        node = onnx.NodeProto()
        node.CopyFrom(original)
        schema = graph.schema(node) if low and graph.touches(node) else None
        for name in captured(node):
            if name in graph.floats:
                self._form(name, low=False)
        for index, formal in enumerate(formals(schema.inputs, node.input) if schema else [""] * len(node.input)):
            if node.input[index] in graph.floats:
                wanted = schema is not None and graph.low(schema, formal)
                node.input[index] = self._form(node.input[index], low=wanted)
        self.model.graph.node.append(node)
        node = self.model.graph.node[-1]  # appending copies
        for index, formal in enumerate(formals(schema.outputs, node.output) if schema else [""] * len(node.output)):
            if (name := node.output[index]) in graph.floats:
                self._have.add(name)
                if schema is not None and graph.low(schema, formal):
                    self._lower_output(node, index, name)

    def _lower_output(self, node: onnx.NodeProto, index: int, name: str) -> None:
        if self._emulate:
            node.output[index] = fresh(f"{name}_raw", self._taken)
            self._round(node.output[index], name)
            return
        if node.op_type == "Cast":
            next(item for item in node.attribute if item.name == "to").i = self._graph.kind
        node.output[index] = self._name_of_low(name)
        self._have.discard(name)
        self._have.add(node.output[index])

    def _name_of_low(self, name: str) -> str:
        if name not in self._lower:
            self._lower[name] = fresh(f"{name}_low", self._taken)
        return self._lower[name]

    def _form(self, name: str, *, low: bool) -> str:
        """The tensor's name in that form, made now if it is not there yet."""
        wanted = self._name_of_low(name) if low else name
        if wanted in self._have:
            return wanted
        if low and name in self._graph.weights:
            with np.errstate(over="ignore"):
                rounded = numpy_helper.to_array(self._graph.weights[name]).astype(self._graph.numpy)
            array = rounded.astype(np.float32) if self._emulate else rounded
            self.model.graph.initializer.append(numpy_helper.from_array(array, wanted))
        elif low and self._emulate:
            self._round(name, wanted)
        else:
            source, kind = (name, self._graph.kind) if low else (self._name_of_low(name), TensorProto.FLOAT)
            self._cast(source, wanted, kind)
        self._have.add(wanted)
        return wanted

    def _round(self, source: str, result: str) -> None:
        rounded = fresh(f"{result}_rounded", self._taken)
        self._cast(source, rounded, self._graph.kind)
        self._cast(rounded, result, TensorProto.FLOAT)

    def _cast(self, source: str, result: str, kind: int) -> None:
        name = fresh(f"{result}_cast", self._taken)
        self.model.graph.node.append(helper.make_node("Cast", [source], [result], name=name, to=kind))


def formals(parameters: Sequence[OpSchema.FormalParameter], actual: Sequence[str]) -> list[str]:
    """The type variable of each actual parameter; a variadic last one stands for all that follow."""
    return [parameters[min(index, len(parameters) - 1)].type_str for index in range(len(actual))]


def _hoist(model: onnx.ModelProto) -> None:
    """Turn Constant nodes into initializers, in whatever attribute they hold their number."""
    kept = []
    for node in model.graph.node:
        tensor = next(_held(node), None) if node.op_type == "Constant" else None
        if tensor is None:
            kept.append(onnx.NodeProto.FromString(node.SerializeToString()))
            continue
        tensor.name = node.output[0]
        model.graph.initializer.append(tensor)
    del model.graph.node[:]
    model.graph.node.extend(kept)


def _held(node: onnx.NodeProto) -> Iterator[TensorProto]:
    for attribute in node.attribute:
        if attribute.name == "value":
            tensor = TensorProto()
            tensor.CopyFrom(attribute.t)
            yield tensor
        elif attribute.name in _VALUES:
            yield numpy_helper.from_array(np.array(helper.get_attribute_value(attribute), _VALUES[attribute.name]))
