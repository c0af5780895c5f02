"""Torch modules: which axes of the inputs are lengths that may vary, found by running and tracing. For drafts only.

Sequences alone are tried: token numbers, their masks, signals, frames of features. Pictures keep their size.
"""

import logging
from collections.abc import Iterator, Mapping, Sequence

import numpy as np
import torch

from ..artifact import Artifact, Provenance, TensorSpec
from ..intake.axes import BATCH, other_sizes
from ..recipe.configs import ExportConfig
from ..recipe.recipe import Source
from ..sessions.on_torch import call
from ..stages.export import to_onnx
from .model import Input

_ENOUGH = 2  # other sizes at which a module must run
_RANKS = (1, 2)  # axes of a sample that is a sequence

Lengths = dict[str, dict[str, str]]


def free_lengths(module: torch.nn.Module, inputs: Sequence[Input], outputs: tuple[str, ...]) -> Lengths:
    """Return by input and axis the names of lengths that may vary; inputs of one size along an axis vary together.

    The module is exported for that, and not to be used afterwards.
    """
    found: Lengths = {}
    for axis, names in _groups(inputs):
        if any(str(axis - 1) in found.get(name, {}) or str(axis) in found.get(name, {}) for name in names):
            continue
        wanted = "length" if not found else f"length_{len({dim for dims in found.values() for dim in dims.values()})}"
        trial = {name: dict(dims) for name, dims in found.items()}
        for name in names:
            trial.setdefault(name, {})[str(axis)] = wanted
        if _runs(module, inputs, axis, names) and _exports(module, inputs, outputs, trial):
            found = trial
    return found


def _groups(inputs: Sequence[Input]) -> Iterator[tuple[int, list[str]]]:
    """Axes to try (the batch is 0), each with the inputs that are of one size along it: first axes before second."""
    sequences = [each for each in inputs if len(each.shape) in _RANKS]
    for axis in range(1, 1 + max(_RANKS)):
        long = [each for each in sequences if len(each.shape) >= axis and each.shape[axis - 1] > 1]
        for size in dict.fromkeys(each.shape[axis - 1] for each in long):
            yield axis, [each.name for each in long if each.shape[axis - 1] == size]


def _runs(module: torch.nn.Module, inputs: Sequence[Input], axis: int, names: Sequence[str]) -> bool:
    size = next(each.shape[axis - 1] for each in inputs if each.name == names[0])
    done = 0
    for other in other_sizes(size):
        try:
            with torch.inference_mode():
                call(module, _tensors(inputs, {(name, axis): other for name in names}))
        except Exception:  # noqa: BLE001  the module may raise anything at a size that it does not take
            continue
        done += 1
        if done == _ENOUGH:
            return True
    return False


def _exports(module: torch.nn.Module, inputs: Sequence[Input], outputs: tuple[str, ...], lengths: Lengths) -> bool:
    """Return whether the module can be exported with these lengths free."""
    given = tuple(TensorSpec(name=each.name, dtype=each.dtype, shape=_shape(each, lengths)) for each in inputs)
    made_by = Provenance(stage="source", parent=None, config={}, recipe="", samples=None, seed=0, environment={}, at="")
    parent = Artifact(
        name="draft",
        format="torch",
        files=(),
        inputs=given,
        outputs=tuple(TensorSpec(name=name, dtype="", shape=()) for name in outputs),
        requires={},
        made_by=made_by,
    )
    level = logging.root.manager.disable
    logging.disable(logging.ERROR)
    try:
        to_onnx(module, parent, Source(factory="draft:draft", dynamic=lengths), ExportConfig(kind="export").opset)
    except Exception:  # noqa: BLE001  the exporter raises anything
        return False
    finally:
        logging.disable(level)
    return True


def _shape(each: Input, lengths: Lengths) -> tuple[int | str, ...]:
    named = lengths.get(each.name, {})
    return (BATCH, *(named.get(str(axis), size) for axis, size in enumerate(each.shape, start=1)))


def _tensors(inputs: Sequence[Input], sizes: Mapping[tuple[str, int], int]) -> dict[str, torch.Tensor]:
    random = np.random.default_rng(0)
    return {each.name: torch.from_numpy(_resized(each, sizes).sample(random, 2)) for each in inputs}


def _resized(each: Input, sizes: Mapping[tuple[str, int], int]) -> Input:
    shape = tuple(sizes.get((each.name, axis), size) for axis, size in enumerate(each.shape, start=1))
    return Input(name=each.name, dtype=each.dtype, shape=shape, below=each.below, ones=each.ones, fill=each.fill)
