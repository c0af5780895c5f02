"""Inputs for a load test where no samples are at hand: seeded random numbers in the shapes that the model declares."""

from math import prod

import numpy as np

from seatrial.optimize.samples import Array

from ..targets import Endpoint
from .messages import bfloat16, item_bytes
from .payload import DISTINCT, DISTINCT_BYTES, MAX_BYTES, too_large
from .wire import Wire

_DYNAMIC = 16  # elements on a symbolic axis that is not the batch


def random_inputs(
    endpoint: Endpoint, count: int, seed: int, *, dynamic: int = _DYNAMIC, protocol: Wire = "http"
) -> dict[str, Array]:
    """`count` samples for every input: floats in [0, 1), integers 0 or 1 (legal as ids and masks), short texts.

    Fewer where so many would not fit into memory. Where not every input begins with a free axis, the model does not
    batch and a sample is whole tensors.

    Raises:
        ConfigError: not even one would.
    """
    batched = all(spec.shape and isinstance(spec.shape[0], str) for spec in endpoint.inputs)
    random = np.random.default_rng(seed)
    rows = {spec.name: _row(spec.shape[int(batched) :], dynamic) for spec in endpoint.inputs}
    each = sum(prod(rows[spec.name]) * item_bytes(spec.dtype, protocol) for spec in endpoint.inputs)
    if each > MAX_BYTES:
        raise too_large(each, 1)
    count = max(1, min(count, max(DISTINCT_BYTES // max(each, 1), 1)))
    return {spec.name: _random(random, (count, *rows[spec.name]), spec.dtype) for spec in endpoint.inputs}


def distinct_inputs(endpoint: Endpoint, batch: int, seed: int, *, protocol: Wire = "http") -> dict[str, Array]:
    """Random samples, [requests * batch, ...], for as many distinct requests as a load sends in turn."""
    return random_inputs(endpoint, DISTINCT * batch, seed, protocol=protocol)


def _row(shape: tuple[int | str, ...], dynamic: int) -> tuple[int, ...]:
    return tuple(dim if isinstance(dim, int) else dynamic for dim in shape)


def _random(random: np.random.Generator, shape: tuple[int, ...], dtype: str) -> Array:
    """Return random values of that shape and dtype; bfloat16 as its bits."""
    if dtype == "object":
        return np.array([b"seatrial"] * int(np.prod(shape)), dtype=object).reshape(shape)
    if dtype == "bfloat16":
        return bfloat16(random.random(shape, np.float32))
    if dtype in ("float32", "float64"):
        return random.random(shape, np.dtype(dtype).type)
    if np.dtype(dtype).kind == "f":
        return random.random(shape, np.float32).astype(dtype)
    return random.integers(0, 2, shape, np.int8).astype(dtype)
