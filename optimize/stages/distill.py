"""Distill: train a smaller student on the source's outputs and, where configured, on its hidden states."""

import torch

from ..artifact import Artifact
from ..intake.on_state import refuse_state
from ..recipe.configs import DistillConfig
from ..sessions.on_torch import Architecture, TorchSession, build_module, save_module
from .stage import Context, Made
from .training_job import TrainingJob, learn
from .workers import learn_in_workers


def run(config: DistillConfig, parent: Artifact, context: Context) -> Made:
    """Make the student's files; the teacher is the parent. Projections and other means of training are not kept."""
    torch.set_num_threads(context.environment.cores)
    student = context.reference(config.student)
    torch.manual_seed(context.seed)
    module = build_module(student, config.arguments)
    samples = context.samples("train")
    task = TrainingJob(
        config=config,
        teacher=parent,
        samples=samples,
        store=context.store,
        seed=context.seed,
        checkpoint=context.checkpoints,
    )
    if config.training.processes == 1:
        loss = learn(task, module, context.progress)
    else:
        loss = learn_in_workers(task, student, module, context.folder, context.progress)
    session = TorchSession(module, parent.inputs, parent.outputs)
    refuse_state(module, session, samples.take(2).inputs, student.text)
    factory = f"source.py:{student.name}" if student.file else student.text
    files = save_module(module, Architecture(factory=factory, arguments=config.arguments), student.file, context.folder)
    return Made(
        format="torch",
        files=tuple(files),
        inputs=parent.inputs,
        outputs=parent.outputs,
        notes={
            "parameters": sum(p.numel() for p in module.parameters()),
            "loss": round(loss, 4),
            "samples": len(samples),
        },
    )
