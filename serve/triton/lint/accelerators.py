"""Rules of ONNX Runtime's execution accelerators: keys that are refused, overwritten, or missed in a live service."""

import re
from collections.abc import Iterator
from typing import Any

from ...deployment import Broken
from ...triton_releases import PRECISIONS_SINCE, knows
from .backends import backend_of

_BACKENDS = ("onnxruntime", "tensorflow", "tensorrt")
_TOP_LEVEL = ("cudnn_conv_algo_search", "gpu_mem_limit", "arena_extend_strategy", "do_copy_in_default_stream")
_PLAIN = (
    "precision_mode",
    "max_workspace_size_bytes",
    "int8_calibration_table_name",
    "int8_use_native_calibration_table",
)
_REFUSED = ("trt_fp16_enable", "trt_int8_enable", "trt_bf16_enable")
_LEVELS = frozenset("012345")
_SHAPES = re.compile(r"[^:,]+:\d+(x\d+)*(,[^:,]+:\d+(x\d+)*)*")
_FIELD = "optimization.execution_accelerators.gpu_execution_accelerator"


def broken_rules(config: Any, release: str) -> Iterator[Broken]:
    """Every rule that the accelerators break in that release of Triton."""
    from tritonclient.grpc import model_config_pb2 as pb

    accelerators = config.optimization.execution_accelerators
    if backend_of(config) not in _BACKENDS:
        if accelerators.ListFields():
            yield Broken(
                field="optimization.execution_accelerators",
                rule=f"the backend {backend_of(config) or 'of this model'} ignores accelerators",
                fix="remove them",
                severity="warning",
            )
        return
    for each in accelerators.cpu_execution_accelerator:
        if each.name in ("tensorrt", "cuda"):
            yield Broken(
                field="optimization.execution_accelerators.cpu_execution_accelerator",
                rule=f"{each.name} does not run on the CPU",
                fix="write gpu_execution_accelerator",
            )
    chosen = accelerators.gpu_execution_accelerator
    if not chosen:
        return
    if backend_of(config) == "tensorrt":
        yield Broken(
            field=_FIELD,
            rule="accelerators do not apply to an engine, which is already compiled",
            fix="remove them",
            severity="warning",
        )
    if config.instance_group and all(group.kind == pb.ModelInstanceGroup.KIND_CPU for group in config.instance_group):
        yield Broken(field=_FIELD, rule="no effect on instances of KIND_CPU", fix="write KIND_GPU", severity="warning")
    for each in chosen:
        if each.name == "cuda":
            yield from _cuda(each.parameters)
        if each.name == "tensorrt":
            yield from _tensorrt(each.parameters, release)


def _cuda(parameters: Any) -> Iterator[Broken]:
    lost = sorted(set(_TOP_LEVEL) & set(parameters))
    if lost:
        yield Broken(
            field=f"{_FIELD}.cuda",
            rule=f"{', '.join(lost)} are overwritten with defaults when given for the accelerator",
            fix="give them as parameters of the model, at the top level",
            severity="warning",
        )


def _tensorrt(parameters: Any, release: str) -> Iterator[Broken]:
    field = f"{_FIELD}.tensorrt"
    for key in sorted(parameters):
        if key in _REFUSED or not (key in _PLAIN or key.startswith("trt_")):
            yield Broken(
                field=f"{field}.{key}",
                rule="the backend does not know this key; Triton refuses the model",
                fix="set the precision with precision_mode" if key in _REFUSED else "check the backend's list of keys",
            )
    precision = parameters.get("precision_mode", "FP32")
    yield from _building(field, parameters, precision, release)
    if precision == "INT8" and "int8_calibration_table_name" not in parameters:
        yield Broken(
            field=f"{field}.int8_calibration_table_name",
            rule="INT8 without a calibration table is correct only for a graph with Q/DQ nodes",
            fix="quantize the graph, or name the table, but not both",
            severity="warning",
        )
    cached = parameters.get("trt_engine_cache_enable", "0")
    path = parameters.get("trt_engine_cache_path", "")
    if cached.lower() not in ("1", "true") or not path.startswith("/"):
        yield Broken(
            field=f"{field}.trt_engine_cache_path",
            rule=(
                "without its own cache at an absolute path, every instance rebuilds its engine at each load, "
                "for minutes, or loads another model's"
            ),
            fix="enable it, at a path that contains artifact, GPU and TensorRT version",
            severity="warning",
        )
    profiles = [f"trt_profile_{end}_shapes" for end in ("min", "opt", "max")]
    if any(key not in parameters for key in profiles):
        yield Broken(
            field=f"{field}.trt_profile_opt_shapes",
            rule=(
                "without all three profile shapes the engine is rebuilt, for minutes, during live requests "
                "with a new range of shapes"
            ),
            fix="give min, opt and max shapes with the batch axis",
            severity="warning",
        )
    for key in profiles:
        if key in parameters and not _SHAPES.fullmatch(parameters[key]):
            yield Broken(
                field=f"{field}.{key}",
                rule=f"{parameters[key]!r} is not a list of shapes",
                fix="write name:1x3x224x224, joined by commas",
            )


def _building(field: str, parameters: Any, precision: str, release: str) -> Iterator[Broken]:
    """Rules of how the provider builds its engines."""
    taken = [name for name, since in PRECISIONS_SINCE.items() if knows(release, since)]
    if precision not in taken:
        later = f" (known from {PRECISIONS_SINCE[precision]})" if precision in PRECISIONS_SINCE else ""
        yield Broken(
            field=f"{field}.precision_mode",
            rule=f"the ONNX Runtime backend of Triton {release} refuses precision {precision!r}{later}",
            fix=f"use {', '.join(taken)}" + (", or name the release of a newer server" if later else ""),
        )
    level = parameters.get("trt_builder_optimization_level", "3")
    if level not in _LEVELS:
        yield Broken(
            field=f"{field}.trt_builder_optimization_level",
            rule=f"must be 0 to 5, got {level!r}",
            fix="use 3, the default",
        )
