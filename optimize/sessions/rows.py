"""Rows: how samples become the runs of a model that does not batch, so that every caller may hand any number of them.

Where every array has one axis more than its input, each sample is a run of whole tensors. Where every input's first
axis is fixed at one size, the rows are run that many at a time. Anything else is one run.
"""

from collections.abc import Callable, Mapping, Sequence

import numpy as np

from ..artifact import TensorSpec
from ..errors import StageError
from ..samples import Array

Run = Callable[[Mapping[str, Array]], Mapping[str, Array]]


def single(inputs: Sequence[TensorSpec], arrays: Mapping[str, Array]) -> bool:
    """Return whether every array has one axis more than its input, so that a run takes one sample."""
    return bool(inputs) and all(
        spec.name in arrays and arrays[spec.name].ndim == len(spec.shape) + 1 for spec in inputs
    )


def fixed_rows(inputs: Sequence[TensorSpec]) -> int | None:
    """Return the first axis of every input where that is one fixed size, else None."""
    firsts = {spec.shape[0] if spec.shape else None for spec in inputs}
    (first,) = firsts if len(firsts) == 1 else (None,)
    return first if isinstance(first, int) and first > 0 else None


def first_run(inputs: Sequence[TensorSpec], arrays: Mapping[str, Array]) -> dict[str, Array]:
    """Return what the first of the runs takes."""
    if single(inputs, arrays):
        return _sample(arrays, 0)
    size = fixed_rows(inputs)
    return dict(arrays) if size is None else _chunk(arrays, 0, size)


def in_runs(inputs: Sequence[TensorSpec], arrays: Mapping[str, Array], run: Run) -> Mapping[str, Array]:
    """Run the samples, in as many runs as the model needs, and join what they give along the samples' axis.

    Raises:
        StageError: what the runs give cannot be joined.
    """
    if single(inputs, arrays):
        rows = min(len(array) for array in arrays.values())
        return _joined([run(_sample(arrays, row)) for row in range(rows)], stacked=True)
    size = fixed_rows(inputs)
    rows = len(next(iter(arrays.values()))) if arrays and all(array.ndim for array in arrays.values()) else 0
    if size is None or rows in (0, size) or any(len(array) != rows for array in arrays.values()):
        return run(arrays)
    parts = []
    for start in range(0, rows, size):
        results = run(_chunk(arrays, start, size))
        if odd := [name for name, array in results.items() if np.shape(array)[:1] != (size,)]:
            raise StageError(
                f"{size} rows gave output {odd[0]!r} of shape {np.shape(results[odd[0]])}, expected as many rows",
                next_step="give whole tensors, one for each sample",
            )
        parts.append({name: array[: rows - start] for name, array in results.items()})
    return _joined(parts, stacked=False)


def _sample(arrays: Mapping[str, Array], row: int) -> dict[str, Array]:
    return {name: np.asarray(array[row]) for name, array in arrays.items()}


def _chunk(arrays: Mapping[str, Array], start: int, size: int) -> dict[str, Array]:
    """Rows from `start` on, repeated where fewer are left."""
    rows = len(next(iter(arrays.values())))
    wanted = start + np.arange(size) % (rows - start)
    return {name: np.ascontiguousarray(array[wanted]) for name, array in arrays.items()}


def _joined(parts: Sequence[Mapping[str, Array]], *, stacked: bool) -> dict[str, Array]:
    found = {}
    for name in parts[0]:
        arrays = [np.asarray(part[name]) for part in parts]
        shapes = {array.shape[0 if stacked else 1 :] for array in arrays}
        if len(shapes) > 1:
            raise StageError(
                f"output {name!r} has another shape for every sample: {', '.join(map(str, sorted(shapes)[:4]))}",
                next_step="pad it in the model, or leave that output out (source.outputs)",
            )
        found[name] = np.stack(arrays) if stacked else np.concatenate(arrays)
    return found
