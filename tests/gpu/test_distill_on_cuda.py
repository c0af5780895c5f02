"""Distillation on a GPU comes to what the CPU comes to, alone and, where there are two, shared."""

from pathlib import Path

import pytest
import torch

from seatrial.optimize.recipe.configs import DistillConfig, Features, Training
from seatrial.optimize.stages.lesson import TrainingJob, learn
from seatrial.optimize.stages.workers import learn_in_workers
from seatrial.optimize.user_code import Reference
from tests.support.plain import HERE, School, school

pytestmark = [
    pytest.mark.experimental("GPU"),
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="torch finds no CUDA device on this machine"),
]


def lesson(at: School, training: Training) -> TrainingJob:
    config = DistillConfig(
        kind="distill",
        student="x",
        arguments={"width": 8},
        training=training,
        features=(Features(student="blocks.*", teacher="blocks.*"),),
        hidden_limit_mb=0,
    )
    return TrainingJob(config=config, teacher=at.teacher, samples=at.samples, store=at.store, seed=3, checkpoint=None)


def student() -> torch.nn.Module:
    torch.manual_seed(3)
    module: torch.nn.Module = Reference.parse(f"{HERE}:net", HERE.parent).call(width=8)
    return module


def difference(one: torch.nn.Module, other: torch.nn.Module) -> float:
    pairs = zip(one.state_dict().values(), other.state_dict().values(), strict=True)
    return max(float((mine - theirs).abs().max()) for mine, theirs in pairs)


@pytest.mark.parametrize("processes", [1, 2])
def test_a_gpu_comes_to_the_result_of_the_cpu(tmp_path: Path, processes: int) -> None:
    if processes > torch.cuda.device_count():
        pytest.skip(f"{processes} workers need as many GPUs")
    at = school(tmp_path, width=16)
    alone, there = student(), student()
    learn(lesson(at, Training(epochs=3, batch_size=17)), alone, lambda share, text: None)
    task = lesson(at, Training(epochs=3, batch_size=17, device="cuda", processes=processes))
    if processes == 1:
        learn(task, there, lambda share, text: None)
    else:
        factory = Reference.parse(f"{HERE}:net", HERE.parent)
        learn_in_workers(task, factory, there, tmp_path, lambda share, text: None)
    assert difference(alone, there) < 1e-3
