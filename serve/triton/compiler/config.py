"""config.pbtxt from a deployment and an artifact: built as the ModelConfig protobuf, written as text, read back.

Renders and checks; writes no file and talks to no server. Everything is spelled out (tensors, instances, policy), so
that a server with --disable-auto-complete-config starts in a fraction of the time and guesses nothing.

The text names the newest artifact in a comment only. A digest in a field would make every version that already serves
initialize again when another is placed beside it: Triton keeps a running version only if nothing but the version policy
and the instance count changed.
"""

from collections.abc import Iterable
from importlib import import_module
from pathlib import Path
from typing import Any

from seatrial.optimize import experimental
from seatrial.optimize.artifact import Artifact, TensorSpec

from ...deployment import Backend, Deployment, Queue, TensorrtPlan
from ...errors import ConfigRuleError
from .. import pbtxt, plain
from ..lint import broken_config
from . import engine_rules, native, sequencing
from .rules import DATA_TYPES, broken_rules, broken_versions, item_shape, model_file

POOL = "seatrial_resource_"
"""Prefix of the parameter for the amount of a resource; config.pbtxt has no field for it."""
CACHE_BYTES = "seatrial_response_cache_bytes"
"""The parameter with the size of the response cache; Triton has one for all models."""


def check(deployment: Deployment, artifact: Artifact, *, backend: Backend | None = None) -> None:
    """Refuse what Triton would refuse, or would accept and not do.

    Raises:
        ConfigRuleError: the first rule that is broken; names field, rule and fix.
    """
    deployment = deployment.with_backend(backend)
    found = [*broken_rules(artifact, deployment, deployment.backend)]
    if deployment.sequence is not None:
        found += sequencing.broken_rules(artifact, deployment.sequence)
    found += engine_rules.broken_rules(artifact, deployment)
    for broken in found:
        raise broken.error()
    if not (isinstance(deployment.engine, TensorrtPlan) and deployment.engine.by_gpu):
        model_file(artifact)


def render(
    deployment: Deployment, artifact: Artifact, *, versions: tuple[int, ...], backend: Backend | None = None
) -> str:
    """The text of config.pbtxt for serving `versions`, the newest of which is `artifact`.

    Raises:
        ConfigRuleError: the pair breaks a rule.
    """
    deployment = deployment.with_backend(backend)
    if deployment.instances.kind == "gpu":
        experimental.used(experimental.GPU)
    if artifact.format == "tensorrt":
        experimental.used(experimental.TENSORRT)
    check(deployment, artifact)
    for broken in broken_versions(versions):
        raise broken.error()
    config = _model_config(deployment, artifact, versions)
    for broken in broken_config(config, deployment.triton):
        if broken.severity == "error":
            raise broken.error()
    text = f"# {deployment.name}: written by seatrial, newest artifact {artifact.digest}; edits do not last.\n"
    text += written(config)
    if parse(text) != config:
        raise RuntimeError("config.pbtxt does not parse back to the written message")  # our mistake, not the user's
    return text


def parse(text: str) -> Any:
    """config.pbtxt as a ModelConfig message.

    Raises:
        ConfigRuleError: not a ModelConfig of the protocol that this version knows.
    """
    try:
        return pbtxt.parsed(text)
    except pbtxt.UnreadableError as error:
        raise ConfigRuleError(
            f"not a Triton model configuration: {error.what}",
            where=f"config.pbtxt, line {error.line}" if error.line else "config.pbtxt",
            next_step="remove that file and place the model again",
        ) from error


def read_text(path: Path) -> str:
    """Return the text of a config.pbtxt on disk, which must be a plain file.

    Raises:
        ConfigRuleError: it cannot be read.
    """
    try:
        return plain.config_text(path)
    except OSError as error:
        raise ConfigRuleError(
            f"config.pbtxt cannot be read: {error.strerror or error}",
            where=str(path),
            next_step="move that file away and place the model again",
        ) from error


def with_versions(text: str, versions: tuple[int, ...]) -> str:
    """The same configuration serving other versions, comments kept.

    Raises:
        ConfigRuleError: not a configuration, or no legal list of versions.
    """
    for broken in broken_versions(versions):
        raise broken.error()
    config = parse(text)
    config.version_policy.specific.versions[:] = sorted(versions)
    return _comments(text) + written(config)


def without_cache(text: str) -> str:
    """The same configuration without Triton's response cache, comments kept.

    Raises:
        ConfigRuleError: not a configuration.
    """
    config = parse(text)
    config.ClearField("response_cache")
    return _comments(text) + written(config)


def written(config: Any) -> str:
    """A ModelConfig as the text of config.pbtxt."""
    text = str(_text_format().MessageToString(config))
    if config.max_batch_size == 0:  # proto3 text leaves zero out, and a completing server would put 4 there
        text += "max_batch_size: 0\n"
    return text


def _comments(text: str) -> str:
    return "".join(line for line in text.splitlines(keepends=True) if line.startswith("#"))


def _text_format() -> Any:
    return import_module("google.protobuf.text_format")


def _model_config(deployment: Deployment, artifact: Artifact, versions: tuple[int, ...]) -> Any:
    from tritonclient.grpc import model_config_pb2 as pb

    batching = deployment.max_batch_size > 0
    config = pb.ModelConfig(name=deployment.name, max_batch_size=deployment.max_batch_size)
    if deployment.backend == "python":
        config.backend = "python"
        for name, value in _python_parameters(deployment, artifact).items():
            config.parameters[name].string_value = value
    else:
        native.fill(config, deployment, artifact)
    inputs, outputs = sequencing.client_tensors(deployment, artifact)
    config.input.extend(_tensors(inputs, pb.ModelInput, batching))
    config.output.extend(_tensors(outputs, pb.ModelOutput, batching))
    config.version_policy.specific.versions[:] = sorted(versions)
    if deployment.sequence is not None:
        sequencing.fill(config, deployment.sequence, artifact, batching=batching)
    else:
        _schedule(config, deployment)
    _instances(config, deployment)
    _warm_up(config, deployment, artifact)
    if deployment.response_cache is not None:
        config.response_cache.enable = True
    for name, value in _server_parameters(deployment).items():
        config.parameters[name].string_value = value
    return config


def _server_parameters(deployment: Deployment) -> dict[str, str]:
    """Return the server options without a ModelConfig field; `flags` reads them, backends do not."""
    pools = {
        f"{POOL}{each.name}": str(each.available)
        for each in deployment.instances.resources
        if each.available is not None
    }
    cache = deployment.response_cache
    return pools | ({CACHE_BYTES: str(cache.size_bytes)} if cache is not None else {})


def _instances(config: Any, deployment: Deployment) -> None:
    from tritonclient.grpc import model_config_pb2 as pb

    instances = deployment.instances
    kind = pb.ModelInstanceGroup.KIND_GPU if instances.kind == "gpu" else pb.ModelInstanceGroup.KIND_CPU
    group = config.instance_group.add(count=instances.count, kind=kind, gpus=instances.gpus)
    if deployment.backend == "native":
        group.profile.extend(native.profile_names(deployment))
    for each in instances.resources:
        resource = group.rate_limiter.resources.add(name=each.name, count=each.count)
        setattr(resource, "global", each.everywhere)
    if instances.priority:
        group.rate_limiter.priority = instances.priority


def _tensors(specs: tuple[TensorSpec, ...], message: Any, batching: bool) -> Iterable[Any]:
    """Tensors without their batch axis; a scalar is [1] outside, since dims may not be empty.

    Inside it is [] where the model batches, by a reshape; one that does not batch gets it from our model.py.
    """
    from tritonclient.grpc import model_config_pb2 as pb

    for spec in specs:
        dims = [-1 if isinstance(size, str) else size for size in item_shape(spec, batching=batching)]
        tensor = message(name=spec.name, data_type=pb.DataType.Value(DATA_TYPES[spec.dtype]), dims=dims or [1])
        if not dims and batching:
            tensor.reshape.SetInParent()
        yield tensor


def _schedule(config: Any, deployment: Deployment) -> None:
    """The queue's bounds live in the batcher's policy: with bounds it is written for models that do not batch too."""

    batching, queue = config.dynamic_batching, deployment.queue
    if deployment.max_batch_size > 0 or queue is not None:
        batching.SetInParent()
    if deployment.max_batch_size > 0:
        batching.max_queue_delay_microseconds = deployment.batching.max_queue_delay_us
        batching.preferred_batch_size.extend(sorted(deployment.batching.preferred_sizes))
    if deployment.batching.preserve_ordering:
        batching.preserve_ordering = True
    if queue is not None:  # else not even an empty policy: see `serve.deployment.Queue`
        _policy(batching.default_queue_policy, queue)
    if deployment.priorities is not None:
        batching.priority_levels = deployment.priorities.levels
        batching.default_priority_level = deployment.priorities.default
        for each in deployment.priorities.queues:
            _policy(batching.priority_queue_policy[each.level], each.queue)


def _policy(policy: Any, queue: Queue) -> None:
    from tritonclient.grpc import model_config_pb2 as pb

    policy.timeout_action = pb.ModelQueuePolicy.DELAY if queue.action == "delay" else pb.ModelQueuePolicy.REJECT
    policy.default_timeout_microseconds = queue.timeout_ms * 1000
    policy.allow_timeout_override = queue.allow_override  # only a shorter timeout than the default counts
    policy.max_queue_size = queue.max_size


def _python_parameters(deployment: Deployment, artifact: Artifact) -> dict[str, str]:
    gpu = deployment.instances.kind == "gpu"
    return {
        # Else Triton copies every input to the host before model.py sees it. Experimental.
        **({"FORCE_CPU_ONLY_INPUT_TENSORS": "no"} if gpu else {}),
        "threads": str(deployment.threads),
        "providers": "CUDAExecutionProvider,CPUExecutionProvider" if gpu else "CPUExecutionProvider",
        "model_file": model_file(artifact),
        **(deployment.cache.parameters if deployment.cache else {}),
    }


def _warm_up(config: Any, deployment: Deployment, artifact: Artifact) -> None:
    """Runs of zeros for each size and shapes: random data would be NaN in floats and out of range in indices."""
    from tritonclient.grpc import model_config_pb2 as pb

    batching, warmup = deployment.max_batch_size > 0, deployment.warmup
    for number, shapes in enumerate(warmup.every_bucket):
        for size in sorted(warmup.batch_sizes):
            name = f"batch_{size}" + (f"_bucket_{number}" if len(warmup.every_bucket) > 1 else "")
            sample = config.model_warmup.add(name=name, batch_size=size, count=warmup.repeat)
            for spec in artifact.inputs:
                shape = shapes.get(spec.name, item_shape(spec, batching=batching))
                tensor = sample.inputs[spec.name]
                tensor.data_type = pb.DataType.Value(DATA_TYPES[spec.dtype])
                tensor.dims.extend([int(length) for length in shape] or [1])
                tensor.zero_data = True
