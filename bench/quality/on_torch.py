"""FGSM and PGD on a torch module. Knows gradients, not what is judged with the inputs it makes.

FGSM: Goodfellow, Shlens & Szegedy (ICLR 2015). PGD: Madry et al. (ICLR 2018), L-infinity, started at the sample itself
so that the same call gives the same bytes.
"""

from collections.abc import Mapping

import numpy as np
import torch

from seatrial.optimize.artifact import Artifact
from seatrial.optimize.errors import SourceError
from seatrial.optimize.sessions.on_torch import call, open_module, outputs_of
from seatrial.optimize.store import Store

from .quantities import Array

_BATCH = 128


def module_of(source: Artifact, store: Store) -> torch.nn.Module:
    """The source in evaluation mode, its parameters fixed."""
    return open_module(source, store).requires_grad_(False)


def attacked(
    module: torch.nn.Module,
    inputs: Mapping[str, Array],
    labels: Array,
    outputs: tuple[str, ...],
    *,
    epsilon: float,
    steps: int,
    bounds: Mapping[str, tuple[float, float]],
) -> dict[str, Array]:
    """The inputs, [n, ...], moved up the loss by at most `epsilon` per element, within the data's own bounds.

    One step of size `epsilon` is FGSM; several of ``2.5 * epsilon / steps``, each projected back, are PGD. Classes
    (integer labels) are attacked through cross entropy, anything else through squared error; the first output counts.

    Raises:
        SourceError: the module gives no gradient to its float inputs.
    """
    parts = []
    for start in range(0, len(labels), _BATCH):
        rows = slice(start, start + _BATCH)
        clean = {name: torch.from_numpy(np.ascontiguousarray(array[rows])) for name, array in inputs.items()}
        target = torch.from_numpy(np.ascontiguousarray(labels[rows]))
        moved = _moved(module, clean, target, outputs, epsilon, steps, bounds)
        parts.append({name: tensor.numpy() for name, tensor in moved.items()})
    return {name: np.concatenate([part[name] for part in parts]).astype(inputs[name].dtype) for name in inputs}


def _moved(
    module: torch.nn.Module,
    clean: Mapping[str, torch.Tensor],
    target: torch.Tensor,
    outputs: tuple[str, ...],
    epsilon: float,
    steps: int,
    bounds: Mapping[str, tuple[float, float]],
) -> dict[str, torch.Tensor]:
    size = epsilon if steps == 1 else 2.5 * epsilon / steps
    now = dict(clean)
    for _ in range(steps):
        leaves = {name: now[name].detach().requires_grad_(name in bounds) for name in now}
        loss = _loss(next(iter(outputs_of(call(module, leaves), outputs).values())), target)
        try:
            slopes = torch.autograd.grad(loss, [leaves[name] for name in bounds])
        except RuntimeError as error:  # autograd's only type
            raise SourceError(
                f"the source gives no gradient to its inputs: {error}",
                next_step="keep the autograd graph in its forward, or drop the adversarial checks",
            ) from error
        for name, slope in zip(bounds, slopes, strict=True):
            low, high = bounds[name]
            step = now[name] + size * slope.sign()
            near = torch.minimum(torch.maximum(step, clean[name] - epsilon), clean[name] + epsilon)
            now[name] = near.clamp(low, high).detach()
    return now


def _loss(output: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
    if target.dtype.is_floating_point:
        return torch.nn.functional.mse_loss(output.reshape(len(target), -1), target.reshape(len(target), -1))
    if output.ndim == 2 and output.shape[1] == 1:
        return torch.nn.functional.binary_cross_entropy_with_logits(output[:, 0], target.to(output.dtype))
    return torch.nn.functional.cross_entropy(output, target.long())
