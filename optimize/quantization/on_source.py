"""A source graph as quantization wants it: float32 throughout, constants apart from inputs, a name for every node."""

import re
from pathlib import Path

import onnx
from onnx import TensorProto, helper, numpy_helper

from ..errors import StageError
from ..graphs.on_onnx import (
    defined,
    detach,
    fresh,
    graphs,
    inlined,
    name_nodes,
    names,
    opset,
    rename,
    rename_own,
    separate_constants,
)
from ..tensorrt.on_onnx import quantized

_LOW = (TensorProto.FLOAT16, TensorProto.BFLOAT16)
_MADE = re.compile(r"_(QuantizeLinear|DequantizeLinear|quantized|scale|zero_point|convert)")
_KINDS = ("to", "dtype", "output_datatype")  # attributes that hold an element type


def loaded(source: Path) -> onnx.ModelProto:
    """The model of a file with its weights.

    Raises:
        StageError: it cannot be read, or it is quantized already.
    """
    try:
        model = onnx.load(str(source))
    except Exception as error:  # protobuf's and onnx's errors share no base
        raise StageError(f"not an ONNX model: {error}", where=str(source), next_step="export it again") from error
    if found := quantized(model):
        raise StageError(
            f"the model is already quantized: it has {', '.join(found)}",
            next_step="remove this stage, or give the float model that it was made from",
        )
    model = inlined(model)
    separate_constants(model)
    if not opset(model):
        model.opset_import.append(helper.make_opsetid("", 17))
    name_nodes(model)
    _widen(model)
    _make_way(model)
    return model


def _widen(model: onnx.ModelProto) -> None:
    """Make half precision float32 inside, with a Cast at each input and output that had it."""
    low = {id(tensor): tensor for tensor in _tensors(model) if tensor.data_type in _LOW}
    values = [value for graph in graphs(model.graph) for value in (*graph.input, *graph.output, *graph.value_info)]
    if not (low or any(value.type.tensor_type.elem_type in _LOW for value in values)):
        return
    for tensor in low.values():
        tensor.CopyFrom(numpy_helper.from_array(numpy_helper.to_array(tensor).astype("float32"), tensor.name))
    for graph in graphs(model.graph):
        for node in graph.node:
            for attribute in node.attribute:
                if attribute.name in _KINDS and attribute.i in _LOW:
                    attribute.i = TensorProto.FLOAT
    taken = names(model)
    edges = [*model.graph.input, *model.graph.output]
    border = {value.name: value.type.tensor_type.elem_type for value in edges}
    for value in values:
        if value.type.tensor_type.elem_type in _LOW and not any(value is edge for edge in edges):
            value.type.tensor_type.elem_type = TensorProto.FLOAT
    inner = {name: fresh(f"{name}_float", taken) for name, kind in border.items() if kind in _LOW}
    detach(model, inner, "Cast", {name: (border[name], TensorProto.FLOAT) for name in inner})


def _make_way(model: onnx.ModelProto) -> None:
    """Rename tensors that are called as ONNX Runtime's quantizer calls those that it makes; it would mix them up."""
    taken = names(model)
    fixed = {value.name for value in (*model.graph.input, *model.graph.output)}
    inner: dict[str, str] = {}
    outer: dict[str, str] = {}
    for name in sorted(taken & (defined(model.graph) | fixed)):
        stems = [name[: found.start()] for found in _MADE.finditer(name)]
        for stem in (stem for stem in stems if stem in taken):
            if name not in fixed:
                inner[name] = fresh(f"{_MADE.sub('', name)}.own", taken)
            elif stem not in fixed:
                inner[stem] = fresh(f"{stem}.own", taken)
            else:
                outer[stem] = fresh(f"{stem}.own", taken)
    if inner:
        rename(model, inner)
    for body in list(graphs(model.graph))[1:]:
        own = sorted(name for name in defined(body) if any(name[: m.start()] in taken for m in _MADE.finditer(name)))
        if own:
            rename_own(body, {name: fresh(f"{_MADE.sub('', name)}.own", taken) for name in own})
    if outer:
        detach(model, outer, "Identity", {})


def _tensors(model: onnx.ModelProto) -> list[TensorProto]:
    """Every constant of every graph: initializers and those within attributes."""
    found = []
    for graph in graphs(model.graph):
        found += graph.initializer
        for node in graph.node:
            for attribute in node.attribute:
                found += [attribute.t, *attribute.tensors] if attribute.HasField("t") else attribute.tensors
    return found
