"""Ensembles from a grammar: chains and branches of python models, with and without a batch axis, nested, decoupled."""

from dataclasses import dataclass
from random import Random
from typing import Any

from scripts.benchmarks.lint_grammar import shape
from scripts.benchmarks.lint_unit import Model, Unit, message, python_files

_TYPES = ("TYPE_FP32", "TYPE_INT64", "TYPE_STRING")


@dataclass(frozen=True, slots=True)
class _Tensor:
    """A tensor of the ensemble."""

    name: str
    data_type: str
    dims: tuple[int, ...]


def ensemble(rng: Random, name: str) -> Unit:
    """An ensemble of one to four steps, each of a model of its own or of one that stood before."""
    limit = rng.choice((0, 0, 2, 8))
    config = message().ModelConfig(platform="ensemble", max_batch_size=limit)
    unit = Unit(target=name, models={name: Model(config=config, files={"1": None})})
    if rng.random() < 0.5:
        config.name = name
    there = [_drawn(rng, f"in{number}") for number in range(rng.choice((1, 1, 2)))]
    inputs, read = list(there), set[str]()
    for number in range(rng.choice((1, 1, 2, 2, 3))):
        taken = rng.sample(there, min(len(there), rng.choice((1, 1, 2))))
        if number == 0:
            taken = inputs
        made = [_drawn(rng, f"t{number}{side}") for side in range(rng.choice((1, 1, 2)))]
        _step(rng, unit, f"{name}_m{number}", taken, made, limit)
        read |= {each.name for each in taken}
        there += made
    outputs = [each for each in there if each.name not in read or rng.random() < 0.15]
    for side, ports in (("input", inputs), ("output", outputs)):
        for each in rng.sample(ports, len(ports)):
            getattr(config, side).add(name=each.name, data_type=each.data_type, dims=each.dims)
    if rng.random() < 0.1:
        config.response_cache.enable = True
    if rng.random() < 0.1:
        rng.choice(config.output).label_filename = "labels.txt"
        unit.models[name].files["labels.txt"] = b"a\nb\n"
    if rng.random() < 0.2:
        return _nested(rng, unit)
    return unit


def _drawn(rng: Random, name: str) -> _Tensor:
    return _Tensor(name, rng.choice(_TYPES), tuple(shape(rng, 0.25)))


def _step(rng: Random, unit: Unit, name: str, taken: list[_Tensor], made: list[_Tensor], limit: int) -> None:
    """A python model for one step, and the step."""
    own = rng.choice((0, limit, limit + 3)) if limit else rng.choice((0, 0, 4))
    member = message().ModelConfig(backend="python", max_batch_size=own)
    member.model_transaction_policy.decoupled = rng.random() < 0.12
    versions = tuple(sorted(rng.sample((1, 2, 5), rng.choice((1, 1, 1, 1, 1, 2)))))
    unit.models[name] = Model(config=member, files=python_files(versions))
    for side, tensors in (("input", taken), ("output", made)):
        for number, each in enumerate(tensors):
            dims = _seen(rng, list(each.dims), limit > 0, own > 0)
            getattr(member, side).add(name=f"{side}{number}", data_type=each.data_type, dims=dims)
    if rng.random() < 0.2:
        member.input.add(name="spare", data_type="TYPE_FP32", dims=[1], optional=True)
    if rng.random() < 0.2:
        member.output.add(name="spare", data_type="TYPE_FP32", dims=[1])
    version = rng.choice((-1, versions[-1]))
    if rng.random() < 0.3:
        member.version_policy.specific.versions.extend(versions)
        version = rng.choice((-1, *versions))
    unit.models[unit.target].config.ensemble_scheduling.step.add(
        model_name=name,
        model_version=version,
        input_map={f"input{number}": each.name for number, each in enumerate(taken)},
        output_map={f"output{number}": each.name for number, each in enumerate(made)},
    )


def _seen(rng: Random, dims: list[int], outside: bool, inside: bool) -> list[int]:
    """A member's dims for a tensor of the ensemble: alike without the batch axis, or with it."""
    dims = [-1 if rng.random() < 0.1 else size for size in dims]
    if outside and not inside and rng.random() < 0.8:
        return [-1, *dims]
    if inside and not outside and len(dims) > 1 and rng.random() < 0.5:
        return dims[1:]
    return dims


def _nested(rng: Random, unit: Unit) -> Unit:
    """The ensemble as the only step of another one."""
    inner, name = unit.models[unit.target].config, f"{unit.target}_outer"
    outer: Any = message().ModelConfig(platform="ensemble", max_batch_size=rng.choice((0, inner.max_batch_size)))
    step = outer.ensemble_scheduling.step.add(model_name=unit.target, model_version=rng.choice((-1, 1)))
    for side, mapped in (("input", step.input_map), ("output", step.output_map)):
        for tensor in getattr(inner, side):
            dims = _seen(rng, list(tensor.dims), outer.max_batch_size > 0, inner.max_batch_size > 0)
            added = getattr(outer, side).add(name=f"outer_{side}_{tensor.name}", data_type=tensor.data_type, dims=dims)
            mapped[tensor.name] = added.name
    return Unit(target=name, models={**unit.models, name: Model(config=outer, files={"1": None})})
