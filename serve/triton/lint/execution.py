"""Rules of what executes a model: backend and platform, instances, rate limiter, accelerators, threads, versions."""

from collections import Counter
from collections.abc import Iterator
from typing import Any

from ...deployment import Broken

_BACKENDS = {
    "onnxruntime_onnx": "onnxruntime",
    "tensorrt_plan": "tensorrt",
    "tensorflow_graphdef": "tensorflow",
    "tensorflow_savedmodel": "tensorflow",
    "pytorch_libtorch": "pytorch",
    "ensemble": "",
}


def backend_of(config: Any) -> str:
    """The backend that a configuration names, by itself or by its platform; "" where it names none."""
    return str(config.backend or _BACKENDS.get(config.platform, ""))


def broken_rules(config: Any) -> Iterator[Broken]:
    """Every rule that the execution breaks."""
    yield from _backend(config)
    yield from _versions(config)
    for group in config.instance_group:
        yield from _group(group, config)
    yield from _resources(config)
    if backend_of(config) == "onnxruntime":
        yield from _threads(config)
    if config.optimization.graph.level == 2 and backend_of(config) == "onnxruntime":
        yield Broken(
            field="optimization.graph.level",
            rule="2 disables every rewrite in ONNX Runtime's backend, whatever the protocol's comment says",
            mend="leave it out for all of them",
            severity="warning",
        )


def _backend(config: Any) -> Iterator[Broken]:
    backend, platform = config.backend, config.platform
    if config.HasField("ensemble_scheduling") or platform == "ensemble":
        return  # the ensemble's own rules
    if not backend and not platform:
        yield Broken(
            field="backend",
            rule="neither backend nor platform: the server guesses from file names, or refuses the model",
            mend="name the backend",
            severity="warning",
        )
    elif platform and backend and _BACKENDS.get(platform, backend) != backend:
        yield Broken(
            field="platform",
            rule=f"{platform} belongs to the backend {_BACKENDS[platform]}, not {backend}; Triton refuses the model",
            mend="drop the platform",
        )
    elif platform and not backend and platform not in _BACKENDS:
        yield Broken(field="platform", rule=f"no backend serves {platform!r}", mend="name the backend instead")


def _versions(config: Any) -> Iterator[Broken]:
    if config.version_policy.HasField("specific"):
        versions = list(config.version_policy.specific.versions)
        if not versions or any(version < 1 for version in versions):
            yield Broken(
                field="version_policy.specific",
                rule=f"{versions} names no version, or one below 1: nothing to load is an error",
                mend="list the versions to serve",
            )
    if config.version_policy.HasField("latest") and config.version_policy.latest.num_versions == 0:
        yield Broken(field="version_policy.latest", rule="the latest 0 versions are none", mend="write num_versions: 1")


def _group(group: Any, config: Any) -> Iterator[Broken]:
    from tritonclient.grpc import model_config_pb2 as pb

    kind = pb.ModelInstanceGroup.Kind.Name(group.kind)
    on_gpus = group.kind in (pb.ModelInstanceGroup.KIND_GPU, pb.ModelInstanceGroup.KIND_AUTO)
    if group.count < 0:
        yield Broken(field="instance_group.count", rule=f"{group.count} is negative", mend="use 1 or more")
    if group.gpus and not on_gpus:
        yield Broken(
            field="instance_group.gpus",
            rule=f"{kind} may not list GPUs; Triton refuses the model",
            mend="drop the list, or write KIND_GPU",
        )
    if any(gpu < 0 for gpu in group.gpus) or len(set(group.gpus)) != len(group.gpus):
        yield Broken(
            field="instance_group.gpus", rule=f"{list(group.gpus)} are not distinct numbers", mend="list each once"
        )
    if group.profile and backend_of(config) != "tensorrt":
        yield Broken(
            field="instance_group.profile", rule="only TensorRT engines have profiles; refused", mend="drop it"
        )
    elif any(not profile.isdecimal() for profile in group.profile):
        yield Broken(
            field="instance_group.profile",
            rule=f"{list(group.profile)} are not numbers from 0, as text",
            mend='write [ "0", "1" ]',
        )
    if backend_of(config) == "tensorrt" and not on_gpus:
        yield Broken(field="instance_group.kind", rule=f"TensorRT runs on GPUs, not {kind}", mend="write KIND_GPU")
    if config.HasField("ensemble_scheduling") or config.platform == "ensemble":
        yield Broken(
            field="instance_group",
            rule="an ensemble has no instances of its own; Triton refuses it",
            mend="drop it; its steps have theirs",
        )


def _resources(config: Any) -> Iterator[Broken]:
    limited = [group.rate_limiter for group in config.instance_group if group.HasField("rate_limiter")]
    if limited:
        yield Broken(
            field="instance_group.rate_limiter",
            rule="ignored unless the server is started with --rate-limit=execution_count",
            mend="start it so; seatrial up does",
            severity="warning",
        )
    meant = {(each.name, getattr(each, "global")) for limiter in limited for each in limiter.resources}
    for name, count in Counter(name for name, _ in meant).items():
        if count > 1:
            yield Broken(
                field="instance_group.rate_limiter.resources",
                rule=f"{name} is global in one place and not in another; refused",
                mend="say the same everywhere",
            )


def _threads(config: Any) -> Iterator[Broken]:
    from tritonclient.grpc import model_config_pb2 as pb

    if not config.instance_group:
        yield Broken(
            field="instance_group",
            rule="absent: ONNX Runtime makes 2 instances on a CPU and one for each GPU",
            mend="write count and kind",
            severity="warning",
        )
    on_cpu = sum(max(group.count, 1) for group in config.instance_group if group.kind == pb.ModelInstanceGroup.KIND_CPU)
    given = (
        config.parameters["intra_op_thread_count"].string_value if "intra_op_thread_count" in config.parameters else ""
    )
    if given and not given.lstrip("-").isdecimal():
        yield Broken(
            field="parameters.intra_op_thread_count", rule=f"{given!r} is no number; refused", mend="write digits"
        )
    elif on_cpu > 1 and given in ("", "0"):
        yield Broken(
            field="parameters.intra_op_thread_count",
            rule=f"{given or 'absent'}, so each of {on_cpu} instances takes every core",
            mend="write cores divided by instances",
            severity="warning",
        )
