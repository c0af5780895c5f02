"""Export: a torch module to one ONNX file through the dynamo exporter, batch axis symbolic, weights inside."""

import contextlib
import inspect
import io
import logging
import warnings
from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
import onnx
import torch
from torch.nn.attention import SDPBackend, sdpa_kernel

from ..artifact import Artifact, TensorSpec
from ..errors import StageError
from ..recipe.configs import ExportConfig
from ..recipe.recipe import Source
from ..sessions.on_calls import invoke
from ..sessions.on_torch import open_module, outputs_of
from .dims import Bounds, bounded
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
    model = bounded(lambda bounds: _export(opset, parent, module, source.dynamic, bounds))
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
    opset: int, parent: Artifact, module: torch.nn.Module, dynamic: Mapping[str, Mapping[str, str]], bounds: Bounds
) -> onnx.ModelProto:
    tensors = example(parent)
    names = {"batch", *(name for axes in dynamic.values() for name in axes.values())}
    dims = {name: torch.export.Dim(name, **bounds.get(name, {})) for name in sorted(names)}
    shapes = {
        name: {0: dims["batch"]} | {int(axis): dims[text] for axis, text in dynamic.get(name, {}).items()}
        for name in tensors
    }
    outputs = tuple(spec.name for spec in parent.outputs)
    options: dict[str, Any] = {
        "dynamic_shapes": tuple(shapes.values()),
        "input_names": list(tensors),
        "output_names": list(outputs),
        "opset_version": opset,
        "dynamo": True,
        "external_data": False,
        "verbose": False,
    }
    try:
        with _quiet(), _plain(module, tuple(tensors), outputs):
            program = _traced(module, tuple(tensors.values()), options)
    except torch.onnx.errors.OnnxExporterError as error:
        cause = error.__cause__ or error
        reason = next((line for line in str(cause).splitlines() if line.strip()), type(cause).__name__)
        raise StageError(f"the exporter refused the module: {reason}", next_step="fix the module's forward") from error
    if program is None:
        raise StageError("the exporter returned nothing", next_step="use another opset")
    return program.model_proto


def _traced(
    module: torch.nn.Module, tensors: tuple[torch.Tensor, ...], options: Mapping[str, Any]
) -> torch.onnx.ONNXProgram | None:
    """Export, a second time with attention as plain products where the exporter refuses the fused kernel.

    The kernel returns other strides than the products that the exporter replaces it by, so that a reshape behind it,
    traced as a view, cannot be replayed.
    """
    try:
        return torch.onnx.export(module, tensors, **options)
    except torch.onnx.errors.OnnxExporterError as error:
        try:
            with sdpa_kernel(SDPBackend.MATH):
                return torch.onnx.export(module, tensors, **options)
        except torch.onnx.errors.OnnxExporterError:
            raise error from error.__cause__


@contextlib.contextmanager
def _plain(module: torch.nn.Module, inputs: tuple[str, ...], outputs: tuple[str, ...]) -> Iterator[None]:
    """Let a module take its inputs by position and return the named outputs alone, as a tuple.

    What else it returns is left out of the graph, and what lies in a record or a mapping becomes a tensor of its own.
    """
    own = module.forward

    def plain(*tensors: torch.Tensor) -> tuple[torch.Tensor, ...]:
        module.forward = own
        try:
            result = invoke(module, own, dict(zip(inputs, tensors, strict=True)))
        finally:
            module.forward = plain
        return tuple(outputs_of(result, outputs).values())

    kind = inspect.Parameter.POSITIONAL_OR_KEYWORD
    names = [name if name.isidentifier() else f"input_{number}" for number, name in enumerate(inputs)]
    plain.__signature__ = inspect.Signature([inspect.Parameter(name, kind) for name in names])  # type: ignore[attr-defined]
    module.forward = plain
    try:
        yield
    finally:
        module.forward = own


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
