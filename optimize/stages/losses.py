"""Losses between a student and its teacher: pure functions of tensors, first axis the sample.

Each gives a mean over samples of something computed sample by sample, so that workers may share a batch, except
`relation_loss`, which needs the whole batch. Which layers are compared is not decided here.
"""

import torch
from torch.nn import functional

_SMALL = 1e-12  # keeps divisions and logarithms of zero finite


def answer_loss(
    result: torch.Tensor, answers: torch.Tensor, labels: torch.Tensor | None, temperature: float, soft_weight: float
) -> torch.Tensor:
    """``soft_weight * T^2 * KL + (1 - soft_weight) * CE`` on logits [n, classes]; without labels the squared error.

    Source: Hinton et al., 2015, section 2.
    """
    if labels is None:
        return functional.mse_loss(result, answers)
    divergence = functional.kl_div(
        functional.log_softmax(result / temperature, dim=1),
        functional.log_softmax(answers / temperature, dim=1),
        reduction="batchmean",
        log_target=True,
    )
    return soft_weight * temperature**2 * divergence + (1 - soft_weight) * functional.cross_entropy(result, labels)


def feature_loss(student: torch.Tensor, teacher: torch.Tensor) -> torch.Tensor:
    """Mean over samples of ``|student - teacher|^2 / |teacher|^2`` of tensors [n, ...]: 0 if equal, 1 for zeros."""
    error = (student - teacher).flatten(1).square().sum(1)
    return (error / (teacher.flatten(1).square().sum(1) + _SMALL)).mean()


def activation_map(hidden: torch.Tensor) -> torch.Tensor:
    """[n, channels, ...] to [n, 1, ...]: where a convolutional layer is active, squares averaged over channels."""
    return hidden.square().mean(1, keepdim=True)


def activation_loss(student: torch.Tensor, teacher: torch.Tensor) -> torch.Tensor:
    """Squared distance of two maps, each divided by its norm; in [0, 4] per sample and blind to scale.

    Source: Zagoruyko and Komodakis, 2017, equation 2, with p = 2.
    """
    one, other = (functional.normalize(value.flatten(1), dim=1, eps=_SMALL) for value in (student, teacher))
    return (one - other).square().sum(1).mean()


def attention_map(weights: torch.Tensor) -> torch.Tensor:
    """Attention probabilities [n, heads, queries, keys] or [n, queries, keys] to their mean over heads."""
    return weights.mean(1) if weights.ndim == 4 else weights


def attention_loss(student: torch.Tensor, teacher: torch.Tensor) -> torch.Tensor:
    """KL divergence of the student's attention [n, queries, keys] from the teacher's, mean over queries and samples.

    Source: Wang et al., 2020 (MiniLM), equation 5, on means over heads so that heads may differ in number.
    """
    known = teacher.clamp_min(_SMALL)
    divergence = (known * (known.log() - student.clamp_min(_SMALL).log())).sum(-1)
    return divergence.flatten(1).mean(1).mean()


def relation_loss(student: torch.Tensor, teacher: torch.Tensor) -> torch.Tensor:
    """Mean squared difference of the cosine similarities of all pairs in the batch; zero for a single sample.

    `student` is [n, ...] and `teacher` [n, ...]: only n must agree. Any rotation or scaling of either leaves it
    unchanged. Source: relational distillation, Park et al., 2019, with cosines in the place of distances.
    """
    one, other = (functional.normalize(value.flatten(1), dim=1, eps=_SMALL) for value in (student, teacher))
    count = len(one)
    return (one @ one.T - other @ other.T).square().sum() / max(1, count * (count - 1))
