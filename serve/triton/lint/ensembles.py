"""Rules of ensembles: steps that exist, tensors that are there and fit, no cycle, versions pinned."""

from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from ...deployment import Broken
from . import flow
from .versions import loaded

_FIELD = "ensemble_scheduling"


def broken_rules(config: Any) -> Iterator[Broken]:
    """Every rule that an ensemble breaks by itself, whatever the models that it names."""
    if config.platform == "ensemble" and not config.HasField(_FIELD):
        yield Broken(field=_FIELD, rule="missing from an ensemble; Triton refuses the model", fix="write its steps")
    if not config.HasField(_FIELD):
        return
    if config.platform != "ensemble" or config.backend:
        yield Broken(
            field="platform",
            rule='an ensemble needs platform: "ensemble" and no backend; Triton refuses the model',
            fix="write exactly that",
        )
    for field, given in (("optimization", config.HasField("optimization")), ("model_warmup", config.model_warmup)):
        if given:
            yield Broken(
                field=field,
                rule="an ensemble cannot have it; Triton refuses the model",
                fix="remove it, and write it for the models of the steps",
            )
    if not config.ensemble_scheduling.step:
        yield Broken(
            field=f"{_FIELD}.step", rule="the ensemble has no steps; Triton refuses the model", fix="write the steps"
        )
    for number, step in enumerate(config.ensemble_scheduling.step):
        yield from _step(f"{_FIELD}.step.{number}", step)
    yield from flow.broken_rules(config)


def _step(field: str, step: Any) -> Iterator[Broken]:
    for part in ("model_name", "input_map", "output_map"):
        if not getattr(step, part):
            yield Broken(
                field=f"{field}.{part}",
                rule="not given; Triton refuses the model",
                fix="name the model, and map its tensors",
            )
    if step.model_version == -1:
        yield Broken(
            field=f"{field}.model_version",
            rule=f"-1 follows the newest version of {step.model_name}, even during a rollout",
            fix="pin the version that was proven",
            severity="warning",
        )


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
                fix=f"available models: {', '.join(sorted(models))}",
            )
            continue
        if step.model_version != -1 and step.model_version not in loaded(member, versions.get(step.model_name, ())):
            yield Broken(
                field=f"{field}.model_version",
                rule=_not_loaded(step),
                fix="pin one that its configuration serves, or write -1 for the newest",
            )
        if 0 < member.max_batch_size < config.max_batch_size:
            yield Broken(
                field="max_batch_size",
                rule=(
                    f"{config.max_batch_size} is too large: {step.model_name} accepts at most "
                    f"{member.max_batch_size}; Triton refuses the model"
                ),
                fix="use the smallest value of the steps; ignore steps that do not batch",
            )
        yield from _maps(field, step, member)
    yield from _types(config, models)
    yield from flow.broken_branches(config, models)
    if config.response_cache.enable and flow.is_decoupled(config, models):
        yield Broken(
            field="response_cache",
            rule="a step's model is decoupled, and so is the ensemble: Triton refuses the cache",
            fix="remove it",
        )
    uses = {
        model: {step.model_name for step in each.ensemble_scheduling.step if step.model_name in models}
        for model, each in models.items()
        if each.HasField(_FIELD)
    }
    if flow.cyclic({model: found & set(uses) for model, found in _reachable(name, uses).items()}):
        yield Broken(field=f"{_FIELD}.step", rule="ensembles contain each other in a cycle", fix="break the cycle")


def _not_loaded(step: Any) -> str:
    if step.model_version == 0:
        return (
            f"missing or 0, which is version 0 of {step.model_name}, and that is not loaded; Triton refuses the model"
        )
    return (
        f"version {step.model_version} of {step.model_name} does not exist or is not served; Triton refuses the model"
    )


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
                rule=f"{step.model_name} has no {side} {', '.join(unknown)}; Triton refuses the model",
                fix=f"available {side}s: {', '.join(sorted(names))}",
            )
        needed = {tensor.name for tensor in tensors if not (side == "input" and tensor.optional)}
        if side == "input" and needed - set(mapped):
            yield Broken(
                field=f"{field}.input_map",
                rule=(
                    f"{', '.join(sorted(needed - set(mapped)))} of {step.model_name} not mapped; Triton refuses "
                    "the model"
                ),
                fix="map every input",
            )


def _types(config: Any, models: Mapping[str, Any]) -> Iterator[Broken]:
    """Wherever two ends meet in one tensor, the later one must agree with the first on type and shape.

    The ensemble's own tensors count with their reshape, those of the steps with their dims.
    """
    ends: dict[str, list[_End]] = {}
    for tensor in (*config.input, *config.output):
        inner = tensor.reshape.shape if tensor.HasField("reshape") else tensor.dims
        end = _End("the ensemble", tensor.data_type, list(inner), config.max_batch_size > 0)
        ends.setdefault(tensor.name, [end])
    for step in config.ensemble_scheduling.step:
        member: Any = models.get(step.model_name)
        for mapped, tensors in (
            ((step.input_map, member.input), (step.output_map, member.output)) if member is not None else ()
        ):
            for tensor in tensors:
                if tensor.name in mapped:
                    end = _End(step.model_name, tensor.data_type, list(tensor.dims), member.max_batch_size > 0)
                    ends.setdefault(mapped[tensor.name], []).append(end)
    for name, (first, *others) in ends.items():
        for other in others:
            if config.max_batch_size > 1 and first.fits(other) and not _alike(first.whole, other.whole):
                yield Broken(
                    field=f"{_FIELD}.step",
                    rule=(
                        f"{name} is {first} for {first.model}, and for {other.model} {other}: they match for a single "
                        "item; larger requests are refused"
                    ),
                    fix="write max_batch_size: 1, or let both have the batch axis",
                    severity="warning",
                )
            if not first.fits(other):
                yield Broken(
                    field=f"{_FIELD}.step",
                    rule=f"{name} is {first} for {first.model} but {other} for {other.model}; Triton refuses the model",
                    fix="add a step between them that converts it, or change the shape",
                )


@dataclass(frozen=True, slots=True)
class _End:
    """One model's view of a tensor."""

    model: str
    data_type: int
    dims: list[int]
    batching: bool

    @property
    def whole(self) -> list[int]:
        """The dims with the batch axis, where there is one."""
        return [-1, *self.dims] if self.batching else self.dims

    def fits(self, other: "_End") -> bool:
        """Return whether Triton joins the two: dims or whole shapes have to agree."""
        alike = _alike(self.dims, other.dims) or _alike(self.whole, other.whole)
        return self.data_type == other.data_type and alike

    def __str__(self) -> str:
        from tritonclient.grpc import model_config_pb2 as pb

        known = self.data_type in pb.DataType.values()
        return f"{pb.DataType.Name(self.data_type) if known else self.data_type}{self.whole}"


def _alike(one: list[int], other: list[int]) -> bool:
    return len(one) == len(other) and all(-1 in pair or pair[0] == pair[1] for pair in zip(one, other, strict=True))


def _reachable(start: str, uses: Mapping[str, set[str]]) -> dict[str, set[str]]:
    found: dict[str, set[str]] = {}
    queue = [start]
    while queue:
        name = queue.pop()
        if name in uses and name not in found:
            found[name] = uses[name]
            queue += uses[name]
    return found
