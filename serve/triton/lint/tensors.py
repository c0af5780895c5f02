"""Rules of inputs and outputs in a configuration: names, types, shapes, the batch axis, ragged batches."""

from collections import Counter
from collections.abc import Iterator
from math import prod
from typing import Any

from ...deployment import Broken


def broken_rules(config: Any) -> Iterator[Broken]:
    """Every rule that the tensors break."""
    batching = config.max_batch_size > 0
    for side in ("input", "output"):
        tensors = getattr(config, side)
        if not tensors:
            yield Broken(
                field=side,
                rule="none given: the server opens the model only to ask, and refuses it where it may not guess",
                mend="write every one with name, data_type and dims",
                severity="error" if config.HasField("ensemble_scheduling") else "warning",
            )
        for name, count in Counter(tensor.name for tensor in tensors).items():
            if count > 1:
                yield Broken(field=f"{side}.{name}", rule="stands twice; Triton says nothing", mend="write it once")
        for tensor in tensors:
            yield from _tensor(f"{side}.{tensor.name}", tensor, config)
    for tensor in config.input:
        yield from _input(f"input.{tensor.name}", tensor, config)
    yield from _batch_inputs(config)
    everything = [*config.input, *config.output]
    if batching and everything and all(len(each.dims) > 1 and each.dims[0] == -1 for each in everything):
        yield Broken(
            field="max_batch_size",
            rule="dims are without the batch axis where max_batch_size is above 0, yet all of them begin with -1",
            mend="drop that -1, or write max_batch_size: 0 for a model that does not batch",
            severity="warning",
        )


def _tensor(field: str, tensor: Any, config: Any) -> Iterator[Broken]:
    from tritonclient.grpc import model_config_pb2 as pb

    if not tensor.name:
        yield Broken(field=field, rule="has no name; Triton refuses the model", mend="name it as the model does")
    if tensor.data_type == pb.TYPE_INVALID:
        yield Broken(
            field=f"{field}.data_type", rule="none given; Triton refuses the model", mend="write TYPE_FP32 or another"
        )
    if not tensor.dims:
        yield Broken(
            field=f"{field}.dims",
            rule="empty; Triton refuses the model",
            mend="a number per item is dims: [ 1 ] with reshape { shape: [ ] }, where the model batches",
        )
    if any(size < 1 and size != -1 for size in tensor.dims):
        yield Broken(
            field=f"{field}.dims",
            rule=f"{list(tensor.dims)} holds a size that is neither -1 nor at least 1",
            mend="write -1 for an axis of any length",
        )
    if tensor.HasField("reshape"):
        yield from _reshape(field, tensor, config.max_batch_size)
    if tensor.is_shape_tensor and config.platform != "tensorrt_plan":
        yield Broken(field=f"{field}.is_shape_tensor", rule="only TensorRT has shape tensors; refused", mend="drop it")
    if tensor.is_non_linear_format_io and len(tensor.dims) != 3:
        yield Broken(
            field=f"{field}.dims", rule="a non-linear format needs exactly 3 dims", mend="write them, or drop the flag"
        )


def _reshape(field: str, tensor: Any, max_batch_size: int) -> Iterator[Broken]:
    outside, inside = list(tensor.dims), list(tensor.reshape.shape)
    if not inside and max_batch_size == 0:
        yield Broken(
            field=f"{field}.reshape",
            rule="a shape without axes is legal only where the model batches",
            mend="let the model take an axis of 1",
        )
    fixed = all(size > 0 for size in outside + inside)
    if fixed and prod(outside) != prod(inside):
        yield Broken(
            field=f"{field}.reshape",
            rule=f"{outside} cannot become {inside}: {prod(outside)} elements and {prod(inside)}; refused",
            mend="keep the number of elements",
        )


def _input(field: str, tensor: Any, config: Any) -> Iterator[Broken]:
    from tritonclient.grpc import model_config_pb2 as pb

    if tensor.format != pb.ModelInput.FORMAT_NONE and len(tensor.dims) != 3:
        yield Broken(field=f"{field}.format", rule="an image format needs exactly 3 dims; refused", mend="drop it")
    batches = config.max_batch_size > 1 and config.HasField("dynamic_batching")
    if batches and -1 in tensor.dims and not tensor.allow_ragged_batch:
        yield Broken(
            field=f"{field}.dims",
            rule=f"{list(tensor.dims)} may vary, and the batcher joins only requests of one shape: it closes the batch "
            "at the first other one",
            mend="pad to a few lengths at the client, or use ragged batches where the backend has them",
            severity="warning",
        )
    onnx = "onnxruntime" in (config.backend, config.platform.removesuffix("_onnx"))
    if tensor.optional and onnx and config.max_batch_size > 0:
        yield Broken(
            field=f"{field}.optional", rule="ONNX Runtime refuses optional inputs when batching", mend="drop it"
        )
    if tensor.allow_ragged_batch and onnx and list(tensor.dims) != [-1]:
        yield Broken(
            field=f"{field}.allow_ragged_batch",
            rule=f"ONNX Runtime takes ragged batches only for a model input of shape [-1], not {list(tensor.dims)}",
            mend="let the model take one flat axis",
        )


def _batch_inputs(config: Any) -> Iterator[Broken]:
    from tritonclient.grpc import model_config_pb2 as pb

    names = {tensor.name for tensor in config.input}
    for each in config.batch_input:
        if len(each.source_input) != 1 or set(each.source_input) - names:
            yield Broken(
                field="batch_input.source_input",
                rule=f"{list(each.source_input)} is not exactly one of the inputs",
                mend=f"name one of {', '.join(sorted(names))}",
            )
        if each.data_type not in (pb.TYPE_INT32, pb.TYPE_FP32):
            yield Broken(field="batch_input.data_type", rule="only TYPE_INT32 and TYPE_FP32 exist", mend="use one")
