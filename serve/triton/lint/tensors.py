"""Rules of inputs and outputs in a configuration: names, types, shapes, the batch axis, ragged batches."""

from collections import Counter
from collections.abc import Iterator
from math import prod
from typing import Any

from ...deployment import Broken
from .backends import backend_of, platform_of


def broken_rules(config: Any) -> Iterator[Broken]:
    """Every rule that the tensors break."""
    batching = config.max_batch_size > 0
    for side in ("input", "output"):
        tensors = getattr(config, side)
        if not tensors:
            yield Broken(
                field=side,
                rule=(
                    "not given: the server opens the model to find it, and refuses the model where guessing is disabled"
                ),
                fix="list every one with name, data_type and dims",
                severity="error" if config.HasField("ensemble_scheduling") else "warning",
            )
        for name, count in Counter(tensor.name for tensor in tensors).items():
            if count > 1:
                yield Broken(
                    field=f"{side}.{name}",
                    rule="listed twice; Triton does not warn",
                    fix="write it once",
                    effect="loads",
                )
        labelled = Counter(tensor.name for tensor in tensors if side == "output" and tensor.label_filename)
        for name in sorted(name for name, count in labelled.items() if count > 1):
            yield Broken(
                field=f"output.{name}.label_filename",
                rule="listed twice; Triton refuses the model",
                fix="write it once",
            )
        for tensor in tensors:
            yield from _tensor(f"{side}.{tensor.name}", tensor, config)
    for tensor in config.input:
        yield from _input(f"input.{tensor.name}", tensor, config)
    yield from _batch_io(config)
    everything = [*config.input, *config.output]
    if batching and everything and all(len(each.dims) > 1 and each.dims[0] == -1 for each in everything):
        yield Broken(
            field="max_batch_size",
            rule="with max_batch_size above 0 dims omit the batch axis, but all of them begin with -1",
            fix="remove that -1, or write max_batch_size: 0 for a model without batching",
            severity="warning",
        )


def _tensor(field: str, tensor: Any, config: Any) -> Iterator[Broken]:
    from tritonclient.grpc import model_config_pb2 as pb

    if not tensor.name:
        yield Broken(field=field, rule="has no name; Triton refuses the model", fix="use the name in the model")
    if tensor.data_type == pb.TYPE_INVALID:
        yield Broken(
            field=f"{field}.data_type", rule="not given; Triton refuses the model", fix="write TYPE_FP32 or another"
        )
    elif tensor.data_type not in pb.DataType.values():
        yield Broken(
            field=f"{field}.data_type",
            rule=f"unknown data type {tensor.data_type}; Triton does not warn",
            fix="write TYPE_FP32 or another",
            effect="loads",
        )
    if not tensor.dims:
        yield Broken(
            field=f"{field}.dims",
            rule="empty; Triton refuses the model",
            fix="for one number per item write dims: [ 1 ] with reshape { shape: [ ] }, if the model batches",
        )
    if any(size < 1 and size != -1 for size in tensor.dims):
        yield Broken(
            field=f"{field}.dims",
            rule=f"{list(tensor.dims)} has a size that is neither -1 nor at least 1",
            fix="write -1 for an axis of variable length",
        )
    if tensor.HasField("reshape"):
        yield from _reshape(field, tensor, config.max_batch_size)
    for_tensorrt = "tensorrt_plan" in (config.platform, platform_of(config))
    if tensor.is_shape_tensor and not for_tensorrt:
        yield Broken(
            field=f"{field}.is_shape_tensor",
            rule="only TensorRT has shape tensors; Triton refuses the model",
            fix="remove it",
        )
    if tensor.is_non_linear_format_io and not for_tensorrt:
        yield Broken(
            field=f"{field}.is_non_linear_format_io",
            rule="only TensorRT has non-linear formats; Triton refuses the model",
            fix="remove the flag",
        )
    elif tensor.is_non_linear_format_io and len(tensor.dims) != 3:
        yield Broken(
            field=f"{field}.dims",
            rule="a non-linear format needs exactly 3 dims",
            fix="give 3 dims, or remove the flag",
        )


def _reshape(field: str, tensor: Any, max_batch_size: int) -> Iterator[Broken]:
    outside, inside = list(tensor.dims), list(tensor.reshape.shape)
    if not inside and max_batch_size == 0:
        yield Broken(
            field=f"{field}.reshape",
            rule="a shape without axes is legal only if the model batches",
            fix="add an axis of 1 to the model",
        )
    if any(size < 1 and size != -1 for size in inside):
        yield Broken(
            field=f"{field}.reshape",
            rule=f"{inside} has a size that is neither -1 nor at least 1; Triton refuses the model",
            fix="write -1 for an axis of variable length",
        )
        return
    if _between_free_axes(outside) != _between_free_axes(inside):
        free = outside.count(-1), inside.count(-1)
        why = (
            f"{free[0]} variable axes and {free[1]}"
            if free[0] != free[1]
            else (
                f"{_between_free_axes(outside)} elements before, between and after the variable axes, and "
                f"{_between_free_axes(inside)}"
            )
            if free[0]
            else f"{prod(outside)} elements and {prod(inside)}"
        )
        yield Broken(
            field=f"{field}.reshape",
            rule=f"{outside} cannot become {inside}: {why}; Triton refuses the model",
            fix="keep the variable axes, and the number of elements on either side of each",
        )


def _between_free_axes(shape: list[int]) -> list[int]:
    """Numbers of elements before, between and after the axes of any length, which a reshape has to keep."""
    runs = [1]
    for size in shape:
        if size == -1:
            runs.append(1)
        else:
            runs[-1] *= size
    return runs


def _input(field: str, tensor: Any, config: Any) -> Iterator[Broken]:
    from tritonclient.grpc import model_config_pb2 as pb

    if tensor.format != pb.ModelInput.FORMAT_NONE and len(tensor.dims) != 3:
        yield Broken(
            field=f"{field}.format",
            rule="an image format needs exactly 3 dims; Triton refuses the model",
            fix="remove it",
        )
    batches = config.max_batch_size > 1 and config.HasField("dynamic_batching")
    if batches and -1 in tensor.dims and not tensor.allow_ragged_batch:
        yield Broken(
            field=f"{field}.dims",
            rule=(
                f"{list(tensor.dims)} may vary, and the batcher joins only requests of one shape: another "
                "shape closes the batch"
            ),
            fix="pad to a few lengths at the client, or use ragged batches if the backend supports them",
            severity="warning",
        )
    onnx = backend_of(config) == "onnxruntime"
    if tensor.optional and onnx and config.max_batch_size > 0:
        yield Broken(
            field=f"{field}.optional", rule="ONNX Runtime refuses optional inputs when batching", fix="remove it"
        )
    if tensor.allow_ragged_batch and onnx and list(tensor.dims) != [-1]:
        yield Broken(
            field=f"{field}.allow_ragged_batch",
            rule=f"ONNX Runtime supports ragged batches only for a model input of shape [-1], got {list(tensor.dims)}",
            fix="use one flat axis in the model",
        )


def _batch_io(config: Any) -> Iterator[Broken]:
    """Tensors that Triton makes of a whole batch, and outputs that it scatters over its requests."""
    from tritonclient.grpc import model_config_pb2 as pb

    inputs, outputs = {tensor.name for tensor in config.input}, {tensor.name for tensor in config.output}
    for side, kinds, parts in (
        ("batch_input", pb.BatchInput.Kind, config.batch_input),
        ("batch_output", pb.BatchOutput.Kind, config.batch_output),
    ):
        for each in parts:
            if each.kind not in kinds.values():
                yield Broken(
                    field=f"{side}.kind",
                    rule=f"unknown kind {each.kind}; Triton refuses the model",
                    fix=f"use {', '.join(kinds.keys())}",
                )
            if len(each.source_input) != 1 or set(each.source_input) - inputs:
                yield Broken(
                    field=f"{side}.source_input",
                    rule=f"{list(each.source_input)} must be exactly one of the inputs; Triton refuses the model",
                    fix=f"name one of {', '.join(sorted(inputs))}",
                )
    for each in config.batch_input:
        if each.data_type not in (pb.TYPE_INT32, pb.TYPE_FP32):
            yield Broken(
                field="batch_input.data_type",
                rule="only TYPE_INT32 and TYPE_FP32 are supported",
                fix="use one of them",
            )
    for each in config.batch_output:
        targets = list(each.target_name)
        if not targets:
            yield Broken(
                field="batch_output.target_name",
                rule="not given: it ends the whole server, with every other model",
                fix=f"name one of {', '.join(sorted(outputs))}",
                effect="ends",
            )
        if len(set(targets)) < len(targets) or set(targets) - outputs:
            yield Broken(
                field="batch_output.target_name",
                rule=f"{targets} names an output twice, or one that does not exist; Triton refuses the model",
                fix=f"name each once, from {', '.join(sorted(outputs))}",
            )
