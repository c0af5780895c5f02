"""Distillation on a GPU comes to what the CPU comes to: alone, and in workers over NCCL, one and two of them."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

from seatrial.optimize.recipe.configs import DistillConfig, Features, Training
from seatrial.optimize.stages.training_job import TrainingJob, learn
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


@pytest.fixture
def fp32() -> Iterator[None]:
    """No TF32: the CPU has 24 bits, and a comparison with 11 would be one of formats."""
    backends: Any = torch.backends
    before = backends.fp32_precision
    backends.fp32_precision = "ieee"  # of matrix products and convolutions
    assert backends.cuda.matmul.fp32_precision == backends.cudnn.conv.fp32_precision == "ieee"
    yield
    backends.fp32_precision = before


def on_cpu(at: School) -> torch.nn.Module:
    module = student()
    learn(lesson(at, Training(epochs=3, batch_size=17)), module, lambda share, text: None)
    return module


def test_a_gpu_comes_to_the_result_of_the_cpu(tmp_path: Path, fp32: None) -> None:
    at = school(tmp_path, width=16)
    there = student()
    learn(lesson(at, Training(epochs=3, batch_size=17, device="cuda")), there, lambda share, text: None)
    assert difference(on_cpu(at), there) < 1e-3


@pytest.mark.parametrize("processes", [1, 2])
def test_workers_over_nccl_come_to_the_result_of_the_cpu(
    tmp_path: Path, processes: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One worker enters NCCL too: the group is made, and its reductions run, with a single member."""
    if processes > torch.cuda.device_count():
        pytest.skip(f"{processes} workers need as many GPUs")
    monkeypatch.setenv("NVIDIA_TF32_OVERRIDE", "0")  # the workers are processes of their own
    assert torch.distributed.is_nccl_available(), "this torch has no NCCL"
    at = school(tmp_path, width=16)
    there = student()
    task = lesson(at, Training(epochs=3, batch_size=17, device="cuda", processes=processes))
    learn_in_workers(task, Reference.parse(f"{HERE}:net", HERE.parent), there, tmp_path, lambda share, text: None)
    assert difference(on_cpu(at), there) < 1e-3
