"""Proof: the smaller module computes what the whole one does with the same units switched off.

It is shown twice: on the samples with the module's own weights, and with random weights in double precision, in which
nothing is small, zero or alike by chance. Both modules are copies; the one that is to be cut is not touched.
"""

import copy
from collections.abc import Callable, Mapping

import torch

from ..errors import StageError
from .on_layers import Tensors, answers, first_line

Change = Callable[[torch.nn.Module], None]
_TOLERANCE = {torch.float64: 1e-7, torch.float32: 1e-4}
_SEED = 20


def prove(
    module: torch.nn.Module, off: Change, smaller: Change, tensors: Tensors, outputs: tuple[str, ...], where: str
) -> None:
    """Check that `smaller`, done to a copy of the module, gives what `off`, done to another copy, gives.

    Raises:
        StageError: it does not, or the module fails when it is smaller, or cannot be copied.
    """
    _compare(copied(module, where), off, smaller, tensors, outputs, where)
    try:
        generic = randomized(copied(module, where)).double()
        exact = {name: tensor.double() if tensor.is_floating_point() else tensor for name, tensor in tensors.items()}
        answers(generic, exact, outputs)
    except (RuntimeError, TypeError, ValueError):  # a forward that names its precision
        generic, exact = randomized(copied(module, where)), dict(tensors)
    _compare(generic, off, smaller, exact, outputs, where)


def _compare(
    own: torch.nn.Module, off: Change, smaller: Change, tensors: Tensors, outputs: tuple[str, ...], where: str
) -> None:
    """Compare the two on a copy that may be changed."""
    whole = copied(own, where)
    off(whole)
    expected = _seeded(whole, tensors, outputs)
    smaller(own)
    try:
        got = _seeded(own, tensors, outputs)
    except Exception as error:  # the user's forward may raise anything at sizes that it does not expect
        raise StageError(
            f"the module fails with these channels removed: {first_line(error)}", where=where, next_step=hint(where)
        ) from error
    if found := difference(expected, got):
        raise StageError(
            f"the smaller module's outputs differ from the whole module's with the same channels switched off: {found}",
            where=where,
            next_step=hint(where),
        )


def hint(where: str) -> str:
    """Return what to do about layers that cannot be pruned."""
    globs = ", ".join(f'"{name}"' for name in where.split(", "))
    return f"keep = [{globs}] in this stage, or let forward take sizes from its tensors instead of fixed numbers"


def difference(expected: Mapping[str, torch.Tensor], got: Mapping[str, torch.Tensor]) -> str:
    """Return where two sets of outputs differ beyond rounding, or nothing where they agree."""
    for name, whole in expected.items():
        other = got[name]
        if other.shape != whole.shape:
            return f"output {name!r} has shape {tuple(other.shape)} instead of {tuple(whole.shape)}"
        if not whole.is_floating_point():
            if not torch.equal(whole, other):
                return f"output {name!r} differs in {int((whole != other).sum())} values"
            continue
        finite = torch.isfinite(whole)
        if not torch.equal(finite, torch.isfinite(other)):
            return f"output {name!r} is not finite at different positions"
        apart = (other - whole)[finite].abs().max().item() if finite.any() else 0.0
        limit = _TOLERANCE.get(whole.dtype, 1e-2) * max(
            whole[finite].abs().max().item() if finite.any() else 0.0, 1e-30
        )
        if apart > limit:
            return f"output {name!r} differs by {apart:.2g}, rounding explains {limit:.2g}"
    return ""


def copied(module: torch.nn.Module, where: str) -> torch.nn.Module:
    """Return a deep copy.

    Raises:
        StageError: the module cannot be copied.
    """
    try:
        return copy.deepcopy(module)
    except Exception as error:  # the user's attributes may be of any kind
        raise StageError(
            f"the module cannot be copied, so its pruning cannot be proven: {first_line(error)}",
            where=where,
            next_step="let the module hold only values that copy.deepcopy can copy",
        ) from error


def randomized(module: torch.nn.Module) -> torch.nn.Module:
    """Give a module random weights of ordinary size in place: matrices by their width, vectors around one."""
    random = torch.Generator().manual_seed(_SEED)
    with torch.no_grad():
        for parameter in module.parameters():
            if not parameter.is_floating_point():
                continue
            if parameter.ndim > 1:
                width = max(parameter[0].numel(), 1)
                parameter.copy_(torch.randn(parameter.shape, generator=random) / width**0.5)
            else:
                parameter.copy_(0.5 + torch.rand(parameter.shape, generator=random))
        for layer in module.modules():
            if isinstance(layer, torch.nn.modules.batchnorm._NormBase) and layer.running_mean is not None:
                assert layer.running_var is not None
                layer.running_mean.copy_(0.3 * torch.randn(layer.running_mean.shape, generator=random))
                layer.running_var.copy_(0.5 + torch.rand(layer.running_var.shape, generator=random))
    return module


def _seeded(module: torch.nn.Module, tensors: Tensors, outputs: tuple[str, ...]) -> dict[str, torch.Tensor]:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(_SEED)
        return answers(module, {name: tensor.clone() for name, tensor in tensors.items()}, outputs)
