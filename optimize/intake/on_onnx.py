"""ONNX: intake of a finished file as a source: refuses files that cannot run, repairs those of old exporters.

The graph is read without its weights, so size does not matter; a file that needs no change is copied byte by byte.
"""

import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, Any

import numpy as np
import onnx
from onnx import TensorProto

from ..artifact import TensorSpec
from ..errors import MissingError, SeatrialError, SourceError
from ..samples import Array
from ..tensorrt.on_onnx import quantized
from . import axes
from .on_rows import refuse_dependence

if TYPE_CHECKING:
    from ..sessions.on_ort import OrtSession

FILE = "model.onnx"
_STRING = TensorProto.STRING
_LARGEST = 2**31 - 1  # bytes of a protobuf, in which a stage keeps graph and weights together
_NOT_IN_NUMPY = tuple(
    value
    for name, value in TensorProto.DataType.items()
    if name.startswith(("BFLOAT", "FLOAT8", "FLOAT4", "INT4", "UINT4", "INT2", "UINT2", "COMPLEX"))
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Taken:
    """An ONNX file as it was taken in: its files, its tensors as runs show them, and what was changed in it."""

    files: tuple[str, ...]
    tensors: axes.Tensors
    changes: tuple[str, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Written:
    """A model in a folder: the graph without its weights, the names of its files, and what was changed."""

    model: onnx.ModelProto
    files: tuple[str, ...]
    changes: tuple[str, ...]


def read(path: Path) -> onnx.ModelProto:
    """Return the model at `path` without its external weights.

    Raises:
        MissingError, SourceError: no such file, or not ONNX.
    """
    if not path.is_file():
        raise MissingError("no such file", where=str(path), next_step="check the path")
    try:
        model = onnx.load(str(path), load_external_data=False)
    except Exception as error:  # protobuf's errors share no base with onnx's
        raise SourceError("not an ONNX file", where=str(path), next_step="give a model that onnx can read") from error
    if not model.graph.node or not model.graph.output:
        raise SourceError(
            "the ONNX file has no graph and computes nothing", where=str(path), next_step="export the model again"
        )
    return model


def external(model: onnx.ModelProto, path: Path) -> tuple[str, ...]:
    """Return the files beside `path` that hold weights, as the graph names them.

    Raises:
        SourceError: one lies outside the model's folder.
        MissingError: one is not there.
    """
    found: dict[str, None] = {}
    for tensor in _tensors(model.graph):
        place = next((entry.value for entry in tensor.external_data if entry.key == "location"), "")
        if tensor.data_location != TensorProto.EXTERNAL or place in found:
            continue
        parts = PurePosixPath(place)
        if not place or parts.is_absolute() or ".." in parts.parts:
            raise SourceError(
                f"the weights {tensor.name!r} are outside the model's folder: {place!r}",
                where=str(path),
                next_step="save the model with its weights beside it",
            )
        if not (path.parent / place).is_file():
            raise MissingError(
                f"the weights file {place!r} is missing, which the graph names",
                where=str(path.parent / place),
                next_step="copy it there: exporters write it beside the model",
            )
        found[place] = None
    return tuple(found)


def prepared(model: onnx.ModelProto, path: Path, outputs: Sequence[str] = ()) -> tuple[str, ...]:
    """Put right what can be, keeping the numbers, and return what was changed; `outputs` (all if empty) are kept.

    Raises:
        SourceError: an input or output of a type that cannot be sent, compared or stored, or no such output.
    """
    changes = [*_inputs(model), *_without_maps(model), *_chosen(model, path, outputs)]
    for side, values in (("input", model.graph.input), ("output", model.graph.output)):
        for value in values:
            if reason := _refused(value):
                others = [each.name for each in model.graph.output if not _refused(each)]
                leave_out = side == "output" and others
                raise SourceError(
                    f"{side} {value.name!r} {reason}, which samples, parity and load do not support",
                    where=str(path),
                    next_step=f"leave it out: outputs = {_listed(others)} under [source]"
                    if leave_out
                    else "export the model without that step, so that it takes numbers",
                )
    return tuple(changes)


def written(
    path: Path, folder: Path, outputs: Sequence[str] = (), samples: Mapping[str, Array] | None = None
) -> Written:
    """Write the model at `path` and its weights into `folder`, put right as far as that needs no run.

    `samples`, [n, ...] by input, give their axes to inputs that declare none.

    Raises:
        MissingError, SourceError: as `read`, `external` and `prepared`.
    """
    model = read(path)
    weights = external(model, path)
    changes = [*prepared(model, path, outputs), *_ranks(model, samples or {})]
    target = folder / FILE
    for name in weights:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(path.parent / name, folder / name)
    _write(model, target) if changes else shutil.copyfile(path, target)
    return Written(model=model, files=(FILE, *weights), changes=tuple(changes))


def take_in(
    path: Path, folder: Path, samples: Mapping[str, Array], outputs: Sequence[str] = (), threads: int = 1
) -> Taken:
    """Write the model at `path` and its weights into `folder`, tried on `samples` [n, ...] at several sizes.

    Raises:
        MissingError, SourceError: as `written`, or the model refuses the samples.
    """
    made = written(path, folder, outputs, samples)
    tensors = tried(opened(folder / FILE, path, threads), made.model, samples, str(path))
    changes = [*made.changes, *(f"{each} runs at this size only" for each in tensors.fixed)]
    if declare(folder / FILE, tensors):
        changes.append("axes declared as observed in runs")
    return Taken(files=made.files, tensors=tensors, changes=tuple(changes))


def tried(session: "OrtSession", model: onnx.ModelProto, samples: Mapping[str, Array], where: str) -> axes.Tensors:
    """Return the tensors as runs show them, of a model whose samples do not depend on those beside them.

    Ranges that are taken of whatever is in a batch (dynamic quantization) do, by design.

    Raises:
        SourceError: the model refuses the samples, draws random numbers, or mixes rows.
    """
    tensors = axes.measured(session.inputs, session.run, samples, where)
    if not any(node.op_type == "DynamicQuantizeLinear" for node in _nodes(model.graph)):
        try:
            refuse_dependence(session, samples, where)
        except SourceError as error:
            if tensors.batches:
                error.next_step = "give whole tensors, one for each sample: every array with one axis more"
            raise
    return tensors


def opened(target: Path, path: Path, threads: int = 1) -> "OrtSession":
    """Open what was written of the model at `path`.

    Raises:
        SourceError: ONNX Runtime cannot.
    """
    from ..sessions.on_ort import OrtSession

    try:
        return OrtSession(target, threads=threads)
    except SeatrialError as error:
        raise SourceError(error.what, where=str(path), next_step="check the file with onnx.checker") from error


def declare(path: Path, tensors: axes.Tensors) -> bool:
    """Declare a file's inputs and outputs with these axes; return whether any size or rank there was another."""
    model = onnx.load(str(path), load_external_data=False)
    changed = _declared(model, (*tensors.inputs, *tensors.outputs))
    if changed:
        for value in model.graph.value_info:  # what misled the declaration stands there too; types stay
            value.type.tensor_type.ClearField("shape")
        _write(model, path)
    return changed


def _declared(model: onnx.ModelProto, tensors: Sequence[TensorSpec]) -> bool:
    changed = False
    specs = {spec.name: spec for spec in tensors}
    for value in (*model.graph.input, *model.graph.output):
        spec = specs.get(value.name)
        if spec is None or not value.type.HasField("tensor_type"):
            continue
        kind = value.type.tensor_type
        before = tuple(_size(dim) for dim in kind.shape.dim) if kind.HasField("shape") else None
        if before == tuple(size if isinstance(size, int) else None for size in spec.shape):
            continue
        changed = True
        del kind.shape.dim[:]
        for size in spec.shape:
            if isinstance(size, int):
                kind.shape.dim.add(dim_value=size)
            else:
                kind.shape.dim.add(dim_param=size)
        if not spec.shape:
            kind.shape.SetInParent()
        kind.elem_type = kind.elem_type or onnx.helper.np_dtype_to_tensor_dtype(np.dtype(spec.dtype))
    return changed


def kept_outputs(model: onnx.ModelProto) -> tuple[str, ...]:
    """Return the outputs that can be served where some cannot, else nothing; ZipMap's maps can."""
    maps = {node.output[0] for node in model.graph.node if node.op_type == "ZipMap"}
    kept = tuple(value.name for value in model.graph.output if value.name in maps or not _refused(value))
    return kept if len(kept) < len(model.graph.output) else ()


def as_it_is(model: onnx.ModelProto, path: Path) -> str:
    """Return why no stage should change a file, or an empty string."""
    if found := quantized(model):
        return f"it is already quantized (it has {', '.join(found)})"
    weights = sum((path.parent / name).stat().st_size for name in external(model, path))
    return f"its weights have {weights / 2**30:.1f} GiB, a stage can write at most 2" if weights > _LARGEST else ""


def _write(model: onnx.ModelProto, target: Path) -> None:
    target.write_bytes(model.SerializeToString(deterministic=True))


def _inputs(model: onnx.ModelProto) -> list[str]:
    """Take constants out of the inputs, and give every negative size a name."""
    changes = []
    held = {tensor.name for tensor in model.graph.initializer}
    kept = [value for value in model.graph.input if value.name not in held]
    if len(kept) < len(model.graph.input):
        changes.append(f"{len(model.graph.input) - len(kept)} constants removed from the inputs")
        del model.graph.input[:]
        model.graph.input.extend(kept)
        model.ir_version = max(model.ir_version, 4)  # before, every constant had to be an input
    for value in (*model.graph.input, *model.graph.output):
        for axis, dim in enumerate(value.type.tensor_type.shape.dim):
            if dim.HasField("dim_value") and dim.dim_value < 0:
                changes.append(f"axis {axis} of {value.name} is free, not {dim.dim_value}")
                dim.dim_param = f"{value.name}.{axis}"
    return changes


def _without_maps(model: onnx.ModelProto) -> list[str]:
    """Let every output that ZipMap makes a list of maps be the tensor that ZipMap reads."""
    changes = []
    outputs = {value.name: value for value in model.graph.output}
    maps = [node for node in model.graph.node if node.op_type == "ZipMap" and node.output[0] in outputs]
    if maps and not any(entry.domain in ("", "ai.onnx") for entry in model.opset_import):
        model.opset_import.add(domain="", version=13)
    for node in maps:
        value = outputs[node.output[0]]
        value.type.Clear()
        value.type.tensor_type.elem_type = TensorProto.FLOAT
        node.op_type, node.domain = "Identity", ""
        del node.attribute[:]
        changes.append(f"output {value.name} is ZipMap's input tensor instead of its maps")
    return changes


def _chosen(model: onnx.ModelProto, path: Path, outputs: Sequence[str]) -> list[str]:
    named = {value.name: value for value in model.graph.output}
    if missing := [name for name in outputs if name not in named]:
        raise SourceError(
            f"no output {missing[0]!r}",
            where=str(path),
            next_step=f"name in source.outputs only {_listed(list(named))}",
        )
    kept = list(outputs or named)
    if kept == list(named):
        return []
    del model.graph.output[:]
    model.graph.output.extend(named[name] for name in kept)
    return [f"outputs left out: {_listed([name for name in named if name not in kept])}"]


def _refused(value: Any) -> str:
    if not value.type.HasField("tensor_type"):
        return f"is a {value.type.WhichOneof('value') or 'value of no type'}".replace("_type", "")
    kind = value.type.tensor_type.elem_type
    if kind == _STRING:
        return "holds strings"
    return f"holds {TensorProto.DataType.Name(kind).lower()}" if kind in _NOT_IN_NUMPY else ""


def _ranks(model: onnx.ModelProto, samples: Mapping[str, Array]) -> list[str]:
    """Give inputs without a shape the axes that the samples have, all free."""
    changes = []
    for value in model.graph.input:
        kind = value.type.tensor_type
        if not kind.HasField("shape") and value.name in samples:
            for axis in range(samples[value.name].ndim):
                kind.shape.dim.add(dim_param=f"{value.name}.{axis}")
            changes.append(f"input {value.name} takes its axes from the samples, the file declared none")
    return changes


def _size(dim: Any) -> int | None:
    return int(dim.dim_value) if dim.HasField("dim_value") else None


def _graphs(graph: Any) -> list[Any]:
    inner = [each for node in graph.node for attribute in node.attribute for each in (attribute.g, *attribute.graphs)]
    return [graph, *(each for one in inner if one.node or one.initializer for each in _graphs(one))]


def _nodes(graph: Any) -> list[Any]:
    return [node for each in _graphs(graph) for node in each.node]


def _tensors(graph: Any) -> list[Any]:
    """Every constant, of subgraphs and of attributes too."""
    found = [tensor for each in _graphs(graph) for tensor in each.initializer]
    attributes = [attribute for node in _nodes(graph) for attribute in node.attribute]
    return found + [tensor for each in attributes for tensor in (each.t, *each.tensors)]


def _listed(names: Sequence[str]) -> str:
    return "[" + ", ".join(f'"{name}"' for name in names) + "]"
