"""ONNX Runtime's graphs as plain values: the one a provider really runs, and a file as it is written, tensor by tensor.

Shape inference stops at ONNX Runtime's own operators, so a graph is run once with every tensor exposed and measured.
Judges nothing; `coverage` and `divergence` do.
"""

import platform
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime as ort

from .. import scratch
from ..artifact import TensorSpec
from ..errors import StageError
from ..graphs.execution_graph import Graph, Operation, Tensor, in_order
from ..graphs.on_onnx import captured
from ..samples import Array
from .device import HOST, Device
from .engine import Provider
from .on_ort import spec_of
from .on_ort_opening import inference_session
from .on_ort_providers import CPU, hold, names_of, refusal
from .rows import first_run, in_runs

_TYPES = {"float": "float32", "double": "float64"}
_CPU = (CPU,)
_BESIDE = "session.model_external_initializers_file_folder_path"
_APART = "session.optimized_model_external_initializers_"
_PADDING = ["NchwcTransformer"]
_NARROW = {
    onnx.TensorProto.BFLOAT16: "bfloat16",
    onnx.TensorProto.FLOAT8E4M3FN: "float8e4m3fn",
    onnx.TensorProto.FLOAT8E5M2: "float8e5m2",
    onnx.TensorProto.INT4: "int4",
    onnx.TensorProto.UINT4: "uint4",
}
_FP8 = (onnx.TensorProto.FLOAT8E4M3FN, onnx.TensorProto.FLOAT8E5M2)
_ELEMENTS = {name.lower(): number for name, number in onnx.TensorProto.DataType.items()}


def executed(
    path: Path, inputs: Mapping[str, Array], *, providers: Sequence[Provider] = _CPU, device: Device = HOST
) -> Graph:
    """The graph that the first provider runs for this file, with the shapes of one run on `inputs`.

    Its blocked layout of float convolutions is left out: it pads channels to 8 or 16, which are not the model's work.

    Raises:
        StageError: ONNX Runtime cannot open the model, or cannot run it on the inputs.
        MachineError: it opened the model with another provider.
    """
    with scratch.folder("seatrial-graph", Path(tempfile.gettempdir())) as folder:
        optimized = folder / "optimized.onnx"
        options = _options()
        options.optimized_model_filepath = str(optimized)
        if _has_weights_apart(path):  # they may be more than one file holds
            options.add_session_config_entry(f"{_APART}file_name", "optimized.data")
            options.add_session_config_entry(f"{_APART}min_size_in_bytes", "1024")
        try:
            session = ort.InferenceSession(
                str(path), options, providers=list(providers), disabled_optimizers=_PADDING, enable_fallback=0
            )
        except Exception as error:  # ONNX Runtime's exceptions share no base below Exception
            raise refusal(names_of(providers)[0], device) or _refused(error, path) from error
        hold(session, providers, device)
        return Exposed(optimized, providers=providers, device=device, written=False).graph(inputs)


class Exposed:
    """An ONNX file as it is written, unoptimized, every tensor of which can be read; a session too.

    Where a provider has no fp16 kernel, ONNX Runtime computes in float32 between casts and drops a cast that the next
    one undoes, so that nothing overflows that would on a GPU. Here such casts are kept apart (`_rounded`). `written`
    is False for a file that an engine has written, fusions and all.
    """

    def __init__(
        self, path: Path, *, providers: Sequence[Provider] = _CPU, device: Device = HOST, written: bool = True
    ) -> None:
        self._path, self._written = path, written
        options = _options()
        options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_DISABLE_ALL
        try:
            self._model = onnx.load(str(path), load_external_data=False)
            options.add_session_config_entry(_BESIDE, str(path.absolute().parent))
            self.outputs = tuple(value.name for value in self._model.graph.output)
            inner = {name for node in self._model.graph.node for name in node.output if name} - set(self.outputs)
            self._model.graph.output.extend([onnx.ValueInfoProto(name=name) for name in sorted(inner)])
            data = _rounded(self._model).SerializeToString()
            self._session = inference_session(data, options, providers)
        except Exception as error:  # neither ONNX Runtime's nor protobuf's exceptions share a base
            raise refusal(names_of(providers)[0], device) or _refused(error, path) from error
        hold(self._session, providers, device)
        self._inputs = tuple(spec_of(value) for value in self._session.get_inputs())
        self._engine = f"ONNX Runtime's {names_of(providers)[0]}"

    def graph(self, inputs: Mapping[str, Array]) -> Graph:
        """Every operation, with types and shapes of one run on `inputs`.

        Raises:
            StageError: ONNX Runtime cannot run the model on the inputs.
        """
        inputs = first_run(self._inputs, inputs)
        values = self._run(None, inputs)
        found = _constants(self._model)
        found |= {name: Tensor(dtype=str(array.dtype), shape=array.shape) for name, array in inputs.items()}
        for output, value in zip(self._session.get_outputs(), values, strict=True):
            if value.is_tensor():
                text = value.data_type().removeprefix("tensor(").removesuffix(")")
                found[output.name] = Tensor(dtype=_TYPES.get(text, text), shape=tuple(value.shape()))
        operations = in_order([_operation(node) for node in self._model.graph.node])
        machine = platform.machine()
        return Graph(operations=operations, tensors=found, engine=self._engine, machine=machine, written=self._written)

    def run(self, inputs: Mapping[str, Array]) -> dict[str, Array]:
        """The model's outputs."""
        return self.read(self.outputs, inputs)

    def read(self, names: Sequence[str], inputs: Mapping[str, Array]) -> dict[str, Array]:
        """The named tensors of one run.

        Raises:
            StageError: ONNX Runtime cannot run the model on the inputs.
        """

        def run(arrays: Mapping[str, Array]) -> dict[str, Array]:
            values = self._run(list(names), arrays)
            return {name: value.numpy() for name, value in zip(names, values, strict=True)}

        return dict(in_runs(self._inputs, inputs, run))

    def _run(self, names: list[str] | None, inputs: Mapping[str, Array]) -> list[Any]:
        try:
            return list(
                self._session.run_with_ort_values(
                    names, {name: ort.OrtValue.ortvalue_from_numpy(array) for name, array in inputs.items()}
                )
            )
        except Exception as error:  # see above
            raise _refused(error, self._path) from error


def holds_fp8(path: Path) -> bool:
    """Return whether a file has constants or Q/DQ in float8, which kernels of the CPU compute in float."""
    graph = onnx.load(str(path), load_external_data=False).graph
    return any(tensor.data_type in _FP8 for tensor in graph.initializer)


def element_types(model: onnx.ModelProto) -> dict[str, int]:
    """Element types of the tensors that the outer graph makes, as ONNX Runtime finds them on opening the model.

    It knows its own operators and local functions, where ONNX's inference stops. What is no tensor is left out.

    Raises:
        StageError: ONNX Runtime cannot open the model.
    """
    shown = onnx.ModelProto()
    shown.CopyFrom(model)
    known = {value.name for value in shown.graph.output}
    made = dict.fromkeys(name for node in shown.graph.node for name in node.output if name and name not in known)
    shown.graph.output.extend(onnx.ValueInfoProto(name=name) for name in made)
    options = _options()
    options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_DISABLE_ALL
    try:
        session = ort.InferenceSession(shown.SerializeToString(), options, providers=list(_CPU))
    except Exception as error:  # neither ONNX Runtime's nor protobuf's exceptions share a base
        raise _refused(error, Path(model.graph.name or "the graph")) from error
    found = {}
    for value in (*session.get_inputs(), *session.get_outputs()):
        text = value.type.removeprefix("tensor(").removesuffix(")")
        if value.type.startswith("tensor(") and text in _ELEMENTS:
            found[value.name] = _ELEMENTS[text]
    return found


def example_inputs(specs: Sequence[TensorSpec], *, length: int = 8) -> dict[str, Array]:
    """One row per input, other symbolic axes `length` long: integers are 1, floats rise from 0 to 1.

    A fixed first axis is what it is, and where the first axes differ there is no batch.
    """
    made: dict[str, Array] = {}
    for spec in specs:
        row = 1 if spec.shape[:1] == specs[0].shape[:1] else length
        shape = [dim if isinstance(dim, int) else length if axis else row for axis, dim in enumerate(spec.shape)]
        kind = np.dtype(spec.dtype)
        count = int(np.prod(shape))
        made[spec.name] = (
            np.linspace(0, 1, count).astype(kind).reshape(shape) if kind.kind == "f" else np.ones(shape, kind)
        )
    return made


def _rounded(model: onnx.ModelProto) -> onnx.ModelProto:
    """The model with an Identity after everything that gives fp16: two casts with it between are not one."""
    inferred = onnx.shape_inference.infer_shapes(model).graph.value_info
    halves = {value.name for value in inferred if value.type.tensor_type.elem_type == onnx.TensorProto.FLOAT16}
    if not halves:
        return model
    made = onnx.ModelProto()
    made.CopyFrom(model)
    del made.graph.node[:]
    for original in model.graph.node:
        node = made.graph.node.add()
        node.CopyFrom(original)
        for index, name in enumerate(original.output):
            if name in halves:
                node.output[index] = f"{name}_computed"
                made.graph.node.append(onnx.helper.make_node("Identity", [f"{name}_computed"], [name]))
    return made


def _has_weights_apart(path: Path) -> bool:
    graph = onnx.load(str(path), load_external_data=False).graph
    return any(tensor.data_location == onnx.TensorProto.EXTERNAL for tensor in graph.initializer)


def _options() -> Any:
    options = ort.SessionOptions()
    options.intra_op_num_threads = 1
    options.log_severity_level = 4  # failures are raised; other log lines are not for users
    return options


def _refused(error: Exception, path: Path) -> StageError:
    return StageError(
        f"ONNX Runtime cannot show what it runs: {str(error).strip().splitlines()[0][:300]}",
        where=str(path),
        next_step="check that the model runs on this provider",
    )


def _constants(model: onnx.ModelProto) -> dict[str, Tensor]:
    return {
        item.name: Tensor(
            dtype=_NARROW.get(item.data_type) or str(onnx.helper.tensor_dtype_to_np_dtype(item.data_type)),
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
        inputs=(*node.input, *captured(node)),
        outputs=tuple(node.output),
        attributes={key: value.decode() if isinstance(value, bytes) else value for key, value in attributes.items()},
    )
