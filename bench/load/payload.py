"""Requests built before the run: whole KServe v2 messages for one wire, one per distinct sample.

Only bytes; opens no connection. Building costs more than sending, so nothing is serialised inside a measured window.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from math import gcd
from pathlib import Path
from typing import Any, cast
from zipfile import BadZipFile

import numpy as np

from seatrial.optimize.artifact import TensorSpec, digest_bytes
from seatrial.optimize.errors import ConfigError, IntegrityError

from ..targets import DATATYPES, Endpoint
from . import messages, shared_memory
from .messages import Array
from .wire import WIRES, Wire

MAX_BYTES = 1 << 30  # of all requests together, which are held in memory two or three times
DISTINCT = 64  # requests that a load sends in turn, where they are small:
DISTINCT_BYTES = 1 << 28  # of those together


@dataclass(frozen=True, kw_only=True)
class Payload:
    """Whole requests, sent in turn: arrival k gets ``requests[k % len(requests)]``. `batch` is samples per request.

    `protocol` is the wire that they are made for; `regions` is shared memory that they name, and which must be
    registered while they are sent (`shared_memory.registered`).
    """

    requests: tuple[bytes, ...]
    batch: int
    protocol: Wire = "http"
    regions: tuple[shared_memory.Region, ...] = ()

    @cached_property
    def digest(self) -> str:
        """``sha256:...`` over all requests; it changes with the server's address, which is part of every request."""
        return digest_bytes(b"".join(len(request).to_bytes(8, "little") + request for request in self.requests))

    @classmethod
    def build(
        cls,
        endpoint: Endpoint,
        inputs: Mapping[str, Array],
        batch: int = 1,
        count: int | None = None,
        *,
        protocol: Wire = "http",
    ) -> "Payload":
        """Cut up to `count` distinct requests of `batch` samples from arrays whose first axis is the sample.

        Without `count` they are 64, or as many as fit into memory. Where there are fewer distinct windows of samples,
        fewer requests are made. A model whose input
        has no batch axis (its rank is one below the array's) gets one sample per request.

        Raises:
            ConfigError: the arrays do not fit the endpoint's inputs or the wire, or would not fit into memory.
        """
        arrays = {spec.name: _checked(spec, inputs.get(spec.name), batch) for spec in endpoint.inputs}
        if unknown := set(inputs) - set(arrays):
            raise ConfigError(
                f"model {endpoint.model!r} has no input {sorted(unknown)}",
                next_step=f"its inputs are {sorted(arrays)}",
            )
        lengths = {len(array) for array in arrays.values()}
        if len(lengths) != 1 or 0 in lengths or batch < 1 or (count is not None and count < 1):
            raise ConfigError(
                f"cannot cut {count} requests of {batch} samples from arrays of lengths {sorted(lengths)}"
            )
        samples = lengths.pop()
        each = batch * sum(
            array[:1].size * messages.item_bytes(spec.dtype, protocol)
            for spec, array in ((spec, arrays[spec.name]) for spec in endpoint.inputs)
        )
        if each * min(count or 1, samples) > MAX_BYTES:
            raise too_large(each, count or 1)
        count = count or max(1, min(DISTINCT, DISTINCT_BYTES // max(each, 1)))
        cut = [
            {
                spec.name: _rows(arrays[spec.name], (np.arange(batch) + index * batch) % samples, len(spec.shape))
                for spec in endpoint.inputs
            }
            for index in range(min(count, samples // gcd(samples, batch)))
        ]
        return cls(batch=batch, protocol=protocol, **_encoded(endpoint, cut, batch, protocol))

    def save(self, path: Path) -> None:
        """Write the requests as one npz file, for another process; it needs no regions, only their names."""
        lengths = np.array([len(request) for request in self.requests], np.int64)
        data = np.frombuffer(b"".join(self.requests), np.uint8)
        with path.open("wb") as stream:
            np.savez(stream, data=data, lengths=lengths, batch=np.int64(self.batch), protocol=np.array(self.protocol))

    @classmethod
    def read(cls, path: Path) -> "Payload":
        """Read what `save` wrote.

        Raises:
            IntegrityError: the file is no payload.
        """
        try:
            with (
                path.open("rb") as stream,
                np.load(stream, allow_pickle=False) as stored,
            ):  # it leaves a broken file open
                data, ends = stored["data"].tobytes(), np.cumsum(stored["lengths"]).tolist()
                batch, protocol = int(stored["batch"]), cast(Wire, str(stored["protocol"]))
        except (OSError, EOFError, BadZipFile, ValueError, KeyError) as error:
            raise IntegrityError(
                f"not a valid payload: {error}", where=str(path), next_step="build it again"
            ) from error
        requests = tuple(data[start:end] for start, end in zip([0, *ends], ends, strict=False))
        return cls(requests=requests, batch=batch, protocol=protocol)


def too_large(each: int, count: int) -> ConfigError:
    """The refusal of requests that do not fit into memory."""
    said = f"{count} requests of {each} bytes each" if count > 1 else f"requests of {each} bytes"
    return ConfigError(
        f"{said} exceed the limit of {MAX_BYTES} bytes in memory",
        next_step="send smaller batches or samples; JSON takes several times as many bytes as http or grpc",
    )


def _as_bfloat16(array: Array, where: str) -> Array:
    """Floats as the bits of bfloat16, in the same shape; uint16 is taken for such bits."""
    if array.dtype == np.uint16:
        return array
    if array.dtype.kind != "f":
        raise ConfigError(
            f"samples must be floats, got {array.dtype}",
            where=where,
            next_step="provide floats, or bfloat16 bits as uint16",
        )
    return messages.bfloat16(array.astype(np.float32))


def _rows(array: Array, rows: Any, rank: int) -> Array:
    """Those samples of an array; without the sample axis where the model's input has none."""
    tensor: Array = array[rows]
    return tensor if tensor.ndim == rank else tensor[0]


def _encoded(endpoint: Endpoint, cut: Sequence[Mapping[str, Array]], batch: int, protocol: Wire) -> dict[str, Any]:
    """Return the requests of a payload, one for each cut of the samples, [batch, ...] by input."""
    match protocol:
        case "http":
            return {"requests": tuple(messages.binary(endpoint, tensors) for tensors in cut)}
        case "json":
            return {"requests": tuple(messages.text(endpoint, tensors) for tensors in cut)}
        case "grpc":
            from . import on_grpc

            return {"requests": tuple(on_grpc.message(endpoint, tensors) for tensors in cut)}
        case "shm":
            requests, regions = shared_memory.laid_out(endpoint, cut, batch)
            return {"requests": requests, "regions": regions}
    raise ConfigError(f"unknown protocol {protocol!r}", next_step=f"choose one of {', '.join(WIRES)}")


def _checked(spec: TensorSpec, array: Array | None, batch: int) -> Array:
    """The array in the input's dtype, its shape fitting the input's.

    Raises:
        ConfigError: it is missing, has another shape, or cannot be converted without changing what it says.
    """
    where = f"input {spec.name!r} takes {spec.dtype} {list(spec.shape)}"
    if array is None:
        raise ConfigError(f"there are no samples for input {spec.name!r}", where=where)
    if spec.dtype not in DATATYPES:
        raise ConfigError(f"numpy has no type for {spec.dtype}, so no request can be made", where=where)
    row = spec.shape if array.ndim == len(spec.shape) + 1 else spec.shape[1:]
    unbatched = row is spec.shape
    fixed = None if unbatched or not spec.shape or isinstance(spec.shape[0], str) else spec.shape[0]
    fits = array.ndim == len(row) + 1 and all(
        isinstance(size, str) or size == actual for size, actual in zip(row, array.shape[1:], strict=True)
    )
    if not fits or (unbatched and batch != 1) or (fixed is not None and fixed != batch):
        raise ConfigError(f"samples of shape {list(array.shape)} in batches of {batch} do not fit", where=where)
    return _converted(array, spec, where)


def _converted(array: Array, spec: TensorSpec, where: str) -> Array:
    """Return samples, [n, ...], in the input's dtype where that loses nothing."""
    if spec.dtype == "object":
        if array.dtype.kind not in "OSU" or not all(isinstance(each, str | bytes) for each in array.ravel().tolist()):
            raise ConfigError(f"samples must be strings or bytes, got {array.dtype}", where=where)
        return array
    if spec.dtype == "bfloat16":
        return _as_bfloat16(array, where)
    wanted = np.dtype(spec.dtype)
    if array.dtype == wanted:
        return array
    if array.dtype.kind not in "biuf" or (array.dtype.kind == "f") != (wanted.kind == "f"):
        raise ConfigError(
            f"samples must be numbers, got {array.dtype}", where=where, next_step="convert them in the loader"
        )
    with np.errstate(over="ignore"):
        converted = array.astype(wanted)
    kept = np.isfinite(converted) == np.isfinite(array) if wanted.kind == "f" else converted == array
    if not np.all(kept):
        raise ConfigError(f"samples of {array.dtype} do not fit into {wanted}", where=where)
    return converted
