"""Flow of tensors through an ensemble: sources, readers, order, and responses of decoupled models."""

from collections.abc import Iterator, Mapping
from typing import Any

from ...deployment import Broken

_FIELD = "ensemble_scheduling"


def broken_rules(config: Any) -> Iterator[Broken]:
    """Every rule of the flow: one source for each tensor, a reader for each, and no step that waits for itself."""
    steps = list(config.ensemble_scheduling.step)
    inputs, outputs = {tensor.name for tensor in config.input}, [tensor.name for tensor in config.output]
    sources: dict[str, int] = {}
    for number, step in enumerate(steps):
        for name in step.output_map.values():
            field = f"{_FIELD}.step.{number}.output_map"
            if name in sources:
                yield Broken(
                    field=field,
                    rule=f"{name} already has another source; Triton refuses the model",
                    fix="give each tensor one source",
                )
            elif name in inputs:
                yield Broken(
                    field=field,
                    rule=f"{name} is also an input of the ensemble: the request's value and the step's value alternate",
                    fix="give each tensor one source",
                    effect="loads",
                )
            sources.setdefault(name, number)
    read = {name for step in steps for name in step.input_map.values()}
    for number, step in enumerate(steps):
        for name in sorted(set(step.input_map.values()) - set(sources) - inputs):
            yield Broken(
                field=f"{_FIELD}.step.{number}.input_map",
                rule=f"no step produces {name}; Triton refuses the model",
                fix=f"available tensors: {', '.join(sorted({*sources, *inputs}))}",
            )
    for name in outputs:
        if name not in sources and name not in read & inputs:
            yield Broken(
                field=f"output.{name}",
                rule="no step produces it; Triton refuses the model",
                fix="map a step's output to it",
            )
    waits = {
        number: {sources[name] for name in step.input_map.values() if name in sources and name not in inputs}
        for number, step in enumerate(steps)
    }
    if cyclic(waits):
        yield Broken(field=f"{_FIELD}.step", rule="steps wait for each other in a cycle", fix="break the cycle")
    for name in sorted(inputs - read - set(sources)):
        yield Broken(
            field=f"input.{name}", rule="no step reads it; Triton refuses the model", fix="map it or remove it"
        )
    for name in sorted(set(sources) - read - set(outputs)):
        yield Broken(
            field=f"{_FIELD}.step.{sources[name]}.output_map",
            rule=f"no step reads {name}, and it is not an output; Triton refuses the model",
            fix="omit unused outputs, or make it an output of the ensemble",
        )


def broken_branches(config: Any, models: Mapping[str, Any]) -> Iterator[Broken]:
    """Broken where a step, or the response, joins responses of different decoupled models, or of one and none."""
    for where, names, branches in _joins(config, models):
        if len(branches) > 1:
            yield Broken(
                field=where,
                rule=(
                    f"{', '.join(sorted(names))} come from different decoupled models, or only some of them from "
                    "one, so responses cannot be paired; Triton refuses the model"
                ),
                fix="route them through the same decoupled step",
            )


def is_decoupled(config: Any, models: Mapping[str, Any], inside: frozenset[str] = frozenset()) -> bool:
    """Return whether a model may give more than one response: by its own word, or by a step of it."""
    if not config.HasField(_FIELD):
        return bool(config.model_transaction_policy.decoupled)
    members = [step.model_name for step in config.ensemble_scheduling.step if step.model_name not in inside]
    return any(is_decoupled(models[name], models, inside | {name}) for name in members if name in models)


def _joins(config: Any, models: Mapping[str, Any]) -> Iterator[tuple[str, set[str], set[int]]]:
    """Yield where tensors are joined, which they are, and the branches that they come from.

    Branch 0 is that of the request; each decoupled step opens one of its own.
    """
    branch = dict.fromkeys((tensor.name for tensor in config.input), 0)
    waiting = list(enumerate(config.ensemble_scheduling.step))
    while ready := [(number, step) for number, step in waiting if set(step.input_map.values()) <= set(branch)]:
        for number, step in ready:
            names = set(step.input_map.values())
            found = {branch[name] for name in names}
            yield f"{_FIELD}.step.{number}.input_map", names, found
            member = models.get(step.model_name)
            own = number + 1 if member is not None and is_decoupled(member, models) else min(found, default=0)
            for name in step.output_map.values():
                branch.setdefault(name, own)
        waiting = [each for each in waiting if each not in ready]
    names = {tensor.name for tensor in config.output} & set(branch)
    yield "output", names, {branch[name] for name in names}


def cyclic(waits: Mapping[Any, set[Any]]) -> bool:
    """Return whether the graph has a cycle: nodes without dependencies are removed until none is left."""
    left = {node: set(others) for node, others in waits.items()}
    while free := [node for node, others in left.items() if not others & set(left)]:
        for node in free:
            del left[node]
    return bool(left)
