"""Signal to noise of a whole model: the energy of a reference's outputs over that of the difference, in dB.

One number for a model in any form and engine, whatever its outputs mean; the least over its outputs. Says nothing about
the task, which is quality's question, and judges nothing.
"""

from collections.abc import Mapping
from math import isfinite, log10

import numpy as np

from ..errors import StageError
from ..samples import Array
from .measures import beyond, is_float, misplaced

MOST = 150.0
"""Greatest ratio that is reported, in dB: float32 cannot hold a smaller difference (24 bits are 144 dB)."""


class SignalToNoise:
    """Energies of outputs and of differences, added up part by part of the samples."""

    def __init__(self) -> None:
        self._signal: dict[str, float] = {}
        self._noise: dict[str, float] = {}

    def add(self, expected: Mapping[str, Array], got: Mapping[str, Array]) -> None:
        """Count the outputs to some samples, [n, ...] each, of the reference and of the other model.

        Values that are NaN, infinite or stand for an infinity are compared by position. Of decisions (whole numbers,
        booleans, text) the noise is the fraction that differs.

        Raises:
            StageError: the other model lacks an output, or gives it another shape.
        """
        for name, reference in expected.items():
            other = got.get(name)
            if other is None or other.shape != reference.shape:
                given = "none" if other is None else f"shape {list(other.shape)}"
                raise StageError(
                    f"output {name!r} has shape {list(reference.shape)} in the reference, and here {given}",
                    next_step="name outputs of one shape in the recipe's source",
                )
            signal, noise = (_numbers if is_float(reference) else _decisions)(reference, other)
            self._signal[name] = self._signal.get(name, 0.0) + signal
            self._noise[name] = self._noise.get(name, 0.0) + noise

    @property
    def decibels(self) -> float:
        """The least ratio of all outputs, from -`MOST` to `MOST`."""
        return min((_ratio(signal, self._noise[name]) for name, signal in self._signal.items()), default=MOST)


def _numbers(expected: Array, got: Array) -> tuple[float, float]:
    """Return the energies of floats [n, ...] and of their difference; infinite where one alone is not finite."""
    one, other = (array.astype(np.float64).reshape(max(len(array), 1), -1) for array in (expected, got))
    wrong, ok = misplaced(one, other, beyond(one))
    energy = float(np.square(np.where(ok, one, 0.0)).sum())
    if wrong:
        return energy, float("inf")
    difference = np.where(ok, one, 0.0) - np.where(ok, other, 0.0)
    return energy, float(np.square(difference).sum())


def _decisions(expected: Array, got: Array) -> tuple[float, float]:
    """Return the count of decisions [n, ...], and of those that differ."""
    return float(expected.size), float(np.count_nonzero(expected != got))


def _ratio(signal: float, noise: float) -> float:
    if noise == 0:
        return MOST
    if signal == 0 or not isfinite(noise) or not isfinite(signal):
        return -MOST
    return max(-MOST, min(MOST, 10 * log10(signal / noise)))
