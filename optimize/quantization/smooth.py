"""SmoothQuant's arithmetic: by how much each input channel of a matrix product is divided, and its weights multiplied.

Xiao et al. 2022, equation 4: ``s = max|X| ** a / max|W| ** (1 - a)`` per channel. The product stays what it was, since
``(X / s) (s W) = X W``; what was an outlier of the activations becomes a larger weight, which has a scale of its own.
"""

import numpy as np

from ..samples import Array


def divisors(activations: Array, weights: Array, strength: float) -> Array:
    """The divisor of each channel, [k], from the largest magnitudes of activations and weights, both [k].

    A channel that is always zero on either side is left as it is, and so is one whose divisor would not be a normal
    number.
    """
    usable = (activations > 0) & (weights > 0)
    found = np.ones(len(activations), np.float64)
    found[usable] = activations[usable] ** strength / weights[usable] ** (1.0 - strength)
    return np.where((found > 1e-5) & (found < 1e5), found, 1.0).astype(np.float32)
