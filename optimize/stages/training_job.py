"""Distillation job as a value, and the function that runs it: in this process, or as one of several workers."""

from dataclasses import dataclass
from pathlib import Path

import torch

from ..artifact import Artifact
from ..pruning import on_pattern
from ..recipe.configs import DistillConfig
from ..samples import Samples
from ..sessions.on_torch import open_module
from ..store import Store
from .objective import ANSWERS, Objective, Term, terms_of
from .teacher import Targets, teacher_answers, teacher_targets
from .training import Progress, first_inputs, train


@dataclass(frozen=True, slots=True, kw_only=True)
class TrainingJob:
    """Training job: its `config`, teacher, samples, and the folder for checkpoints (None for none)."""

    config: DistillConfig
    teacher: Artifact
    samples: Samples
    store: Store
    seed: int
    checkpoint: Path | None


def learn(task: TrainingJob, module: torch.nn.Module, progress: Progress) -> float:
    """Train a student in place; returns the last mean loss.

    Raises:
        ConfigError: a glob of the configuration fits no layer of the student or the teacher.
        StageError: what is compared has no comparable shape, or training diverged.
    """
    config, output = task.config, task.teacher.outputs[0].name
    terms, targets = _asked(task, module, lambda share, text: progress(share * 0.2, text))
    torch.manual_seed(task.seed)  # projections and dropout start the same in every process
    objective = Objective(
        module,
        terms,
        config.training,
        output=output,
        output_weight=config.output_weight,
        example=first_inputs(task.samples),
        targets=targets.first(),
    )
    with on_pattern.held(module, tuple(on_pattern.sparse(module))):  # a student in the 2:4 pattern keeps it
        return train(
            objective,
            task.samples,
            targets,
            config.training,
            seed=task.seed,
            checkpoint=task.checkpoint,
            progress=lambda share, text: progress(0.2 + share * 0.8, text),
        )


def _asked(task: TrainingJob, module: torch.nn.Module, progress: Progress) -> tuple[tuple[Term, ...], Targets]:
    """Return the compared quantities and the teacher's values for them; opens the teacher only where needed."""
    config, teacher, samples, store = task.config, task.teacher, task.samples, task.store
    if not (config.features or config.attention or config.relations):
        answers = teacher_answers(teacher, samples, store, progress)
        return (), Targets({ANSWERS: answers}, samples, teacher.outputs[0].name)
    opened = open_module(teacher, store)
    terms = terms_of(config, module, opened)
    limit, precision = config.hidden_limit_mb * 2**20, getattr(torch, config.hidden_precision)
    return terms, teacher_targets(
        teacher, opened, samples, store, terms, progress, limit_bytes=limit, precision=precision
    )
