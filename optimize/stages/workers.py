"""Distillation shared among processes of this machine: starts torch.distributed's launcher and follows it.

The launcher (the one behind ``torchrun``) runs `optimize.stages.worker` as often as the configuration says. Student
factory, configuration and samples go into a job folder; the trained weights come back through it.
"""

import json
import os
import subprocess
import sys
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.numpy import load_file, save_file

from .. import errors, experimental, guarding
from ..environment import environment
from ..errors import MissingError, SeatrialError, StageError
from ..interrupts import held
from ..recipe.configs import DistillConfig
from ..record import Record
from ..samples import Samples
from ..sessions.on_torch import load_weights
from ..store import Store
from ..user_code import Reference
from .training import Progress
from .training_job import TrainingJob

JOB, SAMPLES, WEIGHTS, RESULT = "job.json", "samples.safetensors", "student.safetensors", "result.json"
MARK = "progress\t"  # begins a worker's line that is meant for us
_GRACE_SECONDS = 40.0  # seconds from the request to stop to a kill; the launcher itself gives its workers 30


@dataclass(frozen=True, slots=True, kw_only=True)
class Job(Record, what="the training job", next_step="build again"):
    """Work of the workers but for its arrays; `inputs` are the samples' names in the loader's order."""

    config: DistillConfig
    student: Reference
    inputs: tuple[str, ...]
    split: str
    teacher: str
    store: Path
    seed: int
    checkpoint: Path | None


def learn_in_workers(
    task: TrainingJob, student: Reference, module: torch.nn.Module, folder: Path, progress: Progress
) -> float:
    """`training_job.learn` in several processes, working in `folder`; fills `module`, returns the last mean loss.

    Raises:
        SeatrialError: what a worker raised.
        StageError: a worker died without a reason; the message ends with its last output.
    """
    job = folder / "job"
    job.mkdir()
    _write(job, task, student)
    processes = task.config.training.processes
    if task.config.training.device == "cuda":
        experimental.used(experimental.GPU)
    progress(0.0, f"starting {processes} workers")
    code = _follow(job, processes, progress)
    if not (job / RESULT).exists():  # written last, so that a crash during shutdown loses nothing
        raise _failure(job, code)
    load_weights(module, job / WEIGHTS)
    return float(json.loads((job / RESULT).read_text())["loss"])


def read_job(job: Path) -> tuple[TrainingJob, Reference]:
    """Read the files of `learn_in_workers`: the training job and the student's factory.

    Raises:
        MissingError: the teacher is no longer in the store.
    """
    told = Job.read(job / JOB)
    store = Store(told.store)
    teacher = store.find(told.teacher)
    if teacher is None:
        raise MissingError("the teacher is no longer in the store", where=str(store.root), next_step="build again")
    arrays = load_file(job / SAMPLES)
    inputs = {name: arrays[f"inputs/{name}"] for name in told.inputs}  # in the loader's order
    task = TrainingJob(
        config=told.config,
        teacher=teacher,
        samples=Samples(split=told.split, inputs=inputs, labels=arrays.get("labels")),
        store=store,
        seed=told.seed,
        checkpoint=told.checkpoint,
    )
    return task, told.student


def _write(job: Path, task: TrainingJob, student: Reference) -> None:
    samples = task.samples
    arrays = {f"inputs/{name}": array for name, array in samples.inputs.items()}
    labels = {} if samples.labels is None else {"labels": samples.labels}
    save_file({name: np.ascontiguousarray(array) for name, array in (arrays | labels).items()}, job / SAMPLES)
    told = Job(
        config=task.config,
        student=student,
        inputs=tuple(samples.inputs),
        split=samples.split,
        teacher=task.teacher.digest,
        store=task.store.root.absolute(),
        seed=task.seed,
        checkpoint=task.checkpoint and task.checkpoint.absolute(),
    )
    told.write(job / JOB)


def _follow(job: Path, processes: int, progress: Progress) -> int:
    """Run the workers to their end, passing their progress on; on exit they are requested to stop and save."""
    command = [sys.executable, "-m", "torch.distributed.run", "--nnodes", "1", "--nproc-per-node", str(processes)]
    command += [
        "--rdzv-backend",
        "c10d",
        "--rdzv-endpoint",
        "localhost:0",
        "-m",
        "seatrial.optimize.stages.worker",
        str(job),
    ]
    threads = max(1, environment().cores // processes)
    paths = os.pathsep.join(str(Path(place).absolute()) for place in sys.path)
    variables = os.environ | {"OMP_NUM_THREADS": str(threads), "PYTHONPATH": paths}
    options: dict[str, Any] = {"env": variables, "stdout": subprocess.PIPE, "text": True}
    with (job / "stderr").open("w") as words, guarding.child(command, stderr=words, **options) as process:
        try:
            for line in process.stdout or ():
                if line.startswith(MARK):
                    _, share, text = line.rstrip("\n").split("\t", 2)
                    progress(float(share), text)
            return process.wait()
        finally:
            with held(), suppress(subprocess.TimeoutExpired):
                if process.poll() is None:
                    process.terminate()
                    process.wait(_GRACE_SECONDS)


def _failure(job: Path, code: int) -> SeatrialError:
    """Return a worker's last output as the error that ended it."""
    for path in sorted(job.glob("error-*.json")):
        said: dict[str, Any] = json.loads(path.read_text())
        kind = getattr(errors, said["kind"], StageError)
        error: SeatrialError = kind(said["what"], where=said["where"], next_step=said["next_step"])
        return error
    lines = (job / "stderr").read_text(errors="replace").strip().splitlines()
    words = [line for line in lines if "what():" in line or "Error" in line] or lines
    return StageError(
        f"the workers ended with code {code}: {' | '.join(words[-3:])}",
        where="distill, training.processes",
        next_step="train in one process to see more",
    )
