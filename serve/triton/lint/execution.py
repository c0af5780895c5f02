"""Rules of what executes a model: backend and platform, instances, rate limiter, accelerators, threads, versions."""

from collections import Counter
from collections.abc import Iterator
from typing import Any

from ...deployment import Broken
from . import backends
from .backends import backend_of, platform_of


def broken_rules(config: Any) -> Iterator[Broken]:
    """Every rule that the execution breaks."""
    yield from backends.broken_rules(config)
    yield from _versions(config)
    for group in config.instance_group:
        yield from _group(group, config)
    yield from _resources(config)
    yield from _metrics(config)
    if backend_of(config) == "onnxruntime":
        yield from _threads(config)
    if config.optimization.graph.level == 2 and backend_of(config) == "onnxruntime":
        yield Broken(
            field="optimization.graph.level",
            rule="2 disables every rewrite in ONNX Runtime's backend, contrary to the protocol's comment",
            fix="omit it for all rewrites",
            severity="warning",
        )


def _versions(config: Any) -> Iterator[Broken]:
    if config.version_policy.HasField("specific"):
        versions = list(config.version_policy.specific.versions)
        if not versions or any(version < 0 for version in versions):
            yield Broken(
                field="version_policy.specific",
                rule=f"{versions} names no version, or one below 0; Triton refuses the model",
                fix="list the versions to serve",
            )
    if config.version_policy.HasField("latest") and config.version_policy.latest.num_versions == 0:
        yield Broken(
            field="version_policy.latest", rule="num_versions 0 serves no version", fix="write num_versions: 1"
        )


def _group(group: Any, config: Any) -> Iterator[Broken]:
    from tritonclient.grpc import model_config_pb2 as pb

    kind = pb.ModelInstanceGroup.Kind.Name(group.kind)
    on_gpus = group.kind in (pb.ModelInstanceGroup.KIND_GPU, pb.ModelInstanceGroup.KIND_AUTO)
    if group.count < 0:
        yield Broken(
            field="instance_group.count",
            rule=f"{group.count} is negative and counts as 1",
            fix="use 1 or more",
            severity="warning",
        )
    if group.gpus and not on_gpus:
        yield Broken(
            field="instance_group.gpus",
            rule=f"{kind} must not list GPUs; Triton refuses the model",
            fix="remove the list, or write KIND_GPU",
        )
    if any(gpu < 0 for gpu in group.gpus) or len(set(group.gpus)) != len(group.gpus):
        yield Broken(
            field="instance_group.gpus", rule=f"must be distinct numbers, got {list(group.gpus)}", fix="list each once"
        )
    if group.profile and platform_of(config) != "tensorrt_plan":
        yield Broken(
            field="instance_group.profile",
            rule="only TensorRT engines have profiles; Triton refuses the model",
            fix="remove it",
        )
    elif any(not profile.isdecimal() for profile in group.profile):
        yield Broken(
            field="instance_group.profile",
            rule=f"profiles must be numbers from 0, as text, got {list(group.profile)}",
            fix='write [ "0", "1" ]',
        )
    if backend_of(config) == "tensorrt" and not on_gpus:
        yield Broken(field="instance_group.kind", rule=f"TensorRT runs on GPUs, not {kind}", fix="write KIND_GPU")
    if config.HasField("ensemble_scheduling") or config.platform == "ensemble":
        yield Broken(
            field="instance_group",
            rule="an ensemble has no instances of its own; Triton refuses the model",
            fix="remove it; its steps have their own",
        )


def _resources(config: Any) -> Iterator[Broken]:
    limited = [group.rate_limiter for group in config.instance_group if group.HasField("rate_limiter")]
    if limited:
        yield Broken(
            field="instance_group.rate_limiter",
            rule="ignored unless the server is started with --rate-limit=execution_count",
            fix="start the server with this option, as seatrial up does",
            severity="warning",
        )
    meant = {(each.name, getattr(each, "global")) for limiter in limited for each in limiter.resources}
    for name, count in Counter(name for name, _ in meant).items():
        if count > 1:
            yield Broken(
                field="instance_group.rate_limiter.resources",
                rule=f"{name} is global in one place and not in another; Triton refuses the model",
                fix="use the same scope everywhere",
            )


def _metrics(config: Any) -> Iterator[Broken]:
    for control in config.model_metrics.metric_control:
        family = control.metric_identifier.family
        if not family or not control.histogram_options.buckets:
            yield Broken(
                field="model_metrics.metric_control",
                rule=(
                    f"{family or 'an entry'} lacks {'buckets' if family else 'the family of its metric'}; Triton "
                    "refuses the model"
                ),
                fix='write metric_identifier { family: "nv_inference_first_response_histogram_ms" } and '
                "histogram_options { buckets: [ ... ] }",
            )


def _threads(config: Any) -> Iterator[Broken]:
    from tritonclient.grpc import model_config_pb2 as pb

    if not config.instance_group:
        yield Broken(
            field="instance_group",
            rule="missing: ONNX Runtime creates 2 instances on a CPU and one for each GPU",
            fix="write count and kind",
            severity="warning",
        )
    on_cpu = sum(max(group.count, 1) for group in config.instance_group if group.kind == pb.ModelInstanceGroup.KIND_CPU)
    given = (
        config.parameters["intra_op_thread_count"].string_value if "intra_op_thread_count" in config.parameters else ""
    )
    if given and not given.lstrip("-").isdecimal():
        yield Broken(
            field="parameters.intra_op_thread_count",
            rule=f"{given!r} is not a number; Triton refuses the model",
            fix="write digits",
        )
    elif on_cpu > 1 and given in ("", "0"):
        yield Broken(
            field="parameters.intra_op_thread_count",
            rule=f"{given or 'missing'}, so each of {on_cpu} instances uses every core",
            fix="divide the cores by the number of instances",
            severity="warning",
        )
