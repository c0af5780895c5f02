"""Asks a served model for its answers to samples, as the client would get them: over HTTP, in batches.

Checks that answers are what the model's metadata promises; does not score them (the user's metric does) and measures no
time. Requests come from `bench.load.payload`, so quality and load send the same bytes.
"""

import http.client
import json
import socket
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from math import ceil
from typing import Any

import numpy as np

from seatrial.optimize.errors import SourceError

from ..errors import AnswerError
from ..load import messages
from ..load.payload import Payload
from ..targets import DTYPES, Endpoint

Array = np.ndarray[Any, np.dtype[Any]]
Metric = Callable[[Mapping[str, Array], Array], Array]
"""Per-sample scores, higher is better: ``metric(outputs, labels) -> float[n]``; the first axis is the sample."""

TIMEOUT = 30.0  # seconds for one answer


def answers(endpoint: Endpoint, inputs: Mapping[str, Array], batch: int) -> dict[str, Array]:
    """The model's outputs for all samples, in order, asked in batches of `batch`.

    A model with a fixed batch axis is asked in batches of that size; the last batch is filled up, and the surplus
    answers are dropped.

    Raises:
        ConfigError: the samples do not fit the model's inputs.
        AnswerError: no answer, a refusal, another shape or dtype than promised, NaN or plus infinity.
    """
    count = len(next(iter(inputs.values())))
    size, single = fixed_batch(endpoint, inputs) or min(batch, count), whole(endpoint, inputs)
    payload = Payload.build(endpoint, inputs, batch=size, count=ceil(count / size))
    parts: list[dict[str, Array]] = []
    with _connection(endpoint) as connection:
        for request in payload.requests:
            parts.append(_checked(endpoint, _exchange(connection, request, endpoint), None if single else size))
    if single:
        return {name: np.stack([part[name] for part in parts]) for name in parts[0]}
    return {name: np.concatenate([part[name] for part in parts])[:count] for name in parts[0]}


def warm_up(endpoint: Endpoint, inputs: Mapping[str, Array], batches: tuple[int, ...], requests: int) -> None:
    """Send `requests` requests, in turn of every batch size that will be measured; answers are read, not kept.

    `inputs` are samples, [n, ...] by name.

    Raises: as `answers`.
    """
    fixed = fixed_batch(endpoint, inputs)
    sizes = sorted({fixed or batch for batch in batches})
    payloads = [Payload.build(endpoint, inputs, batch=size, count=1) for size in sizes]
    with _connection(endpoint) as connection:
        for index in range(requests):
            _exchange(connection, payloads[index % len(payloads)].requests[0], endpoint)


def scores(metric: Metric, outputs: Mapping[str, Array], labels: Array) -> Array:
    """The metric's per-sample scores as float64[n].

    Raises:
        SourceError: the metric raised, or returned something other than one finite number per sample.
    """
    name = getattr(metric, "__qualname__", repr(metric))
    try:
        given = np.asarray(metric(outputs, labels), dtype=np.float64)
    except SourceError:
        raise
    except Exception as error:  # the user's code may raise anything
        raise SourceError(
            f"the metric raised {type(error).__name__}: {error}", where=name, next_step="fix the metric's code"
        ) from error
    if given.shape != (len(labels),) or not np.isfinite(given).all():
        raise SourceError(
            f"the metric returned shape {given.shape} for {len(labels)} samples, or numbers that are not finite",
            where=name,
            next_step="return one finite score per sample; higher must be better",
        )
    return given


def fixed_batch(endpoint: Endpoint, inputs: Mapping[str, Array]) -> int | None:
    """The batch size that the model insists on; 1 for a model without a batch axis; None where any will do."""
    spec = endpoint.inputs[0]
    array = inputs.get(spec.name)
    if array is not None and array.ndim == len(spec.shape) + 1:
        return 1
    return spec.shape[0] if spec.shape and isinstance(spec.shape[0], int) else None


def whole(endpoint: Endpoint, inputs: Mapping[str, Array]) -> bool:
    """Return whether a request holds the whole tensors of one sample: every array has one axis more than its input."""
    return all(
        inputs[spec.name].ndim == len(spec.shape) + 1 or (spec.shape == (1,) and inputs[spec.name].ndim == 1)
        for spec in endpoint.inputs
        if spec.name in inputs
    ) and any(inputs[spec.name].ndim > 1 for spec in endpoint.inputs if spec.name in inputs)


@contextmanager
def _connection(endpoint: Endpoint) -> Iterator[socket.socket]:
    try:
        connection = socket.create_connection(endpoint.address, TIMEOUT)
    except OSError as error:
        raise AnswerError(
            f"the server does not answer: {error}", where=endpoint.url, next_step="read the server's log"
        ) from error
    connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    with connection:
        yield connection


def _exchange(connection: socket.socket, request: bytes, endpoint: Endpoint) -> dict[str, Array]:
    """Send a whole request and read its tensors, in the shapes that the reply states."""
    try:
        connection.sendall(request)
        reply = http.client.HTTPResponse(connection, method="POST")
        reply.begin()
        body = reply.read()
    except (OSError, http.client.HTTPException) as error:
        raise AnswerError(
            f"the connection to the server failed: {type(error).__name__}: {error}",
            where=endpoint.url + endpoint.path,
            next_step="read the server's log",
        ) from error
    if reply.status != 200:
        raise AnswerError(
            f"the server refused a request: HTTP {reply.status} {body[:300].decode(errors='replace')}",
            where=endpoint.url + endpoint.path,
            next_step="check the model's configuration (largest batch, input shapes)",
        )
    try:
        return decoded(body, reply.getheader("Inference-Header-Content-Length"))
    except (ValueError, KeyError, TypeError) as error:
        raise AnswerError(f"the answer is not valid KServe v2: {error}", where=endpoint.url) from error


def decoded(body: bytes, header: str | None) -> dict[str, Array]:
    """The tensors of a KServe v2 reply over HTTP, in the shapes that it states.

    `header` is its Inference-Header-Content-Length, None for plain JSON.

    Raises:
        ValueError, KeyError, TypeError: it is no such reply.
    """
    length = int(header) if header else len(body)
    found, at = {}, length
    for output in json.loads(body[:length])["outputs"]:
        name, datatype, shape = output["name"], output["datatype"], tuple(output["shape"])
        size = output.get("parameters", {}).get("binary_data_size")
        if size is None:
            found[name] = np.array(output["data"], dtype=np.dtype(DTYPES[datatype])).reshape(shape)
            continue
        found[name] = tensor(datatype, shape, body[at : at + size])
        at += size
    return found


def tensor(datatype: str, shape: tuple[int, ...], raw: bytes) -> Array:
    """An array from a KServe datatype, its shape and its bytes, as HTTP and gRPC both carry them."""
    if datatype == "BF16":
        return messages.from_bfloat16(np.frombuffer(raw, "<u2")).reshape(shape)
    dtype = np.dtype(DTYPES[datatype])
    if dtype.kind == "O":
        return _strings(raw).reshape(shape)
    return np.frombuffer(raw, dtype.newbyteorder("<")).reshape(shape)


def _strings(raw: bytes) -> Array:
    """Return the elements of a BYTES tensor, [n], each preceded by its length in four bytes."""
    elements, at = [], 0
    while at < len(raw):
        size = int.from_bytes(raw[at : at + 4], "little")
        elements.append(raw[at + 4 : at + 4 + size])
        at += 4 + size
    return np.array(elements, dtype=object)


def _checked(endpoint: Endpoint, outputs: dict[str, Array], batch: int | None) -> dict[str, Array]:
    """The outputs with the sample as first axis (None: whole tensors), after checking them against the metadata.

    Raises:
        AnswerError: an output is missing or has another dtype or shape; a float is NaN or infinite.
    """
    for spec in endpoint.outputs:
        given = outputs.get(spec.name)
        where = f"output {spec.name!r} of {endpoint.model}"
        if given is None:
            raise AnswerError("the answer lacks an output", where=where)
        if given.dtype != np.dtype("float32" if spec.dtype == "bfloat16" else spec.dtype):
            raise AnswerError(f"the answer has type {given.dtype}, the metadata promises {spec.dtype}", where=where)
        fits = given.ndim == len(spec.shape) and all(
            isinstance(size, str) or size in (actual, -1) for size, actual in zip(spec.shape, given.shape, strict=True)
        )
        if not fits:
            raise AnswerError(
                f"the answer has shape {list(given.shape)}, the metadata promises {list(spec.shape)}", where=where
            )
        bad = int((np.isnan(given) | np.isposinf(given)).sum()) if given.dtype.kind == "f" else 0
        if bad:  # minus infinity is a masked logit
            raise AnswerError(f"the answer contains {bad} NaN or infinite numbers of {given.size}", where=where)
        if batch is None:
            continue
        if batch == 1 and (given.ndim == 0 or given.shape[0] != 1):
            outputs[spec.name] = given[None]
        elif given.ndim == 0 or given.shape[0] != batch:
            raise AnswerError(f"the answer has shape {list(given.shape)} for {batch} samples", where=where)
    return outputs
