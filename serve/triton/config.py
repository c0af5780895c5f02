"""config.pbtxt from a deployment and an artifact: built as the ModelConfig protobuf, written as text, read back.

Renders and checks; writes no file and talks to no server. Everything is spelled out (tensors, instances, policy), so
that a server with --disable-auto-complete-config starts in a fraction of the time and guesses nothing.

The text names the newest artifact in a comment only. A digest in a field would make every version that already serves
initialize again when another is placed beside it: Triton keeps a running version only if nothing but the version policy
and the instance count changed.
"""

from collections.abc import Iterable
from importlib import import_module
from typing import Any

from optimize.artifact import Artifact, TensorSpec

from ..deployment import Deployment, Flavour
from ..errors import ConfigRuleError
from .rules import DATA_TYPES, broken_rules, broken_versions, item_shape, model_file

_PLATFORMS = {"onnx": ("onnxruntime", "onnxruntime_onnx"), "tensorrt": ("tensorrt", "tensorrt_plan")}


def check(deployment: Deployment, artifact: Artifact, *, flavour: Flavour | None = None) -> None:
    """Refuse what Triton would refuse, or would accept and not do.

    Raises:
        ConfigRuleError: the first rule that is broken; names field, rule and mend.
    """
    for broken in broken_rules(artifact, deployment, flavour or deployment.flavour):
        raise broken.error()
    model_file(artifact)


def render(
    deployment: Deployment, artifact: Artifact, *, versions: tuple[int, ...], flavour: Flavour | None = None
) -> str:
    """The text of config.pbtxt for serving `versions`, the newest of which is `artifact`.

    Raises:
        ConfigRuleError: the pair breaks a rule.
    """
    deployment = deployment.flavoured(flavour)
    check(deployment, artifact)
    for broken in broken_versions(versions):
        raise broken.error()
    config = _model_config(deployment, artifact, versions)
    text = f"# {deployment.name}: written by seatrial, newest artifact {artifact.digest}; edits do not last.\n"
    text += _text(config)
    if parse(text) != config:
        raise RuntimeError("config.pbtxt does not read back as it was written")  # our mistake, not the user's
    return text


def parse(text: str) -> Any:
    """config.pbtxt as a ModelConfig message.

    Raises:
        ConfigRuleError: not a ModelConfig of the protocol that this version knows.
    """
    from tritonclient.grpc import model_config_pb2 as pb

    text_format = _text_format()
    try:
        return text_format.Parse(text, pb.ModelConfig())
    except text_format.ParseError as error:
        raise ConfigRuleError(
            f"not a Triton model configuration: {error}",
            where="config.pbtxt",
            next_step="remove that file and place the model again",
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
    comments = "".join(line for line in text.splitlines(keepends=True) if line.startswith("#"))
    return comments + _text(config)


def _text(config: Any) -> str:
    text = str(_text_format().MessageToString(config))
    if config.max_batch_size == 0:  # proto3 text leaves zero out, and a completing server would put 4 there
        text += "max_batch_size: 0\n"
    return text


def _text_format() -> Any:
    return import_module("google.protobuf.text_format")


def _model_config(deployment: Deployment, artifact: Artifact, versions: tuple[int, ...]) -> Any:
    from tritonclient.grpc import model_config_pb2 as pb

    batching = deployment.max_batch_size > 0
    config = pb.ModelConfig(name=deployment.name, max_batch_size=deployment.max_batch_size)
    if deployment.flavour == "python":
        config.backend = "python"
    else:
        config.backend, config.platform = _PLATFORMS[artifact.format]
        config.default_model_filename = model_file(artifact)
    config.input.extend(_tensors(artifact.inputs, pb.ModelInput, batching))
    config.output.extend(_tensors(artifact.outputs, pb.ModelOutput, batching))
    config.version_policy.specific.versions[:] = sorted(versions)
    _schedule(config, deployment)
    instances = deployment.instances
    kind = pb.ModelInstanceGroup.KIND_GPU if instances.kind == "gpu" else pb.ModelInstanceGroup.KIND_CPU
    config.instance_group.add(count=instances.count, kind=kind, gpus=instances.gpus)
    for name, value in _parameters(deployment, artifact).items():
        config.parameters[name].string_value = value
    _warm_up(config, deployment, artifact)
    return config


def _tensors(specs: tuple[TensorSpec, ...], message: Any, batching: bool) -> Iterable[Any]:
    """Tensors without their batch axis; a per-item scalar is [1] outside and [] inside, since dims may not be empty."""
    from tritonclient.grpc import model_config_pb2 as pb

    for spec in specs:
        dims = [-1 if isinstance(size, str) else size for size in item_shape(spec, batching=batching)]
        tensor = message(name=spec.name, data_type=pb.DataType.Value(DATA_TYPES[spec.dtype]), dims=dims or [1])
        if not dims:
            tensor.reshape.SetInParent()
        yield tensor


def _schedule(config: Any, deployment: Deployment) -> None:
    """The queue's bounds live in the batcher's policy: with bounds it is written for models that do not batch too."""
    from tritonclient.grpc import model_config_pb2 as pb

    batching, queue = config.dynamic_batching, deployment.queue
    if deployment.max_batch_size > 0 or queue is not None:
        batching.SetInParent()
    if deployment.max_batch_size > 0:
        batching.max_queue_delay_microseconds = deployment.batching.max_queue_delay_us
        batching.preferred_batch_size.extend(sorted(deployment.batching.preferred_sizes))
    if queue is None:  # not even an empty policy: see `serve.deployment.Queue`
        return
    policy = batching.default_queue_policy
    policy.timeout_action = pb.ModelQueuePolicy.REJECT
    policy.default_timeout_microseconds = queue.timeout_ms * 1000
    policy.allow_timeout_override = True  # only a shorter timeout than the default counts
    policy.max_queue_size = queue.max_size


def _parameters(deployment: Deployment, artifact: Artifact) -> dict[str, str]:
    threads = str(deployment.threads)
    if deployment.flavour == "python":
        gpu = deployment.instances.kind == "gpu"
        return {
            "threads": threads,
            "providers": "CUDAExecutionProvider,CPUExecutionProvider" if gpu else "CPUExecutionProvider",
            "model_file": model_file(artifact),
            **(deployment.cache.parameters if deployment.cache else {}),
        }
    if artifact.format == "onnx":
        return {"intra_op_thread_count": threads, "inter_op_thread_count": "1"}
    return {}


def _warm_up(config: Any, deployment: Deployment, artifact: Artifact) -> None:
    """One run of zeros for each size: random data would be NaN in floats and out of range in indices."""
    from tritonclient.grpc import model_config_pb2 as pb

    batching = deployment.max_batch_size > 0
    for size in sorted(deployment.warmup.batch_sizes):
        sample = config.model_warmup.add(name=f"batch_{size}", batch_size=size, count=1)
        for spec in artifact.inputs:
            shape = deployment.warmup.shapes.get(spec.name, item_shape(spec, batching=batching))
            tensor = sample.inputs[spec.name]
            tensor.data_type = pb.DataType.Value(DATA_TYPES[spec.dtype])
            tensor.dims.extend([int(length) for length in shape] or [1])
            tensor.zero_data = True
