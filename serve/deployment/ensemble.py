"""The ensemble: a pipeline of models that Triton runs as one, pre- and post-processing around a model.

Says and checks itself; whether its steps exist and fit together is `serve.triton.compiler`'s business. Every step pins
a version: one that follows the newest would change under a running rollout.
"""

import tomllib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from ..triton_releases import DEFAULT
from .broken import Broken, outside, repeated

SCHEMA = 1


@dataclass(frozen=True, slots=True, kw_only=True)
class Port:
    """An input or output of the whole: numpy dtype name and shape without the batch axis, -1 for any length."""

    name: str
    dtype: str
    shape: tuple[int, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Step:
    """One model of the pipeline. The maps go from the model's own tensor names to names within the ensemble."""

    model: str
    version: int
    inputs: Mapping[str, str]
    outputs: Mapping[str, str]


@dataclass(frozen=True, slots=True, kw_only=True)
class Ensemble:
    """A pipeline of models under one name. `max_in_flight` bounds how many responses may wait between steps.

    Raises:
        ConfigRuleError: a field breaks a rule; names field, rule and fix.
    """

    schema: int
    name: str
    triton: str = DEFAULT
    max_batch_size: int
    inputs: tuple[Port, ...]
    outputs: tuple[Port, ...]
    steps: tuple[Step, ...]
    max_in_flight: int | None = None

    def __post_init__(self) -> None:
        for broken in _broken_rules(self):
            raise broken.error()


def is_ensemble(text: str) -> bool:
    """Return whether a TOML text describes an ensemble rather than a deployment; False for invalid TOML."""
    try:
        return "steps" in tomllib.loads(text)
    except (ValueError, RecursionError):
        return False


def _broken_rules(ensemble: Ensemble) -> Iterator[Broken]:
    from .rules import identity, legal_names, release

    yield from identity(ensemble.schema, SCHEMA, {"name": ensemble.name})
    yield from release(ensemble.triton)
    yield from outside(
        "max_batch_size", ensemble.max_batch_size, 0, 2**31 - 1, "use at most the smallest max_batch_size of the steps"
    )
    if ensemble.max_in_flight is not None:
        yield from outside("max_in_flight", ensemble.max_in_flight, 1, 2**31 - 1, "omit it for no limit")
    if not ensemble.steps:
        yield Broken(field="steps", rule="an ensemble needs at least one step", fix="add [[steps]]")
    for side, ports in (("inputs", ensemble.inputs), ("outputs", ensemble.outputs)):
        if not ports:
            yield Broken(field=side, rule="none is declared", fix=f"add [[{side}]] with name, dtype and shape")
        yield from repeated(side, [port.name for port in ports])
        for port in ports:
            if not port.shape or any(size != -1 and size < 1 for size in port.shape):
                yield Broken(
                    field=f"{side}.{port.name}",
                    rule=f"shape {list(port.shape)} is empty, or has a size that is neither -1 nor at least 1",
                    fix="give the shape without the batch axis; one number per item is [1]",
                )
    for number, step in enumerate(ensemble.steps):
        field = f"steps.{number}"
        yield from legal_names({f"{field}.model": step.model})
        yield from outside(f"{field}.version", step.version, 1, 2**63 - 1, "name the version that was proven")
        if not step.inputs or not step.outputs:
            yield Broken(field=field, rule=f"{step.model} maps no inputs or no outputs", fix="map all of them")
        if step.model == ensemble.name:
            yield Broken(
                field=f"{field}.model", rule="an ensemble cannot be a step of itself", fix="name another model"
            )
