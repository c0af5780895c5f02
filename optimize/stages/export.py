"""Export: a torch module to one ONNX file through the dynamo exporter, batch axis symbolic, weights inside."""

import contextlib
import functools
import io
import logging
import warnings
from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
import onnx
import torch

from ..artifact import Artifact, TensorSpec
from ..errors import StageError
from ..recipe import Source
from ..sessions.on_torch import by_keyword, open_module, outputs_of
from .configs import ExportConfig
from .stage import Context, Made

FILE = "model.onnx"
_PROTOBUF_LIMIT = 2**31 - 1
_EXAMPLE = 2  # a batch of one would be specialised to a constant by the exporter


def run(config: ExportConfig, parent: Artifact, context: Context) -> Made:
    """Make ``model.onnx``.

    Raises:
        StageError: the exporter refused, or an axis that must be symbolic came out constant.
    """
    module = open_module(parent, context.store)
    size = sum(tensor.numel() * tensor.element_size() for tensor in module.state_dict().values())
    if size > _PROTOBUF_LIMIT:
        raise StageError(
            f"{size / 2**30:.1f} GiB of weights do not fit one ONNX file", next_step="quantize or split the model"
        )
    context.progress(0.1, "tracing")
    model, inputs, outputs = to_onnx(module, parent, context.source, config.opset)
    onnx.save_model(model, str(context.folder / FILE), save_as_external_data=False)
    return Made(
        format="onnx",
        files=(FILE,),
        inputs=inputs,
        outputs=outputs,
        notes={"opset": config.opset, "nodes": len(model.graph.node)},
    )


def to_onnx(
    module: torch.nn.Module, parent: Artifact, source: Source, opset: int
) -> tuple[onnx.ModelProto, tuple[TensorSpec, ...], tuple[TensorSpec, ...]]:
    """A module with the parent's inputs and outputs as a checked graph, and the graph's own inputs and outputs.

    Raises:
        StageError: the exporter refused, or an axis that must be symbolic came out constant.
    """
    model = _export(opset, parent, module, source.dynamic)
    _clean(model)
    onnx.checker.check_model(model, full_check=True)
    inputs, outputs = _specs(model.graph.input), _specs(model.graph.output)
    _check_symbolic(inputs, outputs, source)
    return model, inputs, outputs


def example(parent: Artifact, rows: int = _EXAMPLE, dynamic: int = 8) -> dict[str, torch.Tensor]:
    """Tensors of the parent's input shapes; symbolic axes after the first get `dynamic` elements."""
    tensors = {}
    for spec in parent.inputs:
        shape = [rows if axis == 0 else dim if isinstance(dim, int) else dynamic for axis, dim in enumerate(spec.shape)]
        kind = np.dtype(spec.dtype)
        array = (
            np.ones(shape, kind)
            if kind.kind in "iub"
            else np.linspace(0, 1, int(np.prod(shape)), dtype=kind).reshape(shape)
        )
        tensors[spec.name] = torch.from_numpy(array)
    return tensors


def _export(
    opset: int, parent: Artifact, module: torch.nn.Module, dynamic: Mapping[str, Mapping[str, str]]
) -> onnx.ModelProto:
    tensors = example(parent)
    names = {"batch", *(name for axes in dynamic.values() for name in axes.values())}
    dims = {name: torch.export.Dim(name) for name in sorted(names)}
    shapes = {
        name: {0: dims["batch"]} | {int(axis): dims[text] for axis, text in dynamic.get(name, {}).items()}
        for name in tensors
    }
    keyword = by_keyword(module, tensors)
    _return_named(module, tuple(spec.name for spec in parent.outputs))
    try:
        with _quiet():
            program = torch.onnx.export(
                module,
                () if keyword else tuple(tensors.values()),
                kwargs=tensors if keyword else None,
                dynamic_shapes=shapes if keyword else tuple(shapes.values()),
                input_names=list(tensors),
                output_names=[spec.name for spec in parent.outputs],
                opset_version=opset,
                dynamo=True,
                external_data=False,
                verbose=False,
            )
    except torch.onnx.errors.OnnxExporterError as error:
        cause = error.__cause__ or error
        reason = next((line for line in str(cause).splitlines() if line.strip()), type(cause).__name__)
        raise StageError(f"the exporter refused the module: {reason}", next_step="mend the module's forward") from error
    if program is None:
        raise StageError("the exporter returned nothing", next_step="use another opset")
    return program.model_proto


def _return_named(module: torch.nn.Module, names: tuple[str, ...]) -> None:
    """Let a module that returns a record (a mapping, an object) return the named outputs as a tuple."""
    forward = module.forward

    @functools.wraps(forward)
    def named(*arguments: Any, **keywords: Any) -> Any:
        result = forward(*arguments, **keywords)
        return result if isinstance(result, torch.Tensor | tuple | list) else (*outputs_of(result, names).values(),)

    module.forward = named


def _clean(model: onnx.ModelProto) -> None:
    """Drop stack traces and file names: they are not the model, differ between machines and tell where it was built."""
    for graph in [model.graph, *model.functions]:
        for node in graph.node:
            node.doc_string = ""
            del node.metadata_props[:]
        for value in [*getattr(graph, "value_info", []), *getattr(graph, "initializer", [])]:
            value.doc_string = ""
            del value.metadata_props[:]
        del graph.metadata_props[:]
    for value in [*model.graph.input, *model.graph.output]:
        del value.metadata_props[:]
    del model.metadata_props[:]
    model.doc_string = ""


def _specs(values: Any) -> tuple[TensorSpec, ...]:
    specs = []
    for value in values:
        kind = value.type.tensor_type
        shape = tuple(dim.dim_param or int(dim.dim_value) for dim in kind.shape.dim)
        dtype = str(onnx.helper.tensor_dtype_to_np_dtype(kind.elem_type))
        specs.append(TensorSpec(name=value.name, dtype=dtype, shape=shape))
    return tuple(specs)


def _check_symbolic(inputs: tuple[TensorSpec, ...], outputs: tuple[TensorSpec, ...], source: Source) -> None:
    wanted = {(spec.name, 0) for spec in (*inputs, *outputs) if spec.shape}
    wanted |= {(name, int(axis)) for name, axes in source.dynamic.items() for axis in axes}
    for spec in (*inputs, *outputs):
        for axis, dim in enumerate(spec.shape):
            if (spec.name, axis) in wanted and isinstance(dim, int):
                raise StageError(
                    f"axis {axis} of {spec.name!r} came out as the constant {dim}",
                    where="export",
                    next_step="remove shape-dependent Python code from the module's forward",
                )


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """The exporter prints progress and warns of its own deprecations; neither is for our user."""
    logger = logging.getLogger("torch.onnx")
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings(), contextlib.redirect_stdout(io.StringIO()):
            warnings.simplefilter("ignore")
            yield
    finally:
        logger.setLevel(level)
