"""Training against a teacher: the one loop that distillation and fine-tuning after pruning share.

Seeded and in memory; the teacher answers every training sample once. It decides nothing about architectures.
"""

from collections.abc import Callable

import torch
from torch.nn import functional

from ..artifact import Artifact
from ..errors import StageError
from ..samples import Samples
from ..sessions.on_torch import call, open_module, outputs_of
from ..store import Store
from .configs import Training

Progress = Callable[[float, str], None]
_TEACHER_BATCH = 256
_asked: dict[tuple[str, str], torch.Tensor] = {}


def teacher_answers(teacher: Artifact, samples: Samples, store: Store, progress: Progress) -> torch.Tensor:
    """The teacher's first output for every sample, [n, ...]; the last answers are kept for the next stage."""
    key = (teacher.digest, samples.digest)
    if key not in _asked:
        _asked.clear()
        _asked[key] = _ask(open_module(teacher, store), teacher.outputs[0].name, samples, progress)
    return _asked[key]


def _ask(module: torch.nn.Module, output: str, samples: Samples, progress: Progress) -> torch.Tensor:
    answers = []
    with torch.inference_mode():
        for number, batch in enumerate(samples.batches(_TEACHER_BATCH)):
            tensors = {name: torch.from_numpy(array) for name, array in batch.inputs.items()}
            answers.append(outputs_of(call(module, tensors), (output,))[output])
            progress(number * _TEACHER_BATCH / len(samples), "asking the teacher")
    return torch.cat(answers).clone()


def fit(
    module: torch.nn.Module,
    samples: Samples,
    answers: torch.Tensor,
    training: Training,
    *,
    output: str,
    seed: int,
    progress: Progress,
) -> float:
    """Train in place on the teacher's answers (and the labels, where they are classes); returns the last mean loss.

    Where labels are integers and the output is [n, classes]: ``soft_weight * T^2 * KL + (1 - soft_weight) * CE``
    (Hinton et al., 2015, section 2). Otherwise the mean squared error to the teacher's answers.

    Raises:
        StageError: the loss is no longer finite.
    """
    inputs = {name: torch.from_numpy(array) for name, array in samples.inputs.items()}
    labels = _classes(samples, answers)
    generator = torch.Generator().manual_seed(seed)
    parameters = [parameter for parameter in module.parameters() if parameter.requires_grad]
    optimizer = torch.optim.AdamW(parameters, lr=training.learning_rate, weight_decay=training.weight_decay)
    per_epoch = max(1, len(samples) // training.batch_size)
    steps = training.epochs * per_epoch
    pace = torch.optim.lr_scheduler.OneCycleLR(
        optimizer, max_lr=training.learning_rate, total_steps=max(2, steps), pct_start=0.25
    )
    module.train()
    mean = 0.0
    for step in range(steps):
        if step % per_epoch == 0:
            order = torch.randperm(len(samples), generator=generator)
        chosen = order[(step % per_epoch) * training.batch_size :][: training.batch_size]
        result = outputs_of(call(module, {name: tensor[chosen] for name, tensor in inputs.items()}), (output,))[output]
        loss = _loss(result, answers[chosen], None if labels is None else labels[chosen], training)
        optimizer.zero_grad(set_to_none=True)
        loss.backward()  # type: ignore[no-untyped-call]
        optimizer.step()
        pace.step()
        mean = loss.item() if step == 0 else 0.98 * mean + 0.02 * loss.item()
        progress((step + 1) / steps, f"epoch {step // per_epoch + 1}/{training.epochs}, loss {mean:.3f}")
    module.eval()
    if mean != mean or abs(mean) == float("inf"):
        raise StageError("training diverged: the loss is not finite", next_step="lower learning_rate in this stage")
    return mean


def _classes(samples: Samples, answers: torch.Tensor) -> torch.Tensor | None:
    """Labels as class indices, or None where they are not classes of the teacher's output."""
    labels = samples.labels
    if labels is None or labels.dtype.kind not in "iu" or labels.ndim != 1 or answers.ndim != 2:
        return None
    if labels.min() < 0 or labels.max() >= answers.shape[1]:
        return None
    return torch.from_numpy(labels.astype("int64"))


def _loss(result: torch.Tensor, answers: torch.Tensor, labels: torch.Tensor | None, training: Training) -> torch.Tensor:
    if result.shape != answers.shape:
        raise StageError(
            f"the student answers {tuple(result.shape)}, the teacher {tuple(answers.shape)}",
            next_step="give the student the teacher's output shape",
        )
    if labels is None:
        return functional.mse_loss(result, answers)
    warmth, soft = training.temperature, training.soft_weight
    divergence = functional.kl_div(
        functional.log_softmax(result / warmth, dim=1),
        functional.log_softmax(answers / warmth, dim=1),
        reduction="batchmean",
        log_target=True,
    )
    return soft * warmth**2 * divergence + (1 - soft) * functional.cross_entropy(result, labels)
