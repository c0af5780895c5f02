"""Mutations of sequence batching: controls, slots, caches and states."""

from collections.abc import Callable
from random import Random
from typing import Any

from scripts.benchmarks import lint_grammar as grammar
from scripts.benchmarks.lint_unit import Model

Mutation = Callable[[Random, Model], bool]


def mutations() -> dict[str, Mutation]:
    """Every mutation of this file, by name."""
    return {name.removeprefix("m_"): call for name, call in globals().items() if name.startswith("m_")}


def _sequence(rng: Random, model: Model) -> Any:
    config = model.config
    config.ClearField("dynamic_batching")
    if not config.HasField("sequence_batching"):
        config.ClearField("response_cache")
        grammar.sequence(rng, model)
    return config.sequence_batching


def m_control_twice(rng: Random, model: Model) -> bool:
    batching = _sequence(rng, model)
    if not batching.control_input:
        return False
    batching.control_input.append(batching.control_input[0])
    if rng.random() < 0.5:
        batching.control_input[-1].name = "other"
    return True


def m_control_tensor(rng: Random, model: Model) -> bool:
    batching = _sequence(rng, model)
    if len(batching.control_input) < 2:
        return False
    batching.control_input[1].name = batching.control_input[0].name
    return True


def m_control_name(rng: Random, model: Model) -> bool:
    _sequence(rng, model).control_input.add(name="")
    return True


def m_control_values(rng: Random, model: Model) -> bool:
    batching = _sequence(rng, model)
    if not batching.control_input:
        return False
    control = rng.choice(batching.control_input).control[0]
    field = rng.choice(("int32_false_true", "fp32_false_true", "bool_false_true"))
    if rng.random() < 0.4:
        for each in ("int32_false_true", "fp32_false_true", "bool_false_true"):
            control.ClearField(each)
    else:
        getattr(control, field).append(1)
    return True


def m_control_id(rng: Random, model: Model) -> bool:
    batching = _sequence(rng, model)
    del batching.control_input[:]
    control = batching.control_input.add(name="id").control.add(kind="CONTROL_SEQUENCE_CORRID")
    control.data_type = rng.choice(("TYPE_INVALID", "TYPE_FP32", "TYPE_INT64", "TYPE_BOOL", "TYPE_STRING"))
    return True


def m_control_kind(rng: Random, model: Model) -> bool:
    _sequence(rng, model).control_input.add(name="k").control.add(kind=9)
    return True


def m_slot_share(rng: Random, model: Model) -> bool:
    _sequence(rng, model).direct.minimum_slot_utilization = rng.choice((-0.1, 1.1, 7.0, float("inf"), 1.0))
    return True


def m_cache_of_sequence(rng: Random, model: Model) -> bool:
    _sequence(rng, model)
    model.config.response_cache.enable = True
    return True


def m_cache_of_decoupled(rng: Random, model: Model) -> bool:
    model.config.response_cache.enable = True
    model.config.model_transaction_policy.decoupled = True
    return True


def m_state(rng: Random, model: Model) -> bool:
    batching = _sequence(rng, model)
    found = grammar.state(rng, model, 7)
    if not found.initial_state:
        found.initial_state.add(name="i", data_type=found.data_type, zero_data=True)
        found.initial_state[0].dims.extend([2 if dim == -1 else dim for dim in found.dims])
    initial = found.initial_state[0]
    draw = rng.choice(("name", "type", "rank", "size", "free", "data", "two", "again", "missing", "short", "negative"))
    if draw == "name":
        initial.name = ""
    elif draw == "type":
        initial.data_type = "TYPE_UINT16"
    elif draw == "rank":
        initial.dims.append(1)
    elif draw == "size":
        initial.dims[0] += 1
    elif draw == "free":
        initial.dims[0] = -1
    elif draw == "data":
        initial.ClearField("zero_data")
        initial.ClearField("data_file")
    elif draw == "two":
        found.initial_state.append(initial)
    elif draw == "again":
        batching.state.append(found)
    elif draw == "missing":
        initial.data_file = rng.choice(("gone", "", "/etc/hostname"))
    elif draw == "short":
        initial.data_file = "short"
        model.files["initial_state/short"] = b"x"
    else:
        initial.dims[0] = -2
    return True


def m_state_size(rng: Random, model: Model) -> bool:
    _sequence(rng, model)
    found = grammar.state(rng, model, 8)
    del found.initial_state[:]
    found.dims[0] = 2**45
    if rng.random() < 0.7:
        dims = [1 if dim == -1 else dim for dim in found.dims]
        found.initial_state.add(name="i", data_type=found.data_type, dims=dims, zero_data=True)
    return True
