"""Targets of a measurement: one model behind a KServe v2 server, and the hook for fresh servers.

Only describes and asks; starts no server, sends no inference. Asking uses the standard library alone, so that a target
can be checked before anything heavy is imported.
"""

import json
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import quote, unquote, urlsplit

from seatrial.optimize.artifact import Artifact, TensorSpec

from .errors import TargetError

# KServe v2 datatype -> numpy dtype name. BF16 has no numpy dtype: it is named, and travels as bits (`load.messages`).
DTYPES = {
    "BOOL": "bool",
    "UINT8": "uint8",
    "UINT16": "uint16",
    "UINT32": "uint32",
    "UINT64": "uint64",
    "INT8": "int8",
    "INT16": "int16",
    "INT32": "int32",
    "INT64": "int64",
    "FP16": "float16",
    "FP32": "float32",
    "FP64": "float64",
    "BF16": "bfloat16",
    "BYTES": "object",
}
DATATYPES = {dtype: datatype for datatype, dtype in DTYPES.items()}

_DEFAULT_PORT = 8000
_TIMEOUT = 10.0  # seconds for one question


@dataclass(frozen=True, slots=True, kw_only=True)
class Endpoint:
    """One version of one model behind a running server.

    `url` is ``host:port`` of its HTTP side, `grpc_url` of its gRPC side if known. An empty `version` leaves the choice
    to the server, which a measurement should not do. `pids` are root processes on this machine whose memory counts
    (with their children); empty where the server runs elsewhere. `metrics_url` is where its Prometheus counters are,
    where known. Who started the server may say how many seconds loading the model took (`load_seconds`) and how many
    bytes of each GPU's memory were taken before, by UUID (`device_baseline`), and which `engine` runs the model.
    """

    url: str
    grpc_url: str | None = None
    model: str
    version: str
    inputs: tuple[TensorSpec, ...]
    outputs: tuple[TensorSpec, ...]
    pids: tuple[int, ...] = ()
    metrics_url: str | None = None
    load_seconds: float | None = None
    device_baseline: Mapping[str, int] = field(default_factory=dict)
    engine: str = ""

    @property
    def address(self) -> tuple[str, int]:
        """Host and port of the HTTP side."""
        return split_url(self.url)[:2]

    @property
    def path(self) -> str:
        """The model's path on the server, with the version pinned where there is one."""
        return _model_path(self.model, self.version)


Host = Callable[[Artifact], AbstractContextManager[Endpoint]]
"""Context manager that gives a fresh server for an artifact and removes it at the end; the floor above supplies it."""


def endpoint_of(url: str, model: str | None = None, version: str = "") -> Endpoint:
    """Ask a running KServe v2 server what it serves.

    `url` is ``host:port``, ``http://host:port`` or ``http://host:port/v2/models/NAME[/versions/N]``. `model` may be
    left out where exactly one is ready; without `version` the highest one listed is pinned, as Triton itself picks.

    Raises:
        TargetError: the server is unreachable, is no KServe v2 server, or has no such model ready.
    """
    host, port, named_model, named_version = split_url(url)
    netloc = _netloc(host, port)
    model = model or named_model or _only_ready_model(host, port)
    version = version or named_version
    status, metadata = ask(host, port, "GET", _model_path(model, version))
    if status != 200 or not isinstance(metadata, dict) or "inputs" not in metadata:
        raise TargetError(
            f"{netloc} does not serve model {model!r}" + (f" version {version}" if version else ""),
            where=f"{_model_path(model, version)}: HTTP {status}{_reason(metadata)}",
            next_step=_known_models(host, port),
        )
    if not version:
        version = max((str(each) for each in metadata.get("versions") or ()), key=_numeric, default="")
    status, reply = ask(host, port, "GET", _model_path(model, version) + "/ready")
    if status != 200:
        raise TargetError(
            f"model {model!r} version {version or '(unnamed)'} is not ready",
            where=f"{netloc}: HTTP {status}{_reason(reply)}",
            next_step="wait until it is loaded, or read the server's log for why it did not load",
        )
    return Endpoint(
        url=netloc,
        model=model,
        version=version,
        inputs=tuple(_spec(tensor, netloc) for tensor in metadata["inputs"]),
        outputs=tuple(_spec(tensor, netloc) for tensor in metadata.get("outputs") or ()),
    )


def split_url(url: str) -> tuple[str, int, str, str]:
    """Host, port, model and version (empty where not named) of a target's URL.

    Raises:
        TargetError: not an http URL of that form.
    """
    try:
        parts = urlsplit(url if "://" in url else f"http://{url}")
        host, port = parts.hostname, parts.port or _DEFAULT_PORT
    except ValueError as error:
        raise TargetError(f"invalid URL {url!r} ({error})", next_step="write it as http://host:port") from error
    if parts.scheme != "http" or not host or parts.username or parts.query:
        raise TargetError(
            f"invalid target {url!r}",
            next_step="write it as http://host:port[/v2/models/NAME]; Triton's HTTP endpoint has no TLS",
        )
    segments = [unquote(segment) for segment in parts.path.split("/") if segment]
    match segments:
        case [] | ["v2"]:
            return host, port, "", ""
        case ["v2", "models", model]:
            return host, port, model, ""
        case ["v2", "models", model, "versions", version]:
            return host, port, model, version
    raise TargetError(f"invalid target path {parts.path!r}", next_step="use /v2/models/NAME or omit the path")


def _only_ready_model(host: str, port: int) -> str:
    ready = sorted(set(_ready_models(host, port)))
    if len(ready) != 1:
        raise TargetError(
            f"{_netloc(host, port)} has {len(ready)} ready models, so one must be named",
            where=", ".join(ready),
            next_step="name it, or write the URL as http://host:port/v2/models/NAME",
        )
    return ready[0]


def _ready_models(host: str, port: int) -> list[str]:
    status, index = ask(host, port, "POST", "/v2/repository/index", b'{"ready":true}')
    if status != 200 or not isinstance(index, list):
        raise TargetError(
            f"{_netloc(host, port)} does not list its models",
            where=f"/v2/repository/index: HTTP {status}{_reason(index)}",
            next_step="name the model in the URL; if that also fails, this is not a KServe v2 server",
        )
    return [str(entry["name"]) for entry in index if entry.get("state", "READY") == "READY"]


def _known_models(host: str, port: int) -> str:
    try:
        ready = sorted(set(_ready_models(host, port)))
    except TargetError:
        return "check the model's name and version"
    return "ready models: " + (", ".join(ready) or "none; load a model first")


def ask(host: str, port: int, method: str, path: str, body: bytes | None = None) -> tuple[int, Any]:
    """Status and JSON value (None where the body is not JSON) of one question.

    Raises:
        TargetError: no answer.
    """
    status, text = fetch(host, port, method, path, body)
    try:
        return status, json.loads(text)
    except ValueError:
        return status, None


def fetch(host: str, port: int, method: str, path: str, body: bytes | None = None) -> tuple[int, bytes]:
    """Status and body of one question, on a connection of its own that is closed: Triton waits for idle ones.

    Raises:
        TargetError: no answer.
    """
    import http.client  # with TLS, needless for --help

    connection = http.client.HTTPConnection(host, port, timeout=_TIMEOUT)
    try:
        connection.request(method, path, body, {"Content-Type": "application/json"} if body else {})
        reply = connection.getresponse()
        return reply.status, reply.read()
    except (OSError, http.client.HTTPException) as error:
        raise TargetError(
            f"no answer from {_netloc(host, port)}: {error}",
            where=f"{method} {path}",
            next_step="start the server, or correct host and port (Triton's HTTP port, not gRPC or metrics)",
        ) from error
    finally:
        connection.close()


def _spec(tensor: dict[str, Any], netloc: str) -> TensorSpec:
    datatype = tensor.get("datatype")
    if datatype not in DTYPES:
        raise TargetError(
            f"tensor {tensor.get('name')!r} has the unknown datatype {datatype!r}",
            where=netloc,
            next_step=f"known types: {', '.join(DTYPES)}",
        )
    shape = tuple(
        int(size) if int(size) >= 0 else ("batch" if axis == 0 else f"axis_{axis}")
        for axis, size in enumerate(tensor.get("shape") or ())
    )
    return TensorSpec(name=str(tensor["name"]), dtype=DTYPES[datatype], shape=shape)


def _model_path(model: str, version: str) -> str:
    path = f"/v2/models/{quote(model, safe='')}"
    return f"{path}/versions/{quote(version, safe='')}" if version else path


def _netloc(host: str, port: int) -> str:
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


def _numeric(version: str) -> tuple[int, str]:
    return (int(version), version) if version.isdecimal() else (-1, version)


def _reason(reply: Any) -> str:
    return f", {reply['error']}" if isinstance(reply, dict) and "error" in reply else ""
