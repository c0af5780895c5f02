"""ONNX Runtime's optimized graph: what a provider really runs, read back as plain values with measured shapes.

Shape inference stops at ONNX Runtime's own operators, so the optimized graph is run once with every tensor exposed.
Judges nothing; `coverage` does.
"""

import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import onnx
import onnxruntime as ort

from ..artifact import TensorSpec
from ..errors import StageError
from ..executed import Graph, Operation, Tensor
from ..samples import Array

_TYPES = {"float": "float32", "double": "float64"}


def executed(path: Path, inputs: Mapping[str, Array], *, providers: Sequence[str] = ("CPUExecutionProvider",)) -> Graph:
    """The graph that the provider runs for this file, with the shapes of one run on `inputs`.

    Raises:
        StageError: ONNX Runtime cannot open the model, or cannot run it on the inputs.
    """
    with tempfile.TemporaryDirectory() as folder:
        optimized = Path(folder) / "optimized.onnx"
        options = ort.SessionOptions()
        options.optimized_model_filepath = str(optimized)
        options.intra_op_num_threads = 1
        options.log_severity_level = 3  # it warns that the file is for this machine only; that is the point
        try:
            ort.InferenceSession(str(path), options, providers=list(providers))
            model = onnx.load(str(optimized))
            tensors = _constants(model) | _run(model, inputs, providers)
        except Exception as error:  # ONNX Runtime's exceptions share no base below Exception
            raise StageError(
                f"ONNX Runtime cannot show what it runs: {str(error).strip().splitlines()[0][:300]}",
                where=str(path),
                next_step="check that the model runs on this provider",
            ) from error
    return Graph(operations=tuple(_operation(node) for node in model.graph.node), tensors=tensors)


def example_inputs(specs: Sequence[TensorSpec], *, length: int = 8) -> dict[str, Array]:
    """One row per input, symbolic axes after the first `length` long: integers are 1, floats rise from 0 to 1."""
    made: dict[str, Array] = {}
    for spec in specs:
        shape = [1 if axis == 0 else dim if isinstance(dim, int) else length for axis, dim in enumerate(spec.shape)]
        kind = np.dtype(spec.dtype)
        count = int(np.prod(shape))
        made[spec.name] = (
            np.linspace(0, 1, count).astype(kind).reshape(shape) if kind.kind == "f" else np.ones(shape, kind)
        )
    return made


def _run(model: onnx.ModelProto, inputs: Mapping[str, Array], providers: Sequence[str]) -> dict[str, Tensor]:
    """Shapes and types of inputs and of everything computed, from one run of the graph as it stands."""
    kept = {value.name for value in model.graph.output}
    inner = {name for node in model.graph.node for name in node.output if name and name not in kept}
    exposed = onnx.ModelProto()
    exposed.CopyFrom(model)
    exposed.graph.output.extend([onnx.ValueInfoProto(name=name) for name in sorted(inner)])
    options = ort.SessionOptions()
    options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_DISABLE_ALL
    options.intra_op_num_threads = 1
    options.log_severity_level = 3
    session = ort.InferenceSession(exposed.SerializeToString(), options, providers=list(providers))
    values = session.run_with_ort_values(
        None, {name: ort.OrtValue.ortvalue_from_numpy(array) for name, array in inputs.items()}
    )
    found = {name: Tensor(dtype=str(array.dtype), shape=array.shape) for name, array in inputs.items()}
    for output, value in zip(session.get_outputs(), values, strict=True):
        if value.is_tensor():
            text = value.data_type().removeprefix("tensor(").removesuffix(")")
            found[output.name] = Tensor(dtype=_TYPES.get(text, text), shape=tuple(value.shape()))
    return found


def _constants(model: onnx.ModelProto) -> dict[str, Tensor]:
    return {
        item.name: Tensor(
            dtype="bfloat16"
            if item.data_type == onnx.TensorProto.BFLOAT16
            else str(onnx.helper.tensor_dtype_to_np_dtype(item.data_type)),
            shape=tuple(item.dims),
            constant=True,
        )
        for item in model.graph.initializer
    }


def _operation(node: onnx.NodeProto) -> Operation:
    plain = (onnx.AttributeProto.INT, onnx.AttributeProto.FLOAT, onnx.AttributeProto.STRING)
    attributes = {item.name: onnx.helper.get_attribute_value(item) for item in node.attribute if item.type in plain}
    return Operation(
        name=node.name,
        kind=node.op_type,
        inputs=tuple(node.input),
        outputs=tuple(node.output),
        attributes={key: value.decode() if isinstance(value, bytes) else value for key, value in attributes.items()},
    )
