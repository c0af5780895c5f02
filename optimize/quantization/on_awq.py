"""Activation-aware scaling of weights that are rounded alone (AWQ, Lin et al. 2023): a search on calibration rows.

Weights that meet great activations are multiplied before rounding, and the activations divided by the same factors.
Factors are a power of each channel's mean magnitude; the power is the one whose outputs err least, 0 (none) among them.
"""

from collections.abc import Callable, Collection, Mapping

import numpy as np
import onnx

from ..graphs.on_onnx import array
from ..samples import Array
from .on_graph import Product, products
from .on_smooth import rescaled

POWERS = tuple(step / 20 for step in range(20))
_LEAST, _MOST = 1e-4, 1e4  # of a factor


def scaled(
    model: onnx.ModelProto, nodes: Collection[str], rows: Mapping[str, Array], rounding: Callable[[Array], Array]
) -> tuple[onnx.ModelProto, dict[str, object]]:
    """Return a copy of the model that computes the same with weights that round better, and what was found.

    `rows` are activations [rows, k] of each product's input, `rounding` returns weights [k, n] as the format holds
    them. Products that share an input share its factors.
    """
    changed = onnx.ModelProto()
    changed.CopyFrom(model)
    sharing: dict[str, list[Product]] = {}
    for product in products(changed, nodes):
        sharing.setdefault(product.node.input[0], []).append(product)
    powers: dict[str, float] = {}
    explicit = 0
    plain_error = least_error = 0.0
    for tensor, group in sharing.items():
        if tensor not in rows:
            continue
        matrices = [array(one.weight).T if one.transposed else array(one.weight) for one in group]
        errors = [_error(rows[tensor], matrices, factors(rows[tensor], power), rounding) for power in POWERS]
        best = int(np.argmin(errors))
        powers[tensor] = POWERS[best]
        plain_error, least_error = plain_error + errors[0], least_error + errors[best]
        if best:
            explicit += bool(rescaled(changed, tensor, group, factors(rows[tensor], POWERS[best])))
    found: dict[str, object] = {
        "inputs": len(powers),
        "scaled": sum(power > 0 for power in powers.values()),
        "explicit": explicit,
        "error_ratio": round(least_error / plain_error, 4) if plain_error else 1.0,
    }
    return changed, found


def factors(rows: Array, power: float) -> Array:
    """Return the factor of each channel, float32 [k]: its mean magnitude to a power, around 1 in the middle."""
    size = np.maximum(np.abs(rows).mean(axis=0, dtype=np.float64), 1e-12) ** power
    return np.asarray(np.clip(size / np.sqrt(size.max() * size.min()), _LEAST, _MOST), np.float32)


def _error(rows: Array, matrices: list[Array], factor: Array, rounding: Callable[[Array], Array]) -> float:
    """Return the energy of the outputs' error over all products."""
    total = 0.0
    for matrix in matrices:
        difference = rounding(matrix * factor[:, None]) / factor[:, None] - matrix
        total += float(np.square(rows @ difference, dtype=np.float64).sum())
    return total
