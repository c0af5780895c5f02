"""Mutations of one model's configuration: each breaks, or just does not break, one of Triton's rules.

A mutation returns False where the model has nothing that it could change.
"""

from random import Random
from typing import Any

from scripts.benchmarks import lint_grammar as grammar
from scripts.benchmarks import lint_mutations_sequences as sequences
from scripts.benchmarks.lint_mutations_sequences import Mutation
from scripts.benchmarks.lint_unit import Model


def mutations() -> dict[str, Mutation]:
    """Every mutation of this file and of sequence batching, by name."""
    own = {name.removeprefix("m_"): call for name, call in globals().items() if name.startswith("m_")}
    return own | sequences.mutations()


def _tensor(rng: Random, model: Model) -> Any:
    return rng.choice([*model.config.input, *model.config.output])


def m_name(rng: Random, model: Model) -> bool:
    model.config.name = "another"
    return True


def m_name_of_tensor(rng: Random, model: Model) -> bool:
    _tensor(rng, model).name = ""
    return True


def m_tensor_twice(rng: Random, model: Model) -> bool:
    side = rng.choice((model.config.input, model.config.output))
    side.append(side[0])
    return True


def m_data_type(rng: Random, model: Model) -> bool:
    tensor = _tensor(rng, model)
    if model.config.model_warmup:
        return False
    tensor.data_type = 0
    return True


def m_dims(rng: Random, model: Model) -> bool:
    tensor = _tensor(rng, model)
    if rng.random() < 0.3:
        del tensor.dims[:]
    else:
        tensor.dims[rng.randrange(len(tensor.dims))] = rng.choice((0, -2, -1, 2**40))
    return True


def m_reshape(rng: Random, model: Model) -> bool:
    tensor = _tensor(rng, model)
    tensor.reshape.SetInParent()
    del tensor.reshape.shape[:]
    tensor.reshape.shape.extend(grammar.shape(rng, 0.4)[: rng.randint(0, 3)])
    return True


def m_reshape_near(rng: Random, model: Model) -> bool:
    tensor = _tensor(rng, model)
    tensor.reshape.ClearField("shape")
    tensor.reshape.shape.extend(grammar.reshaped(rng, list(tensor.dims), model.config.max_batch_size > 0))
    if tensor.reshape.shape:
        tensor.reshape.shape[rng.randrange(len(tensor.reshape.shape))] = rng.choice((0, -1, 1, 2, 5, -3))
    return True


def m_reshape_order(rng: Random, model: Model) -> bool:
    tensor = _tensor(rng, model)
    dims = [2, -1, 3, 4] if rng.random() < 0.5 else [-1, -1, 6]
    del tensor.dims[:]
    tensor.dims.extend(dims)
    tensor.reshape.ClearField("shape")
    tensor.reshape.shape.extend(rng.sample(dims, len(dims)))
    return True


def m_format(rng: Random, model: Model) -> bool:
    rng.choice(model.config.input).format = rng.choice((1, 2))
    return True


def m_shape_tensor(rng: Random, model: Model) -> bool:
    _tensor(rng, model).is_shape_tensor = True
    return True


def m_non_linear(rng: Random, model: Model) -> bool:
    _tensor(rng, model).is_non_linear_format_io = True
    return True


def m_no_tensors(rng: Random, model: Model) -> bool:
    model.config.ClearField(rng.choice(("input", "output")))
    return True


def m_max_batch_size(rng: Random, model: Model) -> bool:
    model.config.max_batch_size = rng.choice((-1, 0, 0, 1, 2, 3, 2**31 - 1))
    return True


def m_slots(rng: Random, model: Model) -> bool:
    if not model.config.HasField("sequence_batching"):
        return False
    model.config.sequence_batching.oldest.max_candidate_sequences = rng.choice((0, -7, 100, 2**31 - 1))
    return True


def m_batch_input(rng: Random, model: Model) -> bool:
    part = grammar.batch_input(rng, model.config)
    draw = rng.choice(("kind", "none", "two", "strange", "type", "target"))
    if draw == "kind":
        part.kind = 99
    elif draw == "none":
        del part.source_input[:]
    elif draw == "two":
        part.source_input.append(part.source_input[0])
    elif draw == "strange":
        part.source_input[0] = "columns"
    elif draw == "type":
        part.data_type = rng.choice((0, 9, 13))
    else:
        del part.target_name[:]
    return True


def m_batch_output(rng: Random, model: Model) -> bool:
    part = grammar.batch_output(rng, model.config)
    draw = rng.choice(("kind", "none", "two", "strange", "target", "twice", "untargeted"))
    if draw == "kind":
        part.kind = 99
    elif draw == "none":
        del part.source_input[:]
    elif draw == "two":
        part.source_input.append(part.source_input[0])
    elif draw == "strange":
        part.source_input[0] = "columns"
    elif draw == "target":
        part.target_name[0] = "means"
    elif draw == "twice":
        part.target_name.append(part.target_name[0])
    else:
        del part.target_name[:]
    return True


def m_preferred(rng: Random, model: Model) -> bool:
    config = model.config
    which = config.sequence_batching.oldest if config.HasField("sequence_batching") else config.dynamic_batching
    which.preferred_batch_size.append(rng.choice((0, -1, config.max_batch_size + 1, 1)))
    return True


def m_priorities(rng: Random, model: Model) -> bool:
    if model.config.HasField("sequence_batching"):
        return False
    batching = model.config.dynamic_batching
    batching.priority_levels = rng.choice((0, 2, 3))
    batching.default_priority_level = rng.choice((0, 1, 4))
    if rng.random() < 0.5:
        batching.priority_queue_policy[rng.choice((0, 1, 9))].max_queue_size = 3
    return True


def m_ordering(rng: Random, model: Model) -> bool:
    if model.config.HasField("sequence_batching"):
        return False
    batching = model.config.dynamic_batching
    batching.preserve_ordering = True
    if rng.random() < 0.5:
        batching.priority_levels = rng.choice((1, 2))
        batching.default_priority_level = 1
    queue = batching.priority_queue_policy[1] if rng.random() < 0.3 else batching.default_queue_policy
    queue.timeout_action = 1
    queue.default_timeout_microseconds = rng.choice((0, 100))
    return True


def _warm(rng: Random, model: Model) -> Any:
    sample = grammar.warm_up(rng, model)
    sample.batch_size = rng.choice((0, 1, 1, 1))
    return sample


def m_warm_up_batch(rng: Random, model: Model) -> bool:
    _warm(rng, model).batch_size = model.config.max_batch_size + rng.choice((1, 2))
    return True


def m_warm_up_input(rng: Random, model: Model) -> bool:
    sample = _warm(rng, model)
    name = rng.choice([tensor.name for tensor in model.config.input])
    if name not in sample.inputs:
        return False
    given = sample.inputs[name]
    draw = rng.choice(("missing", "more", "type", "rank", "size", "free", "zero", "data", "file", "short", "huge"))
    if draw == "missing":
        del sample.inputs[name]
    elif draw == "more":
        sample.inputs["another"].CopyFrom(given)
    elif draw == "type":
        given.data_type = "TYPE_UINT32"
    elif draw == "rank":
        given.dims.append(1)
    elif draw == "size":
        given.dims[0] += 1
    elif draw == "free":
        given.dims[0] = -1
    elif draw == "zero":
        given.dims[0] = 0
    elif draw == "data":
        for field in ("zero_data", "random_data", "input_data_file"):
            given.ClearField(field)
    elif draw == "file":
        given.input_data_file = rng.choice(("gone", "", "/etc/hostname"))
    elif draw == "short":
        given.input_data_file = "short"
        model.files["warmup/short"] = b"x"
    elif given.zero_data or given.random_data:
        given.dims[0] = 2**45
    else:
        return False
    return True


def m_kind_and_gpus(rng: Random, model: Model) -> bool:
    model.config.instance_group.add(kind=rng.choice(("KIND_CPU", "KIND_MODEL")), gpus=[0])
    return True


def m_profile(rng: Random, model: Model) -> bool:
    model.config.instance_group.add(kind="KIND_CPU", profile=["0"])
    return True


def m_count(rng: Random, model: Model) -> bool:
    model.config.instance_group.add(kind="KIND_CPU", count=-2)
    return True


def m_resource(rng: Random, model: Model) -> bool:
    name = f"R{rng.random()}"
    for everywhere in (False, rng.random() < 0.7):
        limiter = model.config.instance_group.add(kind="KIND_CPU").rate_limiter
        limiter.resources.add(name=name, count=1, **{"global": everywhere})
    return True


def m_versions(rng: Random, model: Model) -> bool:
    policy = model.config.version_policy
    draw = rng.choice(("none", "gone", "latest", "all", "negative"))
    if draw == "none":
        policy.specific.SetInParent()
        del policy.specific.versions[:]
    elif draw == "gone":
        policy.specific.ClearField("versions")
        policy.specific.versions.extend(rng.sample((1, 5, 6, 9), rng.choice((1, 2))))
    elif draw == "latest":
        policy.latest.SetInParent()
        policy.latest.num_versions = 0
    elif draw == "all":
        policy.all.SetInParent()
    else:
        policy.specific.ClearField("versions")
        policy.specific.versions.append(-1)
    return True


def m_backend(rng: Random, model: Model) -> bool:
    model.config.backend = rng.choice(("Python", "PYTHON", "py_thon", "ensemble", ""))
    if model.config.backend == "ensemble":
        model.config.backend, model.config.platform = "", "ensemble"
    elif not model.config.backend:
        model.config.platform = rng.choice(("python", "", "model.py"))
    return True


def m_parameter(rng: Random, model: Model) -> bool:
    name, value = rng.choice(
        (
            ("FORCE_CPU_ONLY_INPUT_TENSORS", "true"),
            ("FORCE_CPU_ONLY_INPUT_TENSORS", ""),
            ("EXECUTION_ENV_PATH", "/nowhere/env.tar.gz"),
            ("EXECUTION_ENV_PATH", "env.tar.gz"),
            ("EXECUTION_ENV_PATH", ""),
            ("EXECUTION_ENV_PATH", "$$TRITON_MODEL_DIRECTORY/gone"),
            ("EXECUTION_ENV_PATH", "$$TRITON_MODEL_DIRECTORY/1"),
            ("TRITON_BATCH_STRATEGY_PATH", "/nowhere/strategy.so"),
            ("TRITON_BATCH_STRATEGY_PATH", "/etc/hostname"),
        )
    )
    model.config.parameters[name].string_value = value
    return True


def m_no_agents(rng: Random, model: Model) -> bool:
    model.config.model_repository_agents.SetInParent()
    return True


def m_ensemble_scheduling(rng: Random, model: Model) -> bool:
    step = model.config.ensemble_scheduling.step.add(model_name="x", model_version=-1)
    step.input_map["a"] = model.config.input[0].name
    step.output_map["b"] = model.config.output[0].name
    return True
