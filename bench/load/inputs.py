"""Inputs for a load test where no samples are at hand: seeded random numbers in the shapes that the model declares."""

import numpy as np

from optimize.samples import Array

from ..targets import Endpoint

_DYNAMIC = 16  # elements on a symbolic axis that is not the batch


def random_inputs(endpoint: Endpoint, count: int, seed: int, *, dynamic: int = _DYNAMIC) -> dict[str, Array]:
    """`count` samples for every input: floats in [0, 1), integers 0 or 1 (legal as ids and masks), short texts."""
    random = np.random.default_rng(seed)
    inputs = {}
    for spec in endpoint.inputs:
        batched = bool(spec.shape) and isinstance(spec.shape[0], str)
        row = [dim if isinstance(dim, int) else dynamic for dim in spec.shape[1 if batched else 0 :]]
        inputs[spec.name] = _random(random, (count, *row), spec.dtype)
    return inputs


def _random(random: np.random.Generator, shape: tuple[int, ...], dtype: str) -> Array:
    if dtype == "object":
        return np.array([b"seatrial"] * int(np.prod(shape)), dtype=object).reshape(shape)
    if np.dtype(dtype).kind == "f":
        return random.random(shape).astype(dtype)
    return random.integers(0, 2, shape).astype(dtype)
