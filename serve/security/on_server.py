"""A running server, asked over HTTP and gRPC which of its doors are open; nothing is loaded, registered or changed.

Each administrative category is asked for something that only reads. Loading is tried by unloading a model that cannot
exist: an open server says yes and does nothing. A body limit is found by announcing a large body and sending none.
"""

import http.client
import json
import socket
import time
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any
from urllib.parse import quote
from uuid import uuid4

from seatrial.optimize.breach import Breach

from ..errors import ServerError
from ..triton.repository.entries import shown
from .rules import FIXED_IN, FIXED_STREAM_IN, breach

_SECONDS = 5.0
_ANSWER_BYTES = 1 << 20
_ANNOUNCED = 10**12  # bytes; no honest request to a model is as large
_PATIENCE = 1.0  # seconds in which a server that limits bodies has refused by their announced length
_READS = (
    ("GET", "/v2/systemsharedmemory/status", "open-shared-memory"),
    ("GET", "/v2/models/stats", "open-statistics"),
    ("GET", "/v2/trace/setting", "open-trace"),
    ("GET", "/v2/logging", "open-logging"),
)


class Door:
    """The HTTP side of one server at `address`."""

    def __init__(self, address: tuple[str, int]) -> None:
        self.address = address

    def ask(self, method: str, path: str) -> tuple[int, bytes]:
        """Status and body of one request.

        Raises:
            ServerError: no answer.
        """
        connection = http.client.HTTPConnection(*self.address, timeout=_SECONDS)
        try:
            connection.request(method, path, body=b"{}" if method == "POST" else None)
            reply = connection.getresponse()
            return reply.status, _body(reply)
        except (OSError, ValueError, http.client.HTTPException) as error:
            raise ServerError(
                f"the server does not answer: {error or type(error).__name__}",
                where=f"{self.address[0]}:{self.address[1]}",
                next_step="check that it runs, and that this is its HTTP port",
            ) from error
        finally:
            connection.close()

    def about(self) -> dict[str, Any]:
        """The server's name and version.

        Raises:
            ServerError: no answer, or no KServe v2 server.
        """
        status, body = self.ask("GET", "/v2")
        try:
            told = json.loads(body)
            return {"name": shown(str(told["name"]))[:200], "version": shown(str(told["version"]))[:200]}
        except (ValueError, KeyError, TypeError, RecursionError) as error:
            raise ServerError(
                f"status {status} for /v2 is not the answer of an inference server",
                where=f"{self.address[0]}:{self.address[1]}",
                next_step="give the HTTP port of a Triton server",
            ) from error

    def models(self) -> list[str] | None:
        """Names of the models that are ready; None where the index is closed."""
        status, body = self.ask("POST", "/v2/repository/index")
        if status != 200:
            return None
        try:
            return sorted({str(each["name"]) for each in json.loads(body) if each.get("state") == "READY"})
        except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
            return None  # another server's index

    def config(self, model: str) -> str | None:
        """A model's configuration as JSON text; None where it is closed."""
        status, body = self.ask("GET", f"/v2/models/{quote(model, safe='', errors='replace')}/config")
        return body.decode(errors="replace") if status == 200 else None


def over_http(door: Door, *, exposed: bool) -> Iterator[Breach]:
    """Check what the HTTP endpoint leaves open."""
    where = f"http {door.address[0]}:{door.address[1]}"
    yield breach("plaintext", where, "HTTP without TLS", exposed=exposed)
    version = door.about()["version"]
    if _older(version, FIXED_IN):
        yield breach("old-server", where, f"version {version}", exposed=exposed)
    status, _ = door.ask("POST", f"/v2/repository/models/{_nobody()}/unload")
    if status == 200:
        yield breach("open-control", where, "models can be loaded and unloaded", exposed=exposed)
    for method, path, rule in _READS:
        status, _ = door.ask(method, path)
        if status == 200:
            yield breach(rule, where, f"{method} {path} answers", exposed=exposed)
    for model in (door.models() or [])[:1]:
        if door.config(model) is not None:
            yield breach("open-config", where, f"the configuration of {model} is readable", exposed=exposed)
    if not _limits_bodies(door.address):
        yield breach("no-body-limit", where, f"the server waits for a body of {_ANNOUNCED:.0e} bytes", exposed=exposed)


def over_grpc(address: str, *, exposed: bool) -> Iterator[Breach]:
    """Check what the gRPC endpoint leaves open.

    Raises:
        ServerError: no answer.
    """
    from tritonclient.grpc import InferenceServerClient

    where, client = f"grpc {address}", InferenceServerClient(address)
    try:
        about = _call(client.get_server_metadata)
        if about is None:
            raise ServerError(
                "the server does not answer over gRPC", where=address, next_step="give its gRPC port (--grpc-url)"
            )
        yield breach("plaintext", where, "gRPC without TLS", exposed=exposed)
        if _older(about.version, FIXED_STREAM_IN):
            yield breach("stream-use-after-free", where, f"version {about.version}", exposed=exposed)
        index = _call(client.get_model_repository_index)
        ready = next((each.name for each in index.models if each.state == "READY"), "") if index else ""
        calls: tuple[tuple[str, Callable[..., Any]], ...] = (
            ("open-control", lambda **kept: client.unload_model(_nobody(), **kept) or True),
            ("open-shared-memory", client.get_system_shared_memory_status),
            ("open-statistics", client.get_inference_statistics),
            ("open-trace", client.get_trace_settings),
            ("open-logging", client.get_log_settings),
            *([("open-config", partial(client.get_model_config, ready))] if ready else []),
        )
        for rule, call in calls:
            if _call(call) is not None:
                yield breach(rule, where, f"{rule.removeprefix('open-')} answers", exposed=exposed)
    finally:
        client.close()


def over_metrics(address: tuple[str, int], *, exposed: bool) -> Iterator[Breach]:
    """Check whether the metrics are open to local clients."""
    status, body = Door(address).ask("GET", "/metrics")
    if status == 200 and b"nv_" in body:
        yield breach("open-metrics", f"metrics {address[0]}:{address[1]}", "GET /metrics answers", exposed=exposed)


def _call(call: Callable[..., Any]) -> Any:
    """The answer; None where the server refuses or is not there."""
    from tritonclient.utils import InferenceServerException

    try:
        return call(client_timeout=_SECONDS)
    except InferenceServerException:
        return None


def _body(reply: http.client.HTTPResponse) -> bytes:
    """Return the first MiB, as far as it comes in time: a server may also send a byte now and then, for ever."""
    data, until = bytearray(), time.monotonic() + _SECONDS
    while len(data) < _ANSWER_BYTES and time.monotonic() < until and (part := reply.read1(1 << 16)):
        data += part
    return bytes(data[:_ANSWER_BYTES])


def _older(version: str, fixed: tuple[int, ...]) -> bool:
    """Return whether a numeric version is older than the fix; False for a version without digits."""
    numbers = tuple(int(part) for part in version.split(".") if part.isascii() and part.isdecimal())
    return len(numbers) > 1 and numbers < fixed


def _nobody() -> str:
    return f"seatrial-audit-{uuid4().hex}"


def _limits_bodies(address: tuple[str, int]) -> bool:
    """Return whether the server refuses a large body by its announced length; none is sent."""
    request = f"POST /v2/models/{_nobody()}/infer HTTP/1.1\r\nHost: audit\r\nContent-Length: {_ANNOUNCED}\r\n\r\n"
    try:
        with socket.create_connection(address, timeout=_SECONDS) as connection:
            connection.sendall(request.encode())
            connection.settimeout(_PATIENCE)
            return True if not (said := connection.recv(64)) else not said.startswith(b"HTTP/1.1 100")
    except TimeoutError:
        return False
    except OSError:
        return True
