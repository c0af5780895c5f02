"""Training against a teacher: the one loop that distillation and fine-tuning after pruning share.

Seeded; it goes on from a checkpoint where there is one, alone or as one of several workers. It decides nothing about
architectures, and does not know what the loss is made of.
"""

import math
import os
from collections.abc import Callable, Iterator
from pathlib import Path

import torch
from torch.nn.parallel import DistributedDataParallel

from .. import experimental
from ..errors import MachineError, StageError
from ..recipe.configs import Training
from ..samples import Samples
from .checkpoints import Stop, read_checkpoint, write_checkpoint
from .objective import ANSWERS, Objective
from .teacher import Targets
from .teacher import teacher_answers as teacher_answers  # for stages that train on outputs alone

_LEAST_STEPS = 5  # with four steps a quarter of warm-up would be 0, and the schedule would divide by it
Progress = Callable[[float, str], None]


def fit(
    module: torch.nn.Module,
    samples: Samples,
    answers: torch.Tensor,
    training: Training,
    *,
    output: str,
    seed: int,
    progress: Progress,
    checkpoint: Path | None = None,
) -> float:
    """Train in place on the teacher's answers (and the labels, where they are classes); returns the last mean loss.

    A training that `checkpoint` (a folder) says is finished is not repeated: its weights are put back.

    Raises:
        StageError: the loss is no longer finite, or the training needs several processes.
    """
    if training.processes > 1:
        raise StageError("this stage trains in one process", next_step="remove processes from its training")
    targets = Targets({ANSWERS: answers}, samples, output)
    torch.manual_seed(seed)
    objective = Objective(module, (), training, output=output, example=first_inputs(samples), targets=targets.first())
    return train(objective, samples, targets, training, seed=seed, progress=progress, checkpoint=checkpoint)


def first_inputs(samples: Samples) -> dict[str, torch.Tensor]:
    """The first two samples, to learn shapes from."""
    return {name: torch.from_numpy(array) for name, array in samples.take(2).inputs.items()}


def train(
    objective: Objective,
    samples: Samples,
    targets: Targets,
    training: Training,
    *,
    seed: int,
    progress: Progress,
    checkpoint: Path | None = None,
) -> float:
    """Minimize an objective over shuffled batches; returns the running mean of the loss.

    Under torch.distributed every worker takes its share of the same batches and DistributedDataParallel averages the
    gradients, so that all hold the same weights. The first worker writes checkpoints, at a step on which all agree.

    Raises:
        StageError: the loss is no longer finite.
        KeyboardInterrupt: a signal; where there is a checkpoint folder, the next call continues from it.
    """
    rank, world = _place()
    device = _device(training)
    inputs = {name: torch.from_numpy(array) for name, array in samples.inputs.items()}
    labels = _classes(samples, targets.answers)
    objective.to(device).train()
    optimizer, schedule, steps = _optimizer(objective, training, len(samples))
    done, mean = _resume(checkpoint, objective, optimizer, schedule, rank)
    learner = DistributedDataParallel(objective, find_unused_parameters=True) if world > 1 else objective
    with Stop() as stop:
        for step, chosen in _batches(len(samples), training, seed, done, steps):
            share = torch.tensor_split(chosen, world)[rank]
            own, across = learner(
                {name: tensor[share].to(device) for name, tensor in inputs.items()},
                targets.rows(share, device),
                None if labels is None else labels[share].to(device),
            )
            own = own * (len(share) / len(chosen))
            optimizer.zero_grad(set_to_none=True)
            ((own + across) * world).backward()  # workers' gradients are averaged, the loss is their sum
            optimizer.step()
            schedule.step()
            value, stopping = _summed(own.item() + across.item() / world, stop.asked, device)
            mean = _checked(value, step) if step == 0 else 0.98 * mean + 0.02 * _checked(value, step)
            last = step + 1 == steps
            if checkpoint is not None and (stopping or last or (step + 1) % training.checkpoint_every == 0):
                random = _random_states(device)
                if rank == 0:
                    write_checkpoint(
                        checkpoint, objective, optimizer, schedule, step=step + 1, mean=mean, random=random
                    )
            if stopping and not last:
                raise KeyboardInterrupt
            epoch = step * training.epochs // steps + 1
            progress((step + 1) / steps, f"epoch {epoch}/{training.epochs}, loss {mean:.3f}")
    objective.to("cpu").eval()
    return mean


def _resume(
    checkpoint: Path | None,
    objective: Objective,
    optimizer: torch.optim.Optimizer,
    schedule: torch.optim.lr_scheduler.LRScheduler,
    rank: int,
) -> tuple[int, float]:
    """Steps done and the mean loss so far, everything put back; (0, 0) where there is nothing to go on from."""
    known = None if checkpoint is None else read_checkpoint(checkpoint, objective, optimizer, schedule)
    if known is None:
        return 0, 0.0
    done, mean, random = known
    if rank < len(random):
        torch.set_rng_state(random[rank])
    return done, mean


def _checked(value: float, step: int) -> float:
    if math.isfinite(value):
        return value
    raise StageError(
        f"training diverged: the loss is not finite in step {step + 1}", next_step="lower learning_rate in this stage"
    )


def _optimizer(
    objective: Objective, training: Training, count: int
) -> tuple[torch.optim.Optimizer, torch.optim.lr_scheduler.LRScheduler, int]:
    parameters = [parameter for parameter in objective.parameters() if parameter.requires_grad]
    optimizer = torch.optim.AdamW(parameters, lr=training.learning_rate, weight_decay=training.weight_decay)
    steps = training.epochs * _per_epoch(count, training)
    schedule = torch.optim.lr_scheduler.OneCycleLR(
        optimizer, max_lr=training.learning_rate, total_steps=max(_LEAST_STEPS, steps), pct_start=0.25
    )
    return optimizer, schedule, steps


def _per_epoch(count: int, training: Training) -> int:
    return max(1, count // training.batch_size)


def _batches(count: int, training: Training, seed: int, done: int, steps: int) -> Iterator[tuple[int, torch.Tensor]]:
    """Step and indices of each full batch from step `done` on: a new order every epoch, from the seed alone."""
    generator = torch.Generator().manual_seed(seed)
    per_epoch = _per_epoch(count, training)
    for start in range(0, steps, per_epoch):
        order = torch.randperm(count, generator=generator)
        for step in range(max(start, done), start + per_epoch):
            yield step, order[(step - start) * training.batch_size :][: training.batch_size]


def _classes(samples: Samples, answers: torch.Tensor) -> torch.Tensor | None:
    """Labels as class indices, or None where they are not classes of the teacher's output."""
    labels = samples.labels
    if labels is None or labels.dtype.kind not in "iu" or labels.ndim != 1 or answers.ndim != 2:
        return None
    if labels.min() < 0 or labels.max() >= answers.shape[1]:
        return None
    return torch.from_numpy(labels.astype("int64"))


def _device(training: Training) -> str:
    if training.device == "cpu":
        return "cpu"
    experimental.used(experimental.GPU)
    if not torch.cuda.is_available():
        raise MachineError(
            "this training needs a GPU, and torch finds none",
            next_step='set device = "cpu", or use a machine with a GPU',
        )
    return f"cuda:{os.environ.get('LOCAL_RANK', '0')}"


def _place() -> tuple[int, int]:
    """This worker's number and how many there are; (0, 1) alone."""
    if torch.distributed.is_available() and torch.distributed.is_initialized():
        return torch.distributed.get_rank(), torch.distributed.get_world_size()
    return 0, 1


def _summed(value: float, asked: bool, device: str) -> tuple[float, bool]:
    """The sum of all workers' values, and whether any was requested to stop."""
    if _place()[1] == 1:
        return value, asked
    both = torch.tensor([value, float(asked)], dtype=torch.float64, device=device)
    torch.distributed.all_reduce(both)
    return both[0].item(), bool(both[1].item() > 0)


def _random_states(device: str) -> list[torch.Tensor]:
    """Every worker's generator state (of the CPU; a GPU's is not kept)."""
    world, state = _place()[1], torch.get_rng_state()
    if world == 1:
        return [state]
    states = [torch.empty_like(state, device=device) for _ in range(world)]
    torch.distributed.all_gather(states, state.to(device))
    return [one.cpu() for one in states]
