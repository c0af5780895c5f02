"""Configurations from a grammar: python models with every part of a ModelConfig that a server on a CPU executes.

What is drawn here is meant to load; whether it does, the server says.
"""

from math import prod
from random import Random
from typing import Any

from scripts.benchmarks.lint_unit import Model, message, python_files

_TYPES = ("TYPE_FP32", "TYPE_INT64", "TYPE_INT32", "TYPE_FP64", "TYPE_UINT8", "TYPE_BOOL", "TYPE_STRING", "TYPE_FP16")
_WORDS = ("images", "ids", "mask", "length", "scores", "boxes", "x", "Y", "a.b", "a-b", "a_b", "logits:0", "0")


def python_model(rng: Random, name: str) -> Model:
    """A python model with random tensors, scheduling, instances, versions, warm-up and files."""
    config = message().ModelConfig(backend="python", max_batch_size=rng.choice((0, 0, 1, 4, 8)))
    if rng.random() < 0.6:
        config.name = name
    model = Model(config=config)
    tensors(rng, model)
    _versions(rng, model)
    rng.choice((_no_schedule, dynamic, dynamic, sequence, sequence))(rng, model)
    _instances(rng, config)
    if rng.random() < 0.4:
        warm_up(rng, model)
    if rng.random() < 0.15 and not config.HasField("sequence_batching"):
        config.model_transaction_policy.decoupled = rng.random() < 0.7
    if rng.random() < 0.2 and not config.HasField("sequence_batching"):
        config.response_cache.enable = not config.model_transaction_policy.decoupled
    _oddments(rng, model)
    return model


def shape(rng: Random, free: float = 0.3) -> list[int]:
    """One to four axes, some of any length."""
    return [-1 if rng.random() < free else rng.choice((1, 2, 3, 4, 8)) for _ in range(rng.choice((1, 1, 2, 3, 4)))]


def reshaped(rng: Random, dims: list[int], batching: bool) -> list[int]:
    """A shape of the same elements around the same free axes."""
    runs: list[list[int]] = [[]]
    for size in dims:
        if size == -1:
            runs.append([])
        else:
            runs[-1].append(size)
    merged = [rng.choice(([prod(run)], [prod(run), 1], run[::-1], [1, *run])) if run else [] for run in runs]
    found = merged[0]
    for run in merged[1:]:
        found = [*found, -1, *run]
    return found if found or batching else [1]


def tensors(rng: Random, model: Model) -> None:
    """Inputs and outputs, with reshapes, optional and ragged ones, formats, labels and tensors of a whole batch."""
    config = model.config
    batching = config.max_batch_size > 0
    names = rng.sample(_WORDS, 6)
    for number in range(rng.choice((1, 1, 2, 3))):
        tensor = config.input.add(name=names.pop(), data_type=rng.choice(_TYPES), dims=shape(rng))
        if rng.random() < 0.3:
            tensor.reshape.shape.extend(reshaped(rng, list(tensor.dims), batching))
        if len(tensor.dims) == 3 and rng.random() < 0.4:
            tensor.format = rng.choice((1, 2))
        tensor.optional = number > 0 and rng.random() < 0.3
        tensor.allow_ragged_batch = rng.random() < 0.1
    for _ in range(rng.choice((1, 1, 2))):
        output = config.output.add(name=names.pop(), data_type=rng.choice(_TYPES), dims=shape(rng))
        if rng.random() < 0.2:
            output.reshape.shape.extend(reshaped(rng, list(output.dims), batching))
        if rng.random() < 0.15:
            output.label_filename = rng.choice(("labels.txt", "labels/of.txt"))
            model.files[output.label_filename] = b"cat\ndog\n"
    if batching and rng.random() < 0.15:
        batch_input(rng, config)
    if batching and rng.random() < 0.15:
        batch_output(rng, config)


def batch_input(rng: Random, config: Any) -> Any:
    """A tensor that Triton makes of a whole batch."""
    kinds = message().BatchInput.Kind.values()
    return config.batch_input.add(
        kind=rng.choice(kinds),
        target_name=["made"],
        data_type=rng.choice(("TYPE_INT32", "TYPE_FP32")),
        source_input=[rng.choice(config.input).name],
    )


def batch_output(rng: Random, config: Any) -> Any:
    """An output that Triton scatters over the requests of a batch."""
    return config.batch_output.add(
        target_name=[rng.choice(config.output).name], source_input=[rng.choice(config.input).name]
    )


def _versions(rng: Random, model: Model) -> None:
    there = sorted(rng.sample((0, 1, 2, 3, 7, 12), rng.choice((1, 1, 1, 1, 1, 2, 3))))
    model.files.update(python_files(tuple(there)))
    policy = model.config.version_policy
    draw = rng.random()
    if draw < 0.2:
        policy.latest.num_versions = rng.choice((1, 2, 5))
    elif draw < 0.35:
        policy.all.SetInParent()
    elif draw < 0.6:
        policy.specific.versions.extend(rng.sample(there, rng.randint(1, len(there))))
        if rng.random() < 0.2:
            policy.specific.versions.append(99)  # only logged
    for stray in ("old", "v9", "_3", "007", "configs", ".git"):
        if rng.random() < 0.04:
            model.files[stray] = None
    if rng.random() < 0.05:
        model.files["README.md"] = b"# read\n"


def _no_schedule(rng: Random, model: Model) -> None:
    """The server's default scheduler."""


def dynamic(rng: Random, model: Model) -> None:
    """The dynamic batcher, with sizes, delays, priorities and queue policies."""
    limit, batching = model.config.max_batch_size, model.config.dynamic_batching
    batching.SetInParent()
    if limit and rng.random() < 0.4:
        batching.preferred_batch_size.extend(sorted(rng.sample(range(1, limit + 1), min(limit, rng.choice((1, 2))))))
    if rng.random() < 0.4:
        batching.max_queue_delay_microseconds = rng.choice((1, 100, 5000))
    if rng.random() < 0.3:
        levels = rng.choice((1, 2, 5))
        batching.priority_levels = levels
        batching.default_priority_level = rng.randint(1, levels)
        for level in rng.sample(range(1, levels + 1), rng.randint(0, levels)):
            policy(rng, batching.priority_queue_policy[level], batching)
    if rng.random() < 0.2:
        batching.preserve_ordering = batching.priority_levels < 2
    if rng.random() < 0.4:
        policy(rng, batching.default_queue_policy, batching)


def policy(rng: Random, queue: Any, batching: Any) -> None:
    """Bounds of one queue."""
    queue.max_queue_size = rng.choice((0, 1, 64))
    queue.default_timeout_microseconds = rng.choice((0, 10_000, 2_000_000))
    queue.allow_timeout_override = rng.random() < 0.4
    if rng.random() < 0.4 and not (batching.preserve_ordering and queue.default_timeout_microseconds):
        queue.timeout_action = 1
        batching.preserve_ordering = False


def sequence(rng: Random, model: Model) -> None:
    """Sequence batching, with control tensors and implicit states."""
    batching = model.config.sequence_batching
    batching.SetInParent()
    draw = rng.random()
    if draw < 0.4:
        batching.direct.SetInParent()
        batching.direct.minimum_slot_utilization = rng.choice((0.0, 0.5, 1.0))
        batching.direct.max_queue_delay_microseconds = rng.choice((0, 100))
    elif draw < 0.8:
        batching.oldest.max_candidate_sequences = rng.choice((0, 1, 16, -1))
        if model.config.max_batch_size and rng.random() < 0.3:
            batching.oldest.preferred_batch_size.append(model.config.max_batch_size)
    batching.max_sequence_idle_microseconds = rng.choice((0, 1_000_000))
    kinds = ["START", "END", "READY", "CORRID"]
    for kind in rng.sample(kinds, rng.randint(0, 4)):
        control = batching.control_input.add(name=kind).control.add(kind=f"CONTROL_SEQUENCE_{kind}")
        values(rng, control)
    for number in range(rng.choice((0, 0, 1, 2))):
        state(rng, model, number)


def values(rng: Random, control: Any) -> None:
    """Return what a control tensor holds."""
    if control.kind == message().ModelSequenceBatching.Control.CONTROL_SEQUENCE_CORRID:
        control.data_type = rng.choice(("TYPE_UINT64", "TYPE_INT64", "TYPE_UINT32", "TYPE_INT32", "TYPE_STRING"))
    else:
        getattr(control, rng.choice(("int32_false_true", "fp32_false_true", "bool_false_true"))).extend((0, 1))


def state(rng: Random, model: Model, number: int) -> Any:
    """One implicit state, from zeros, from a file, or from nothing."""
    kind = rng.choice(_TYPES)
    dims = shape(rng)
    found = model.config.sequence_batching.state.add(
        input_name=f"s{number}", output_name=f"t{number}", data_type=kind, dims=dims
    )
    if rng.random() < 0.7:
        initial = found.initial_state.add(name="begin", data_type=kind, dims=[2 if dim == -1 else dim for dim in dims])
        if rng.random() < 0.5:
            initial.zero_data = rng.random() < 0.8
        else:
            initial.data_file = "zeros"
            model.files["initial_state/zeros"] = bytes(8 * 4096)
    return found


def _instances(rng: Random, config: Any) -> None:
    for number in range(rng.choice((0, 1, 1, 1, 1, 1, 2))):
        group = config.instance_group.add(
            kind=rng.choice(("KIND_CPU", "KIND_CPU", "KIND_MODEL", "KIND_AUTO")),
            count=rng.choice((0, 1, 1, 1, 1, 1, 1, 1, 2)),
        )
        if rng.random() < 0.3:
            group.name = f"group_{number}"
        if rng.random() < 0.2:
            group.rate_limiter.priority = rng.choice((0, 1, 3))
            everywhere = {"global": number == 0}
            group.rate_limiter.resources.add(name=f"{config.name or 'model'}{rng.random()}", count=2, **everywhere)
        if rng.random() < 0.05:
            group.host_policy = "policy_0"
        group.passive = number > 0 and rng.random() < 0.2


def warm_up(rng: Random, model: Model) -> Any:
    """One sample for the model's inputs."""
    config = model.config
    sample = config.model_warmup.add(
        name=rng.choice(("", "first")),
        batch_size=rng.randint(0, max(config.max_batch_size, 1)),
        count=rng.choice((0, 2)),
    )
    for tensor in config.input:
        if tensor.optional and rng.random() < 0.5:
            continue
        given = sample.inputs[tensor.name]
        given.data_type = tensor.data_type
        given.dims.extend([rng.choice((1, 5)) if dim == -1 else dim for dim in tensor.dims])
        draw = rng.random()
        if draw < 0.4 or tensor.data_type == message().TYPE_STRING:
            given.zero_data = True
        elif draw < 0.6:
            given.random_data = True
        else:
            given.input_data_file = "sample"
            model.files["warmup/sample"] = bytes(8 * 16384)
    return sample


def _oddments(rng: Random, model: Model) -> None:
    config = model.config
    if rng.random() < 0.1:
        config.metric_tags["team"] = "vision"
    if rng.random() < 0.15:
        config.parameters["threads"].string_value = "2"
    if rng.random() < 0.1:
        config.parameters["FORCE_CPU_ONLY_INPUT_TENSORS"].string_value = rng.choice(("yes", "no"))
    if rng.random() < 0.1:
        config.optimization.priority = rng.choice((1, 2))
    if rng.random() < 0.05:
        config.optimization.execution_accelerators.gpu_execution_accelerator.add(name="tensorrt")
    if rng.random() < 0.05:
        config.platform = rng.choice(("python", "anything", "onnxruntime_onnx"))
    if rng.random() < 0.05:
        config.cc_model_filenames["7.5"] = "other.py"
    if rng.random() < 0.1:
        config.default_model_filename = rng.choice(("net.py", "inner/net.py"))
        for path in [path for path in model.files if path.endswith("/model.py")]:
            model.files[path.replace("model.py", config.default_model_filename)] = model.files.pop(path)
    if rng.random() < 0.04:
        config.parameters["EXECUTION_ENV_PATH"].string_value = "$$TRITON_MODEL_DIRECTORY/env"
        model.files["env/bin/activate"] = b"true\n"
    if rng.random() < 0.1:
        model.prefix = rng.choice((b"# plain\n", "# Größe\n".encode(), "# Größe\n".encode("latin-1"), b"\r\n\t# x\r\n"))
