"""Asking and telling a running Triton: health, load, unload, which versions serve, counters, inference.

Speaks to one server and starts none. Loads and unloads go over gRPC where its address is known: over HTTP a load keeps
one of Triton's few HTTP threads for as long as it takes, and every client whose connection shares that thread waits
with it, for a version that has nothing to do with the load. What the client library raises leaves here as one of ours.
A `Control` holds its connections and is used by one thread at a time; close it, since Triton waits for idle connections
when it stops. Requests travel over `connection`, tensors in the form that the vendor's client gives them.
"""

import http.client
import json
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from importlib import import_module
from types import TracebackType
from typing import Any, Self
from urllib.parse import quote

import numpy as np

from seatrial.bench.server_statistics import ModelStatistics as ModelStatistics
from seatrial.bench.server_statistics import statistics_of

from ..errors import ExhaustedError, ModelLoadError, RequestError, ServerError
from ..exhaustion import lacking
from .compiler.config import parse
from .connection import Connection, Reply
from .server import Server

Array = np.ndarray[Any, np.dtype[Any]]
_POLL_SECONDS = 0.02


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelState:
    """One line of the server's index; a model that was never loaded has neither version nor state."""

    name: str
    version: str = ""
    state: str = ""
    reason: str = ""


class Control:
    """A connection to one server. `url` is ``host:port`` of its HTTP side, `timeout` seconds for one answer.

    `grpc_url` is that of its gRPC side; give it wherever other clients may be served meanwhile. `foreign` is the
    server's (`Server.foreign`), for those who check what they load.
    """

    def __init__(
        self,
        url: str,
        *,
        timeout: float = 120.0,
        grpc_url: str | None = None,
        foreign: tuple[str, ...] | None = (),
    ) -> None:
        self.foreign = foreign
        self.url, self._grpc_url, self._timeout = url, grpc_url, timeout
        self._loader: Any = None
        self._connection = Connection(url, timeout=timeout)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    @classmethod
    def to(cls, server: Server, *, timeout: float = 120.0) -> Self:
        """A connection to a server of ours, that loads without holding up its other clients."""
        return cls(server.url, timeout=timeout, grpc_url=server.grpc_url, foreign=server.foreign)

    def close(self) -> None:
        """Drop the connection."""
        if self._loader is not None:
            self._loader.close()
        self._connection.close()

    def live(self) -> bool:
        """Return whether a server answers there at all.

        Raises:
            ExhaustedError: this process could not ask.
        """
        try:
            return self._says_yes("/v2/health/live", "live")
        except ServerError:
            return False

    def ready(self, name: str, version: int | str = "") -> bool:
        """Return whether that version accepts requests.

        A dead Python stub still counts as ready: only an answer proves one.
        """
        return self._says_yes(f"{_path(name, version)}/ready", f"ready {name}")

    def load(self, name: str, config: str | None = None) -> None:
        """Load a model, or load it anew; `config` is the text of a config.pbtxt to use instead of the one on disk.

        A failed load leaves versions that already served serving.

        Raises:
            ModelLoadError: quotes the server's reason.
            ServerError: no answer.
        """
        with self._asking(f"load {name}", ModelLoadError):
            self._load(name, None if config is None else as_json(config))

    def set_versions(self, name: str, versions: tuple[int, ...], *, loaded: bool = False) -> None:
        """Tell the server to serve exactly these versions of a model that is loaded, those that run untouched.

        The load API takes a configuration; one that differs in the version policy alone starts and stops versions and
        keeps the others as they are: about a millisecond where nothing has to be loaded. Returns when the wanted ones
        are ready and the others take no new request (they may still be answering old ones). `loaded` says that all of
        them run: such a call ends at once, and over HTTP, in half the time.

        `switch.switch` keeps the disk equal and survives a crash; this alone does not.

        Raises:
            ModelLoadError: a version failed to load or is not in the repository; the others serve as before.
        """
        self._reconfigure(name, self.config(name), versions, long=not loaded)

    def without_cache(self, name: str) -> None:
        """Serve the versions that serve now without Triton's response cache.

        Each is loaded anew beside itself and takes over once it is ready, so no request fails; memory holds both until
        then.

        Raises:
            ModelLoadError: a version failed to load again; what served before serves on, with its cache.
        """
        config = {key: value for key, value in self.config(name).items() if key != "response_cache"}
        self._reconfigure(name, config, tuple(self.ready_versions(name)))

    def _reconfigure(self, name: str, config: dict[str, Any], versions: tuple[int, ...], *, long: bool = True) -> None:
        config["version_policy"] = {"specific": {"versions": sorted(versions)}}
        with self._asking(f"load {name}", ModelLoadError):
            self._load(name, json.dumps(config), long=long)
        states = {each.version: each for each in self.index() if each.name == name}
        for version in sorted(versions):  # the server says yes to a version whose directory is not there
            state = states.get(str(version))
            if state is None or state.state != "READY":
                raise ModelLoadError(
                    f"version {version} is not served: {(state and state.reason) or 'it is not in the repository'}",
                    where=f"{name} at {self.url}",
                    next_step="place that version, or omit it",
                )
        ready = {int(version) for version, state in states.items() if state.state == "READY"}
        if more := ready - set(versions):
            raise ModelLoadError(
                f"version {sorted(more)} still accepts requests",
                where=f"{name} at {self.url}",
                next_step="read the server's log; restart the server if this persists",
            )

    def ready_versions(self, name: str) -> frozenset[int]:
        """The versions of a model that take requests; whether they answer, only a request can show."""
        return frozenset(int(each.version) for each in self.index() if each.name == name and each.state == "READY")

    def dismiss(self, name: str) -> None:
        """Unload every version without waiting: they take no new request, and finish those they have."""
        with self._asking(f"unload {name}", ModelLoadError):
            if self._grpc_url is None:
                content = {"parameters": {"unload_dependents": False}}
                self._ask("POST", f"{_repository(name)}/unload", json.dumps(content).encode())
            else:
                self._over_grpc().unload_model(name, client_timeout=self._timeout)

    def unload(self, name: str, *, timeout: float = 30.0) -> None:
        """Unload every version and wait until they are gone; the server itself answers before they are.

        Raises:
            ModelLoadError: they were not gone in time.
        """
        self.dismiss(name)
        gone = ("", "UNAVAILABLE")
        self._await(
            lambda: all(each.state in gone for each in self.index() if each.name == name), f"{name} to go", timeout
        )

    def index(self) -> tuple[ModelState, ...]:
        """Every model in the repository and every version that was ever asked for, with the reason it is not there."""
        with self._asking("index"):
            return tuple(ModelState(**entry) for entry in self._json("POST", "/v2/repository/index"))

    def config(self, name: str, version: int | str = "") -> dict[str, Any]:
        """The configuration in force, as JSON values."""
        with self._asking(f"config of {name}"):
            return dict(self._json("GET", f"{_path(name, version)}/config"))

    def metadata(self, name: str, version: int | str = "") -> dict[str, Any]:
        """Names, data types and shapes (with the batch axis) as the server tells clients."""
        with self._asking(f"metadata of {name}"):
            return dict(self._json("GET", _path(name, version)))

    def statistics(self, name: str, version: int | str) -> ModelStatistics:
        """The counters of one version."""
        with self._asking(f"statistics of {name}"):
            return statistics_of(self._json("GET", f"{_path(name, version)}/stats")["model_stats"][0])

    def infer(
        self, name: str, version: int | str, inputs: Mapping[str, Array], *, outputs: tuple[str, ...] = ()
    ) -> dict[str, Array]:
        """One request; answers by output name, all of them unless `outputs` names some; shapes as the request's.

        Raises:
            RequestError: refused or failed, with the HTTP status.
            ServerError: no answer.
        """
        from tritonclient.http import InferenceServerClient, InferInput, InferRequestedOutput
        from tritonclient.utils import np_to_triton_dtype

        tensors = []
        for key, array in inputs.items():
            tensor = InferInput(key, list(array.shape), np_to_triton_dtype(array.dtype))
            tensor.set_data_from_numpy(np.ascontiguousarray(array))
            tensors.append(tensor)
        wanted = [InferRequestedOutput(each) for each in outputs] or None
        with self._asking(f"infer {name}"):
            body, length = InferenceServerClient.generate_request_body(tensors, outputs=wanted)
            headers = {} if length is None else {_LENGTH: str(length)}
            reply = self._ask("POST", f"{_path(name, version)}/infer", body, headers)
            split = reply.headers.get(_LENGTH.lower())
            answer = InferenceServerClient.parse_response_body(
                reply.body, header_length=None if split is None else int(split)
            )
            return {each["name"]: answer.as_numpy(each["name"]) for each in answer.get_response()["outputs"]}

    def _load(self, name: str, config: str | None, *, long: bool = True) -> None:
        if self._grpc_url is None or not long:
            content = {} if config is None else {"parameters": {"config": config}}
            self._ask("POST", f"{_repository(name)}/load", json.dumps(content).encode())
        else:
            self._over_grpc().load_model(name, config=config, client_timeout=self._timeout)

    def _over_grpc(self) -> Any:
        if self._loader is None:
            from tritonclient.grpc import InferenceServerClient

            self._loader = InferenceServerClient(self._grpc_url)
        return self._loader

    def _says_yes(self, path: str, what: str) -> bool:
        with self._asking(what):
            return self._connection.exchange("GET", path).status == 200

    def _ask(self, method: str, path: str, body: bytes = b"", headers: Mapping[str, str] | None = None) -> Reply:
        reply = self._connection.exchange(method, path, body, headers)
        if reply.status != 200:
            raise _RefusedError(reply)
        return reply

    def _json(self, method: str, path: str) -> Any:
        return json.loads(self._ask(method, path).body)

    def _await(self, done: Any, what: str, timeout: float) -> None:
        until = time.monotonic() + timeout
        while not done():
            if time.monotonic() > until:
                raise ModelLoadError(
                    f"waited {timeout:.0f} seconds for {what}",
                    where=self.url,
                    next_step="check the index and the server's log; running requests keep a version loaded",
                )
            time.sleep(_POLL_SECONDS)

    @contextmanager
    def _asking(self, what: str, kind: type[ModelLoadError] | None = None) -> Iterator[None]:
        from tritonclient.utils import InferenceServerException

        where = f"{what} at {self.url}"
        try:
            yield
        except _RefusedError as error:
            raise _refusal(error.reason, error.status, kind, where) from error
        except InferenceServerException as error:
            message, status = str(error.message()), str(error.status() or "")
            if status in _NO_ANSWER:
                raise _no_answer(message, where) from error
            raise _refusal(message, int(status) if status.isdecimal() else 0, kind, where) from error
        except (OSError, http.client.HTTPException, MemoryError) as error:
            if what_lacks := lacking(error):
                raise ExhaustedError(
                    f"this process cannot query the server: {what_lacks}",
                    where=where,
                    next_step=(
                        "close programs that hold descriptors or memory on this machine, or raise the limit (ulimit -n)"
                    ),
                ) from error
            raise _no_answer(str(error) or type(error).__name__, where) from error
        except (ValueError, KeyError, IndexError, TypeError, RecursionError) as error:
            raise _no_answer(f"it is not a Triton answer: {error!r}", where) from error


class _RefusedError(Exception):
    """A response with another status than 200, and the server's own words."""

    def __init__(self, reply: Reply) -> None:
        try:
            reason = str(json.loads(reply.body)["error"])
        except (ValueError, KeyError, TypeError, RecursionError):
            reason = reply.body[:300].decode(errors="replace") or "no reason in the response"
        super().__init__(reason)
        self.reason, self.status = reason, reply.status


def _refusal(message: str, status: int, kind: type[ModelLoadError] | None, where: str) -> ModelLoadError | RequestError:
    if kind is not None:
        return kind(message, where=where, next_step="fix the model, place it again, then load it")
    return RequestError(message, where=where, next_step=_NEXT.get(status, "see the server's log"), status=status)


def _no_answer(why: str, where: str) -> ServerError:
    return ServerError(
        f"the server does not answer: {why}", where=where, next_step="check that it runs, and read its log"
    )


def _path(name: str, version: int | str = "") -> str:
    return f"/v2/models/{quote(name, safe='')}" + (f"/versions/{version}" if version != "" else "")


def _repository(name: str) -> str:
    return f"/v2/repository/models/{quote(name, safe='')}"


_LENGTH = "Inference-Header-Content-Length"
_NO_ANSWER = ("StatusCode.DEADLINE_EXCEEDED", "StatusCode.UNAVAILABLE", "StatusCode.CANCELLED")
_NEXT = {
    400: "fix the request: names, shapes, data types",
    404: "load the model first, or name an existing version",
    503: (
        "load that version if it is not loaded; else send fewer requests, or allow a longer queue or "
        "timeout in the deployment"
    ),
}


def as_json(text: str) -> str:
    """The text of a config.pbtxt as the load API takes it."""

    return str(
        import_module("google.protobuf.json_format").MessageToJson(parse(text), preserving_proto_field_name=True)
    )
