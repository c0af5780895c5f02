"""The 2:4 pattern: of four neighbours along the input axis at least two are zero. On arrays; touches no model.

Sparse tensor cores (through TensorRT or cuSPARSELt) multiply such weights at up to twice the rate. A processor without
them gains nothing: the zeros are multiplied like any other number.
"""

import numpy as np

from ..samples import Array

GROUP, NONZERO = 4, 2


def fits(shape: tuple[int, ...], axis: int) -> bool:
    """Return True if the input axis divides into whole groups of four."""
    return len(shape) >= 2 and shape[axis] % GROUP == 0


def mask(weight: Array, axis: int = 1) -> Array:
    """Mark the weights to keep, in the shape of `weight`: the two of largest magnitude of every four along `axis`.
    Ties keep the earlier one.
    """
    groups = _groups(np.abs(weight), axis)
    order = np.argsort(-groups, axis=-1, kind="stable")
    chosen = np.zeros(groups.shape, dtype=bool)
    np.put_along_axis(chosen, order[..., :NONZERO], True, axis=-1)
    moved = chosen.reshape(np.moveaxis(weight, axis, -1).shape)
    return np.ascontiguousarray(np.moveaxis(moved, -1, axis))


def holds(weight: Array, axis: int = 1) -> bool:
    """Return True if no group of four along `axis` has more than two nonzero numbers."""
    if not fits(weight.shape, axis):
        return False
    return bool((np.count_nonzero(_groups(weight, axis), axis=-1) <= NONZERO).all())


def _groups(weight: Array, axis: int) -> Array:
    """Return the weight as groups, [..., inputs / 4, 4], with `axis` moved to the end."""
    moved = np.moveaxis(weight, axis, -1)
    return moved.reshape(*moved.shape[:-1], -1, GROUP)
