"""Outputs of an open model in the form that metrics read: every output, first axis the sample.

Build, quality and gate all score in this shape, however a model batches: in batches of any size, in batches of a fixed
size (the last is filled up), or not at all (one sample at a time). Scores nothing.
"""

from collections.abc import Iterator, Mapping, Sequence

import numpy as np

from ..artifact import TensorSpec
from ..samples import Array, Samples
from .session import Session

BATCH = 64


def parts(
    session: Session,
    specs: Sequence[TensorSpec],
    inputs: Mapping[str, Array],
    batch: int = BATCH,
    outputs: Sequence[TensorSpec] = (),
) -> Iterator[tuple[slice, dict[str, Array]]]:
    """Yield batches of samples with the model's outputs, until all samples are covered; `outputs` gives their order."""
    count, size = len(next(iter(inputs.values()))), batch
    single, fixed = unbatched(specs, inputs), fixed_size(specs)
    if single or fixed:
        size = 1 if single else fixed
    for start in range(0, count, size):
        stop = min(start + size, count)
        rows = np.arange(start, start + size if fixed else stop)
        given = {name: array[np.minimum(rows, count - 1)] for name, array in inputs.items()}
        found = session.run({name: np.asarray(array[0]) for name, array in given.items()} if single else given)
        named = [spec.name for spec in outputs if spec.name in found] or list(found)
        yield slice(start, stop), {name: found[name][None] if single else found[name][: stop - start] for name in named}


def answers(
    session: Session,
    specs: Sequence[TensorSpec],
    inputs: Mapping[str, Array],
    batch: int = BATCH,
    outputs: Sequence[TensorSpec] = (),
) -> dict[str, Array]:
    """The outputs to all samples at once."""
    found = [part for _, part in parts(session, specs, inputs, batch, outputs)]
    return {name: np.concatenate([part[name] for part in found]) for name in found[0]}


def unbatched(specs: Sequence[TensorSpec], inputs: Mapping[str, Array]) -> bool:
    """Return whether the model takes the tensors of one sample, without a batch axis."""
    known = [(spec, inputs[spec.name]) for spec in specs if spec.name in inputs]
    return bool(known) and all(array.ndim == len(spec.shape) + 1 for spec, array in known)


def fixed_size(specs: Sequence[TensorSpec]) -> int:
    """Return the fixed batch size of the model; 0 where any size works."""
    first = specs[0].shape[0] if specs and specs[0].shape else ""
    return first if isinstance(first, int) else 0


def part_of(samples: Samples, which: slice) -> Array | None:
    """The labels of those samples."""
    return None if samples.labels is None else samples.labels[which]
