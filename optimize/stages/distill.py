"""Distill: train a smaller student on the source's answers."""

import torch

from ..artifact import Artifact
from ..sessions.on_torch import Architecture, build_module, save_module
from .configs import DistillConfig
from .stage import Context, Made
from .training import fit, teacher_answers


def run(config: DistillConfig, parent: Artifact, context: Context) -> Made:
    """Make the student's files; the teacher is the parent."""
    torch.manual_seed(context.seed)
    torch.set_num_threads(context.environment.cores)
    student = context.reference(config.student)
    module = build_module(student, config.arguments)
    samples = context.samples("train")
    answers = teacher_answers(parent, samples, context.store, lambda share, text: context.progress(share * 0.2, text))
    loss = fit(
        module,
        samples,
        answers,
        config.training,
        output=parent.outputs[0].name,
        seed=context.seed,
        progress=lambda share, text: context.progress(0.2 + share * 0.8, text),
    )
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
