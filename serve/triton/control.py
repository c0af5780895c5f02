"""Asking and telling a running Triton: health, load, unload, which versions serve, counters, inference.

Speaks to one server and starts none. Loads and unloads go over gRPC where its address is known: over HTTP a load keeps
one of Triton's few HTTP threads for as long as it takes, and every client whose connection shares that thread waits
with it, for a version that has nothing to do with the load. What the client library raises leaves here as one of ours.
A `Control` holds its connections and belongs to the thread that made it; close it, since Triton waits for idle
connections when it stops.
"""

import http.client
import json
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from types import TracebackType
from typing import Any, Self

import numpy as np

from bench.server_statistics import ModelStatistics as ModelStatistics
from bench.server_statistics import statistics_of

from ..errors import ModelLoadError, RequestError, ServerError
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
        from tritonclient.http import InferenceServerClient

        self.foreign = foreign
        self.url, self._grpc_url, self._timeout = url, grpc_url, timeout
        self._loader: Any = None
        self._client = InferenceServerClient(url, connection_timeout=min(timeout, 10.0), network_timeout=timeout)

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
        self._client.close()

    def live(self) -> bool:
        """Whether a server answers there at all."""
        try:
            return bool(self._client.is_server_live())
        except (OSError, http.client.HTTPException):
            return False

    def ready(self, name: str, version: int | str = "") -> bool:
        """Whether that version takes requests. A dead python stub still counts as ready: only an answer proves one."""
        with self._asking(f"ready {name}"):
            return bool(self._client.is_model_ready(name, str(version)))

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
                    next_step="place that version, or leave it out",
                )
        ready = {int(version) for version, state in states.items() if state.state == "READY"}
        if more := ready - set(versions):
            raise ModelLoadError(
                f"version {sorted(more)} still takes requests",
                where=f"{name} at {self.url}",
                next_step="see the server's log; restart the server if it stays so",
            )

    def ready_versions(self, name: str) -> frozenset[int]:
        """The versions of a model that take requests; whether they answer, only a request can show."""
        return frozenset(int(each.version) for each in self.index() if each.name == name and each.state == "READY")

    def dismiss(self, name: str) -> None:
        """Unload every version without waiting: they take no new request, and finish those they have."""
        with self._asking(f"unload {name}", ModelLoadError):
            if self._grpc_url is None:
                self._client.unload_model(name)
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
            return tuple(ModelState(**entry) for entry in self._client.get_model_repository_index())

    def config(self, name: str, version: int | str = "") -> dict[str, Any]:
        """The configuration in force, as JSON values."""
        with self._asking(f"config of {name}"):
            return dict(self._client.get_model_config(name, str(version)))

    def metadata(self, name: str, version: int | str = "") -> dict[str, Any]:
        """Names, data types and shapes (with the batch axis) as the server tells clients."""
        with self._asking(f"metadata of {name}"):
            return dict(self._client.get_model_metadata(name, str(version)))

    def statistics(self, name: str, version: int | str) -> ModelStatistics:
        """The counters of one version."""
        with self._asking(f"statistics of {name}"):
            reply = self._client.get_inference_statistics(name, str(version))
        return statistics_of(reply["model_stats"][0])

    def infer(
        self, name: str, version: int | str, inputs: Mapping[str, Array], *, outputs: tuple[str, ...] = ()
    ) -> dict[str, Array]:
        """One request; answers by output name, all of them unless `outputs` names some.

        Raises:
            RequestError: refused or failed, with the HTTP status.
            ServerError: no answer.
        """
        from tritonclient.http import InferInput, InferRequestedOutput
        from tritonclient.utils import np_to_triton_dtype

        tensors = []
        for key, array in inputs.items():
            tensor = InferInput(key, list(array.shape), np_to_triton_dtype(array.dtype))
            tensor.set_data_from_numpy(np.ascontiguousarray(array))
            tensors.append(tensor)
        wanted = [InferRequestedOutput(each) for each in outputs] or None
        with self._asking(f"infer {name}"):
            reply = self._client.infer(name, tensors, model_version=str(version), outputs=wanted)
        return {each["name"]: reply.as_numpy(each["name"]) for each in reply.get_response()["outputs"]}

    def _load(self, name: str, config: str | None, *, long: bool = True) -> None:
        if self._grpc_url is None or not long:
            self._client.load_model(name, config=config)
        else:
            self._over_grpc().load_model(name, config=config, client_timeout=self._timeout)

    def _over_grpc(self) -> Any:
        if self._loader is None:
            from tritonclient.grpc import InferenceServerClient

            self._loader = InferenceServerClient(self._grpc_url)
        return self._loader

    def _await(self, done: Any, what: str, timeout: float) -> None:
        until = time.monotonic() + timeout
        while not done():
            if time.monotonic() > until:
                raise ModelLoadError(
                    f"waited {timeout:.0f} seconds for {what}",
                    where=self.url,
                    next_step="look at the index and at the server's log; running requests hold a version open",
                )
            time.sleep(_POLL_SECONDS)

    @contextmanager
    def _asking(self, what: str, kind: type[ModelLoadError] | None = None) -> Iterator[None]:
        from tritonclient.utils import InferenceServerException

        try:
            yield
        except InferenceServerException as error:
            message, status = str(error.message()), str(error.status() or "")
            where = f"{what} at {self.url}"
            if status in _NO_ANSWER:
                raise ServerError(
                    f"no answer from the server: {message}", where=where, next_step="see whether it runs, and its log"
                ) from error
            if kind is not None:
                raise kind(message, where=where, next_step="mend the model, place it again, then load") from error
            raise RequestError(
                message, where=where, next_step=_NEXT.get(status, "see the server's log"), status=int(status or 0)
            ) from error
        except (OSError, http.client.HTTPException) as error:
            raise ServerError(
                f"no answer from the server: {error or type(error).__name__}",
                where=f"{what} at {self.url}",
                next_step="see whether it runs, and its log",
            ) from error


_NO_ANSWER = ("StatusCode.DEADLINE_EXCEEDED", "StatusCode.UNAVAILABLE", "StatusCode.CANCELLED")
_NEXT = {
    "400": "mend the request: names, shapes, data types",
    "404": "load the model first, or name a version that is there",
    "503": "load that version if it is not; else send less, or allow a longer queue or timeout in the deployment",
}


def as_json(text: str) -> str:
    """The text of a config.pbtxt as the load API takes it."""
    from importlib import import_module

    from .compiler.config import parse

    return str(
        import_module("google.protobuf.json_format").MessageToJson(parse(text), preserving_proto_field_name=True)
    )
