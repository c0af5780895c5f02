"""Training objective of a student: its outputs and hidden states, compared with the teacher's.

A `Term` is one compared pair of layers; `Objective` is the student together with its projections and the loss, as one
module, so that it can be trained, checkpointed and shared among workers like any other.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch.nn import functional

from ..errors import ConfigError, StageError
from ..recipe.configs import DistillConfig, Training
from .layers import attention_of, find_layers, hidden_of, observe
from .losses import (
    activation_loss,
    activation_map,
    answer_loss,
    attention_loss,
    attention_map,
    feature_loss,
    relation_loss,
)

ANSWERS = "answers"
Tensors = Mapping[str, torch.Tensor]
Kind = Literal["features", "activations", "weights", "relations"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Term:
    """One compared pair: the names of the two layers, None for the outputs."""

    kind: Kind
    student: str | None
    teacher: str | None
    weight: float

    @property
    def target(self) -> str:
        """The name of what the teacher must tell for this term."""
        return ANSWERS if self.teacher is None else f"{self.kind}:{self.teacher}"


def terms_of(config: DistillConfig, student: torch.nn.Module, teacher: torch.nn.Module) -> tuple[Term, ...]:
    """The pairs that a configuration's globs stand for.

    Raises:
        ConfigError: a glob fits no layer, or two globs fit different numbers of layers.
    """
    asked: list[tuple[Kind, str, str | None, str | None, float]] = []
    asked += [("features", "features", pair.student, pair.teacher, pair.weight) for pair in config.features]
    asked += [(pair.maps, "attention", pair.student, pair.teacher, pair.weight) for pair in config.attention]
    asked += [("relations", "relations", pair.student, pair.teacher, pair.weight) for pair in config.relations]
    terms = []
    for kind, key, mine, theirs, weight in asked:
        if mine is None or theirs is None:
            terms.append(Term(kind=kind, student=None, teacher=None, weight=weight))
            continue
        ours = find_layers(student, mine, f"{key}.student, layers of the student")
        others = find_layers(teacher, theirs, f"{key}.teacher, layers of the teacher")
        if len(ours) != len(others):
            raise ConfigError(
                f"{mine!r} fits {len(ours)} layers of the student, {theirs!r} {len(others)} of the teacher",
                where=key,
                next_step=f"name as many on both sides: {', '.join(ours[:6])} | {', '.join(others[:6])}",
            )
        terms += [
            Term(kind=kind, student=one, teacher=other, weight=weight / len(ours))
            for one, other in zip(ours, others, strict=True)
        ]
    return tuple(terms)


def read_layer(kind: Kind, module: torch.nn.Module, name: str, result: Any) -> torch.Tensor:
    """Return the part of a layer's result that a term compares."""
    if kind == "weights":
        return attention_map(attention_of(result, module.get_submodule(name), name))
    hidden = hidden_of(result, name)
    if kind == "activations":
        if hidden.ndim < 3:
            raise StageError(
                f"layer {name} has no positions for an activation map", next_step="name a convolutional layer"
            )
        return activation_map(hidden)
    return hidden.flatten(1) if kind == "relations" else hidden


class Objective(torch.nn.Module):
    """A student with its loss; `forward` gives the loss that is a mean over samples, and the one of the whole batch.

    `example` and `targets` are a few samples and what the teacher says of them: the shapes that projections need.
    """

    def __init__(
        self,
        student: torch.nn.Module,
        terms: tuple[Term, ...],
        training: Training,
        *,
        output: str,
        output_weight: float = 1.0,
        example: Tensors,
        targets: Tensors,
    ) -> None:
        super().__init__()
        self.student = student
        self.projections = torch.nn.ModuleDict()
        self._terms = terms
        self._training = training
        self._output = output
        self._output_weight = output_weight
        student.eval()
        with torch.no_grad():
            answer, seen = observe(student, example, output, self._layers)
        _check_shape(answer, targets[ANSWERS])
        for number, term in enumerate(terms):
            if term.kind == "features" and term.student is not None:
                mine = read_layer(term.kind, student, term.student, seen[term.student])
                axis = _channels(mine, targets[term.target], term)
                width, wanted = mine.shape[axis], targets[term.target].shape[axis]
                if width != wanted:
                    self.projections[str(number)] = _Projection(width, wanted, axis)

    @property
    def _layers(self) -> list[str]:
        return [term.student for term in self._terms if term.student is not None]

    def forward(
        self, inputs: Tensors, targets: Tensors, labels: torch.Tensor | None
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Two scalars: the mean over these samples, and the loss over pairs of samples (of all workers' shares)."""
        answer, seen = observe(self.student, inputs, self._output, self._layers)
        _check_shape(answer, targets[ANSWERS])
        training = self._training
        mean = answer.new_zeros(())
        if self._output_weight:
            loss = answer_loss(answer, targets[ANSWERS], labels, training.temperature, training.soft_weight)
            mean = mean + self._output_weight * loss
        across = answer.new_zeros(())
        for number, term in enumerate(self._terms):
            mine = (
                answer
                if term.student is None
                else read_layer(term.kind, self.student, term.student, seen[term.student])
            )
            theirs = targets[term.target].to(mine.dtype)
            if term.kind == "relations":
                across = across + term.weight * relation_loss(whole_batch(mine), whole_batch(theirs))
            else:
                mean = mean + term.weight * self._compare(number, term, mine, theirs)
        return mean, across

    def _compare(self, number: int, term: Term, mine: torch.Tensor, theirs: torch.Tensor) -> torch.Tensor:
        if term.kind == "weights":
            if mine.shape != theirs.shape:
                raise StageError(
                    f"attention of {term.student} is {tuple(mine.shape)}, of the teacher's {term.teacher} "
                    f"{tuple(theirs.shape)}",
                    next_step="pair layers over the same tokens",
                )
            return attention_loss(mine, theirs)
        mine, theirs = _same_grid(mine, theirs)
        if term.kind == "activations":
            return activation_loss(mine, theirs)
        projection = self.projections[str(number)] if str(number) in self.projections else torch.nn.Identity()
        return feature_loss(projection(mine), theirs)


class _Projection(torch.nn.Module):
    """A linear map along one axis."""

    def __init__(self, width: int, wanted: int, axis: int) -> None:
        super().__init__()
        self.axis = axis
        self.linear = torch.nn.Linear(width, wanted)

    def forward(self, hidden: torch.Tensor) -> torch.Tensor:
        return self.linear(hidden.movedim(self.axis, -1)).movedim(-1, self.axis)  # type: ignore[no-any-return]


def whole_batch(share: torch.Tensor) -> torch.Tensor:
    """Rows of all workers in their order; only this worker's carry gradients. Alone, the tensor itself."""
    if not (torch.distributed.is_available() and torch.distributed.is_initialized()):
        return share
    world, rank = torch.distributed.get_world_size(), torch.distributed.get_rank()
    counts = [torch.zeros((), dtype=torch.int64, device=share.device) for _ in range(world)]
    torch.distributed.all_gather(counts, torch.tensor(len(share), device=share.device))
    most = int(max(counts))
    padded = functional.pad(share.detach().flatten(1), (0, 0, 0, most - len(share)))
    parts = [torch.empty_like(padded) for _ in range(world)]
    torch.distributed.all_gather(parts, padded)
    rows = [part[: int(count)] for part, count in zip(parts, counts, strict=True)]
    rows[rank] = share.flatten(1)
    return torch.cat(rows)


def _check_shape(result: torch.Tensor, answers: torch.Tensor) -> None:
    if result.shape != answers.shape:
        raise StageError(
            f"the student's output has shape {tuple(result.shape)}, the teacher's {tuple(answers.shape)}",
            next_step="make the student's output shape equal to the teacher's",
        )


def _channels(mine: torch.Tensor, theirs: torch.Tensor, term: Term) -> int:
    """The axis of the channels: 1 in images [n, c, h, w], in 3 axes the one beside which all are equal, else the last.

    Raises:
        StageError: the two tensors cannot be laid over each other.
    """
    if mine.ndim == theirs.ndim:
        if mine.ndim >= 4:
            return 1
        if mine.ndim == 2 or mine.shape[1] == theirs.shape[1]:
            return mine.ndim - 1
        if mine.shape[2] == theirs.shape[2]:
            return 1
    raise StageError(
        f"{term.student} gives {tuple(mine.shape)}, the teacher's {term.teacher} {tuple(theirs.shape)}",
        next_step="pair layers that differ in width only, or image layers",
    )


def _same_grid(mine: torch.Tensor, theirs: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Images [n, c, h, w] and signals [n, 1, length] of maps averaged down to the smaller of the two grids."""
    if mine.ndim != theirs.ndim:
        raise StageError(f"layers of {mine.ndim} and {theirs.ndim} axes cannot be compared", next_step="pair others")
    if mine.ndim == 4 and mine.shape[2:] != theirs.shape[2:]:
        grid = (min(mine.shape[2], theirs.shape[2]), min(mine.shape[3], theirs.shape[3]))
        return functional.adaptive_avg_pool2d(mine, grid), functional.adaptive_avg_pool2d(theirs, grid)
    if mine.ndim == 3 and mine.shape[1] == theirs.shape[1] == 1 and mine.shape[2] != theirs.shape[2]:
        length = min(mine.shape[2], theirs.shape[2])
        return functional.adaptive_avg_pool1d(mine, length), functional.adaptive_avg_pool1d(theirs, length)
    return mine, theirs
