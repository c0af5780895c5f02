"""Mutations of an ensemble and of the models of its steps."""

from collections.abc import Callable
from random import Random
from typing import Any

from scripts.benchmarks import lint_grammar as grammar
from scripts.benchmarks.lint_unit import Unit

Mutation = Callable[[Random, Unit], bool]


def mutations() -> dict[str, Mutation]:
    """Every mutation of this file, by name."""
    return {name.removeprefix("m_"): call for name, call in globals().items() if name.startswith("m_")}


def _top(unit: Unit) -> Any:
    return unit.models[unit.target].config


def _step(rng: Random, unit: Unit) -> Any:
    return rng.choice(_top(unit).ensemble_scheduling.step)


def _member(rng: Random, unit: Unit) -> Any:
    return unit.models[_step(rng, unit).model_name].config


def m_platform(rng: Random, unit: Unit) -> bool:
    config = _top(unit)
    config.platform, config.backend = rng.choice((("", ""), ("ensemble", "python"), ("Ensemble", ""), ("", "ensemble")))
    return True


def m_no_scheduling(rng: Random, unit: Unit) -> bool:
    _top(unit).ClearField("ensemble_scheduling")
    return True


def m_no_steps(rng: Random, unit: Unit) -> bool:
    config = _top(unit)
    config.ClearField("ensemble_scheduling")
    config.ensemble_scheduling.SetInParent()
    return True


def m_instances(rng: Random, unit: Unit) -> bool:
    _top(unit).instance_group.add(kind="KIND_CPU")
    return True


def m_optimization(rng: Random, unit: Unit) -> bool:
    _top(unit).optimization.SetInParent()
    return True


def m_warm_up(rng: Random, unit: Unit) -> bool:
    grammar.warm_up(rng, unit.models[unit.target])
    return True


def m_step_without(rng: Random, unit: Unit) -> bool:
    _step(rng, unit).ClearField(rng.choice(("model_name", "input_map", "output_map", "model_version")))
    return True


def m_version(rng: Random, unit: Unit) -> bool:
    _step(rng, unit).model_version = rng.choice((0, -1, -2, 1, 2, 3, 5))
    return True


def m_policy_of_member(rng: Random, unit: Unit) -> bool:
    policy = _member(rng, unit).version_policy
    if rng.random() < 0.5:
        policy.latest.num_versions = rng.choice((1, 2))
    else:
        policy.specific.ClearField("versions")
        policy.specific.versions.append(rng.choice((1, 2, 5)))
    return True


def m_unknown_model(rng: Random, unit: Unit) -> bool:
    _step(rng, unit).model_name = "nowhere"
    return True


def m_itself(rng: Random, unit: Unit) -> bool:
    _step(rng, unit).model_name = unit.target
    return True


def m_input_map(rng: Random, unit: Unit) -> bool:
    step = _step(rng, unit)
    key = rng.choice(sorted(step.input_map))
    draw = rng.choice(("drop", "key", "value", "other"))
    if draw == "other":
        step.input_map[key] = rng.choice([tensor.name for tensor in (*_top(unit).input, *_top(unit).output)])
        return True
    value = step.input_map.pop(key)
    if draw == "key":
        step.input_map["unknown"] = value
    elif draw == "value":
        step.input_map[key] = "unknown"
    return True


def m_output_map(rng: Random, unit: Unit) -> bool:
    step = _step(rng, unit)
    key = rng.choice(sorted(step.output_map))
    draw = rng.choice(("drop", "key", "value", "other", "input"))
    if draw == "other":
        step.output_map[key] = rng.choice([tensor.name for tensor in _top(unit).output])
        return True
    if draw == "input":
        step.output_map[key] = rng.choice([tensor.name for tensor in _top(unit).input])
        return True
    value = step.output_map.pop(key)
    if draw == "key":
        step.output_map["unknown"] = value
    elif draw == "value":
        step.output_map[key] = "unknown"
    return True


def m_spare_output(rng: Random, unit: Unit) -> bool:
    member, step = None, _step(rng, unit)
    member = unit.models[step.model_name].config
    member.output.add(name="more", data_type="TYPE_FP32", dims=[1])
    step.output_map["more"] = "more"
    if rng.random() < 0.3:
        _top(unit).output.add(name="more", data_type="TYPE_FP32", dims=[1])
    return True


def m_unused_input(rng: Random, unit: Unit) -> bool:
    _top(unit).input.add(name="unused", data_type="TYPE_FP32", dims=[1])
    return True


def m_unknown_output(rng: Random, unit: Unit) -> bool:
    _top(unit).output.add(name="unknown", data_type="TYPE_FP32", dims=[1])
    return True


def m_pass_through(rng: Random, unit: Unit) -> bool:
    config = _top(unit)
    passed = rng.choice(config.input)
    dims = grammar.shape(rng) if rng.random() < 0.3 else list(passed.dims)
    config.output.add(name=passed.name, data_type=passed.data_type, dims=dims)
    return True


def m_input_of_member(rng: Random, unit: Unit) -> bool:
    _member(rng, unit).input.add(name="more", data_type="TYPE_FP32", dims=[1], optional=rng.random() < 0.3)
    return True


def m_type(rng: Random, unit: Unit) -> bool:
    config = _top(unit) if rng.random() < 0.5 else _member(rng, unit)
    tensor = rng.choice([*config.input, *config.output])
    tensor.data_type = rng.choice(("TYPE_FP32", "TYPE_INT64", "TYPE_FP16"))
    return True


def m_dims(rng: Random, unit: Unit) -> bool:
    config = _top(unit) if rng.random() < 0.5 else _member(rng, unit)
    tensor = rng.choice([*config.input, *config.output])
    dims = list(tensor.dims)
    draw = rng.choice(("size", "free", "first", "longer", "shorter"))
    if draw == "size":
        dims[rng.randrange(len(dims))] = 5
    elif draw == "free":
        dims[rng.randrange(len(dims))] = -1
    elif draw == "first":
        dims = [rng.choice((-1, 1, 2)), *dims]
    elif draw == "longer":
        dims = [*dims, 1]
    elif len(dims) > 1:
        dims = dims[1:]
    del tensor.dims[:]
    tensor.dims.extend(dims)
    return True


def m_reshape(rng: Random, unit: Unit) -> bool:
    config = _top(unit) if rng.random() < 0.7 else _member(rng, unit)
    tensor = rng.choice([*config.input, *config.output])
    tensor.reshape.ClearField("shape")
    tensor.reshape.shape.extend(grammar.reshaped(rng, list(tensor.dims), config.max_batch_size > 0))
    return True


def m_batch(rng: Random, unit: Unit) -> bool:
    config = _top(unit) if rng.random() < 0.5 else _member(rng, unit)
    config.max_batch_size = rng.choice((0, 1, 2, 5, 16))
    return True


def m_decoupled(rng: Random, unit: Unit) -> bool:
    for step in _top(unit).ensemble_scheduling.step:
        member = unit.models[step.model_name].config
        member.model_transaction_policy.decoupled = rng.random() < 0.5
    return True


def m_cache(rng: Random, unit: Unit) -> bool:
    _top(unit).response_cache.enable = True
    return rng.random() < 0.5 or m_decoupled(rng, unit)


def m_broken_member(rng: Random, unit: Unit) -> bool:
    _member(rng, unit).max_batch_size = -1
    return True


def m_member_without_versions(rng: Random, unit: Unit) -> bool:
    member = unit.models[_step(rng, unit).model_name]
    member.files = {f"v{path}": content for path, content in member.files.items()}
    return True


def m_one_model_twice(rng: Random, unit: Unit) -> bool:
    config = _top(unit)
    first, last = config.ensemble_scheduling.step[0], config.ensemble_scheduling.step[-1]
    last.model_name = first.model_name
    return True


def m_unneeded_step(rng: Random, unit: Unit) -> bool:
    config = _top(unit)
    step = config.ensemble_scheduling.step.add()
    step.CopyFrom(_step(rng, unit))
    for key in list(step.output_map):
        step.output_map[key] = f"again_{key}"
    return True
