"""Rules of ensembles: steps that exist, tensors that are there and fit, no cycle, versions pinned."""

from collections.abc import Collection, Iterator, Mapping
from typing import Any

from ...deployment import Broken

_FIELD = "ensemble_scheduling"


def broken_rules(config: Any) -> Iterator[Broken]:
    """Every rule that an ensemble breaks by itself, whatever the models that it names."""
    if config.platform == "ensemble" and not config.HasField(_FIELD):
        yield Broken(field=_FIELD, rule="missing from an ensemble; refused", mend="write its steps")
    if not config.HasField(_FIELD):
        return
    if config.platform != "ensemble" or config.backend:
        yield Broken(
            field="platform",
            rule='an ensemble needs platform: "ensemble" and no backend; refused',
            mend="write exactly that",
        )
    if not config.ensemble_scheduling.step:
        yield Broken(field=f"{_FIELD}.step", rule="none; refused", mend="write the steps")
    yield from _flow(config)


def _flow(config: Any) -> Iterator[Broken]:
    """Within the ensemble: every tensor has one source, every one that is read has a source, none waits for itself."""
    sources = {tensor.name: -1 for tensor in config.input}
    steps = list(config.ensemble_scheduling.step)
    for number, step in enumerate(steps):
        if step.model_version < 1:
            yield Broken(
                field=f"{_FIELD}.step.{number}.model_version",
                rule=f"{step.model_version} follows whatever version of {step.model_name} is newest, during a rollout "
                "as well",
                mend="pin the version that was proven",
                severity="warning",
            )
        for name in step.output_map.values():
            if name in sources:
                yield Broken(
                    field=f"{_FIELD}.step.{number}.output_map",
                    rule=f"{name} has another source already; refused",
                    mend="give each tensor one source",
                )
            sources.setdefault(name, number)
    for number, step in enumerate(steps):
        for name in sorted(set(step.input_map.values()) - set(sources)):
            yield Broken(
                field=f"{_FIELD}.step.{number}.input_map",
                rule=f"nothing gives {name}; refused",
                mend=f"there are {', '.join(sorted(sources))}",
            )
    for tensor in config.output:
        if sources.get(tensor.name, -1) < 0:
            yield Broken(
                field=f"output.{tensor.name}", rule="no step gives it; refused", mend="map a step's output to it"
            )
    used = {name for step in steps for name in step.input_map.values()}
    for tensor in config.input:
        if tensor.name not in used:
            yield Broken(
                field=f"input.{tensor.name}", rule="no step reads it", mend="map it or drop it", severity="warning"
            )
    waits = {
        number: {sources[name] for name in step.input_map.values() if sources.get(name, -1) >= 0}
        for number, step in enumerate(steps)
    }
    if _cyclic(waits):
        yield Broken(field=f"{_FIELD}.step", rule="steps wait for each other in a circle", mend="break the circle")


def broken_references(
    name: str, config: Any, models: Mapping[str, Any], versions: Mapping[str, Collection[int]]
) -> Iterator[Broken]:
    """Every rule between an ensemble and the models that it names; `versions` are those on disk, by model."""
    if not config.HasField(_FIELD):
        return
    for number, step in enumerate(config.ensemble_scheduling.step):
        field, member = f"{_FIELD}.step.{number}", models.get(step.model_name)
        if member is None:
            yield Broken(
                field=f"{field}.model_name",
                rule=f"there is no usable model {step.model_name!r}",
                mend=f"there are {', '.join(sorted(models))}",
            )
            continue
        if step.model_version >= 1 and not _served(member, step.model_version, versions.get(step.model_name, ())):
            yield Broken(
                field=f"{field}.model_version",
                rule=f"version {step.model_version} of {step.model_name} is not there or not served",
                mend="pin one that its configuration serves",
            )
        if config.max_batch_size > 0 and member.max_batch_size < config.max_batch_size:
            yield Broken(
                field="max_batch_size",
                rule=f"{config.max_batch_size}, and {step.model_name} takes at most {member.max_batch_size}; refused",
                mend="take the least of the steps'",
            )
        yield from _maps(field, step, member)
    yield from _types(config, models)
    uses = {
        model: {step.model_name for step in each.ensemble_scheduling.step if step.model_name in models}
        for model, each in models.items()
        if each.HasField(_FIELD)
    }
    if _cyclic({model: found & set(uses) for model, found in _reachable(name, uses).items()}):
        yield Broken(field=f"{_FIELD}.step", rule="ensembles contain each other in a circle", mend="break the circle")


def _served(member: Any, version: int, on_disk: Collection[int]) -> bool:
    policy = member.version_policy
    listed = not policy.HasField("specific") or version in policy.specific.versions
    return listed and version in on_disk


def _maps(field: str, step: Any, member: Any) -> Iterator[Broken]:
    for side, mapped, tensors in (
        ("input", step.input_map, member.input),
        ("output", step.output_map, member.output),
    ):
        names = {tensor.name for tensor in tensors}
        unknown = sorted(set(mapped) - names)
        if tensors and unknown:
            yield Broken(
                field=f"{field}.{side}_map",
                rule=f"{step.model_name} has no {side} {', '.join(unknown)}; refused",
                mend=f"{side}s are {', '.join(sorted(names))}",
            )
        needed = {tensor.name for tensor in tensors if not (side == "input" and tensor.optional)}
        if side == "input" and needed - set(mapped):
            yield Broken(
                field=f"{field}.input_map",
                rule=f"{', '.join(sorted(needed - set(mapped)))} of {step.model_name} not mapped; refused",
                mend="map every input",
            )


def _types(config: Any, models: Mapping[str, Any]) -> Iterator[Broken]:
    """Wherever two ends meet in one tensor, they must agree on type and whole shape."""
    ends: dict[str, list[tuple[str, Any, int]]] = {}
    for tensor in (*config.input, *config.output):
        ends.setdefault(tensor.name, []).append(("the ensemble", tensor, config.max_batch_size))
    for step in config.ensemble_scheduling.step:
        member: Any = models.get(step.model_name)
        for mapped, tensors in (
            ((step.input_map, member.input), (step.output_map, member.output)) if member is not None else ()
        ):
            for tensor in tensors:
                if tensor.name in mapped:
                    ends.setdefault(mapped[tensor.name], []).append((step.model_name, tensor, member.max_batch_size))
    for name, met in ends.items():
        first, one, batch = met[0]
        for second, other, other_batch in met[1:]:
            if one.data_type != other.data_type or not _alike(_whole(one, batch), _whole(other, other_batch)):
                yield Broken(
                    field=f"{_FIELD}.step",
                    rule=f"{name} is {_told(one, batch)} for {first}, and for {second} {_told(other, other_batch)}; "
                    "refused",
                    mend="put a step between that converts it, or mend the shape",
                )


def _whole(tensor: Any, max_batch_size: int) -> list[int]:
    return [-1, *tensor.dims] if max_batch_size > 0 else list(tensor.dims)


def _alike(one: list[int], other: list[int]) -> bool:
    return len(one) == len(other) and all(-1 in pair or pair[0] == pair[1] for pair in zip(one, other, strict=True))


def _told(tensor: Any, max_batch_size: int) -> str:
    from tritonclient.grpc import model_config_pb2 as pb

    return f"{pb.DataType.Name(tensor.data_type)}{_whole(tensor, max_batch_size)}"


def _reachable(start: str, uses: Mapping[str, set[str]]) -> dict[str, set[str]]:
    found: dict[str, set[str]] = {}
    queue = [start]
    while queue:
        name = queue.pop()
        if name in uses and name not in found:
            found[name] = uses[name]
            queue += uses[name]
    return found


def _cyclic(waits: Mapping[Any, set[Any]]) -> bool:
    """Whether any node waits for itself: nodes that wait for nothing are taken away until none is left to take."""
    left = {node: set(others) for node, others in waits.items()}
    while free := [node for node, others in left.items() if not others & set(left)]:
        for node in free:
            del left[node]
    return bool(left)
