"""Samples: seeded, digested batches from the user's own loader (train, calibration, evaluation, golden).

A loader is any ``loader(split, count=None, seed=...) -> (inputs, labels)``: `inputs` maps input names to arrays whose
first axis is the sample, `labels` is an array of the same length or None. It may return a third part, ``columns``: what
else is known of each sample (a group, a site, a device), by name, one number or text each; no model sees it, quality is
broken down by it. Nothing here looks at what the numbers mean.
"""

import hashlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

import numpy as np

from .errors import SourceError

Split = Literal["train", "calibration", "evaluation", "golden"]
Array = np.ndarray[Any, np.dtype[Any]]


@dataclass(frozen=True, kw_only=True)
class Samples:
    """Arrays of one split: `inputs[name]` is [n, ...], `labels` [n, ...] or None, `columns[name]` [n]."""

    split: str
    inputs: Mapping[str, Array]
    labels: Array | None
    columns: Mapping[str, Array] = field(default_factory=dict)

    def __len__(self) -> int:
        return len(next(iter(self.inputs.values())))

    def take(self, start: int, stop: int | None = None) -> "Samples":
        """``take(n)`` is the first n samples, ``take(a, b)`` those from a up to b; as views."""
        window = slice(0, start) if stop is None else slice(start, stop)
        return Samples(
            split=self.split,
            inputs={name: array[window] for name, array in self.inputs.items()},
            labels=None if self.labels is None else self.labels[window],
            columns={name: array[window] for name, array in self.columns.items()},
        )

    def batches(self, size: int) -> Iterator["Samples"]:
        """Consecutive batches of `size` samples; the last may be smaller."""
        for start in range(0, len(self), size):
            yield self.take(start, min(start + size, len(self)))

    def copied(self) -> dict[str, Array]:
        """The inputs, [n, ...] each, as memory of their own, for a model that may write into what it is given."""
        return {name: array.copy() for name, array in self.inputs.items()}

    @property
    def digest(self) -> str:
        """``sha256:...`` over names, dtypes, shapes and bytes of all arrays."""
        state = hashlib.sha256()
        arrays = dict(self.inputs) | ({} if self.labels is None else {"": self.labels})
        arrays |= {f"column {name}": array for name, array in self.columns.items()}
        for name in sorted(arrays):
            array = np.ascontiguousarray(arrays[name])
            state.update(f"{name}:{array.dtype.str}:{array.shape}".encode())
            state.update(array.data if array.size else b"")
        return "sha256:" + state.hexdigest()


def checked(split: str, loaded: Any, loader: str) -> Samples:
    """Check the return value of a user's loader and convert it to Samples.

    Raises:
        SourceError: it is not ``(inputs, labels)``, the lengths differ, it is empty, or floats are not finite.
    """

    def wrong(why: str) -> SourceError:
        return SourceError(
            f"the loader returned something unusable for split {split!r}: {why}",
            where=loader,
            next_step="return (inputs, labels[, columns]): dicts of arrays with one row per sample; labels may be None",
        )

    if not (isinstance(loaded, tuple) and len(loaded) in (2, 3) and isinstance(loaded[0], Mapping) and loaded[0]):
        raise wrong(f"a {type(loaded).__name__}")
    if len(loaded) == 3 and not isinstance(loaded[2], Mapping):
        raise wrong(f"columns is a {type(loaded[2]).__name__}, not a dict of arrays")
    inputs = {str(name): np.array(array) for name, array in loaded[0].items()}
    labels = None if loaded[1] is None else np.array(loaded[1])
    columns = {str(name): np.array(array) for name, array in (loaded[2] if len(loaded) == 3 else {}).items()}
    lengths = {array.shape[0] if array.ndim else 0 for array in (*inputs.values(), *columns.values())} | (
        set() if labels is None else {len(labels)}
    )
    if len(lengths) != 1 or 0 in lengths:
        raise wrong(f"all arrays must have the same number of rows, at least 1, got {sorted(lengths)}")
    for name, array in inputs.items():
        if array.dtype == object:
            raise wrong(f"input {name!r} holds Python objects, not numbers")
        if np.issubdtype(array.dtype, np.floating) and not np.isfinite(array).all():
            raise wrong(f"input {name!r} holds NaN or infinity")
    for name, array in columns.items():
        if array.ndim != 1 or array.dtype.kind not in "biufU":
            raise wrong(f"column {name!r} is {array.dtype} {list(array.shape)}, not one number or text per sample")
    return Samples(split=split, inputs=inputs, labels=labels, columns=columns)
