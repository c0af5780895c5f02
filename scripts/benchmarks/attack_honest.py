"""Honest callers in a process of their own: HTTP with JSON, HTTP with binary tensors, and gRPC, at a steady rate.

Open loop: a request is due at a moment that was drawn before, and its latency counts from then. Each has an input of
its own, so an answer to somebody else's request is seen, and tells the version that gave it.
"""

import contextlib
import http.client
import itertools
import json
import multiprocessing
import random
import select
import struct
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from scripts.benchmarks.attack_world import HONEST, KEYS, NAME

PATH = f"/v2/models/{NAME}/infer"
PROTOCOLS = ("json", "binary", "grpc")
TIMEOUT = 8.0
_THREADS = 4  # for each protocol
_USERS = 100_000


@dataclass(frozen=True, slots=True, kw_only=True)
class Asked:
    """One honest request, in Unix seconds; `status` 200 is a right answer over either protocol, `why` the failure."""

    due: float
    ended: float
    protocol: str
    status: int
    label: str = ""
    said: str = ""
    id: str = ""
    why: str = ""

    @property
    def seconds(self) -> float:
        """From when it was due to its end."""
        return self.ended - self.due


class Honest:
    """The running callers; `asked` reads what they wrote down so far."""

    def __init__(self, port: int, rate: float, path: Path, seconds: float) -> None:
        context = multiprocessing.get_context("spawn")
        self._path, self._over = path, context.Event()
        self._process = context.Process(target=_run, args=(port, rate, str(path), seconds, self._over))
        self._process.start()

    def asked(self) -> list[Asked]:
        """Return the requests that have ended."""
        lines = self._path.read_text().splitlines(keepends=True) if self._path.exists() else []
        return [Asked(**json.loads(line)) for line in lines if line.endswith("\n")]

    def stop(self) -> None:
        """End them once what is under way has ended."""
        self._over.set()
        self._process.join(timeout=TIMEOUT + 10)
        if self._process.is_alive():
            self._process.kill()


@contextlib.contextmanager
def honest(port: int, *, rate: float, path: Path, seconds: float) -> Iterator[Honest]:
    """Callers for the length of the block, `seconds` at the longest; they have begun when it begins."""
    callers = Honest(port, rate, path, seconds)
    try:
        until = time.monotonic() + 20
        while not path.exists() and time.monotonic() < until:
            time.sleep(0.05)
        yield callers
    finally:
        callers.stop()


def answered(port: int) -> bool:
    """Return whether honest requests are answered rightly now, over HTTP and gRPC."""
    for sender in (_Http(port, binary=False), _Grpc(port)):
        found = [sender.ask(*_drawn(random.Random()))["status"] for _ in range(5)]
        sender.close()
        if found != [200] * 5:
            return False
    return True


def _run(port: int, rate: float, path: str, seconds: float, over: Any) -> None:
    dues = _arrivals(rate, seconds)
    lock = threading.Lock()
    Path(path).touch()
    queues = {name: _Due(dues, number, len(PROTOCOLS)) for number, name in enumerate(PROTOCOLS)}

    def work(protocol: str, number: int) -> None:
        sender, drawing = _sender(protocol, port), random.Random(f"{protocol} {number}")
        for due in queues[protocol]:
            if over.wait(max(0.0, due - time.time())):
                break
            found = sender.ask(*_drawn(drawing))
            asked = Asked(due=due, ended=time.time(), protocol=protocol, **found)
            with lock, Path(path).open("a") as stream:
                stream.write(json.dumps(asdict(asked)) + "\n")
        sender.close()

    threads = [threading.Thread(target=work, args=each) for each in itertools.product(PROTOCOLS, range(_THREADS))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()


def _arrivals(rate: float, seconds: float) -> Sequence[float]:
    drawing, found, at = random.Random(11), list[float](), time.time() + 0.5
    until = at + seconds
    while at < until:
        found.append(at)
        at += drawing.expovariate(rate)
    return found


class _Due:
    """The moments of one protocol, handed out to whichever thread is free."""

    def __init__(self, dues: Sequence[float], first: int, step: int) -> None:
        self._left, self._lock = iter(dues[first::step]), threading.Lock()

    def __iter__(self) -> Iterator[float]:
        while True:
            with self._lock:
                due = next(self._left, None)
            if due is None:
                return
            yield due


def _drawn(drawing: random.Random) -> tuple[str, str, list[float]]:
    """Return a client, a user, and an input with a clear class."""
    values = [drawing.choice((0.1, 0.2, 0.3)) + round(drawing.random() * 0.05, 4) for _ in range(4)]
    values[drawing.randrange(4)] += 1.0
    return drawing.choice(HONEST), f"u{drawing.randrange(_USERS)}", values


def _sender(protocol: str, port: int) -> "_Http | _Grpc":
    return _Grpc(port) if protocol == "grpc" else _Http(port, binary=protocol == "binary")


Found = dict[str, Any]


def _right(values: Sequence[float], y: Sequence[float]) -> bool:
    return len(y) == len(values) and all(abs(8 * a - b) < 0.01 for a, b in zip(values, y, strict=True))


def _judged(values: Sequence[float], y: Sequence[float], version: Sequence[int], label: str, id_: str) -> Found:
    said = str(version[0]) if version else ""
    right = _right(values, y) and said == label
    why = "" if right else f"answer {list(y)[:4]} of version {said} to {list(values)}, the header says {label}"
    return {"status": 200 if right else -1, "label": label, "said": said, "id": id_, "why": why}


class _Http:
    """One keep-alive connection; one that the edge has closed meanwhile is opened anew before it is used."""

    def __init__(self, port: int, *, binary: bool) -> None:
        self._connection = http.client.HTTPConnection("127.0.0.1", port, timeout=TIMEOUT)
        self._binary = binary

    def ask(self, client: str, user: str, values: list[float]) -> Found:
        """Send one request; what came of it."""
        headers = {"x-api-key": KEYS[client], "x-user-id": user, "content-type": "application/json"}
        body = self._body(values, headers)
        try:
            if self._connection.sock is not None and select.select([self._connection.sock], [], [], 0)[0]:
                self._connection.close()
            self._connection.request("POST", PATH, body, headers)
            answer = self._connection.getresponse()
            content = answer.read()
            label, id_ = answer.headers.get("x-model-version", ""), answer.headers.get("x-request-id", "")
            if answer.status != 200:
                return {
                    "status": answer.status,
                    "label": label,
                    "id": id_,
                    "why": content[:150].decode(errors="replace"),
                }
            return _judged(values, *self._read(content, answer.headers), label, id_)
        except (OSError, http.client.HTTPException, ValueError, KeyError, struct.error) as error:
            self._connection.close()
            return {"status": 0, "why": repr(error)[:150]}

    def close(self) -> None:
        """Close the connection."""
        self._connection.close()

    def _body(self, values: list[float], headers: dict[str, str]) -> bytes:
        value: dict[str, Any] = {"name": "x", "datatype": "FP32", "shape": [1, len(values)]}
        if not self._binary:
            return json.dumps({"inputs": [value | {"data": values}]}).encode()
        value["parameters"] = {"binary_data_size": 4 * len(values)}
        wanted = [{"name": name, "parameters": {"binary_data": True}} for name in ("y", "v")]
        text = json.dumps({"inputs": [value], "outputs": wanted}).encode()
        headers["Inference-Header-Content-Length"] = str(len(text))
        return text + struct.pack(f"<{len(values)}f", *values)

    def _read(self, content: bytes, headers: Any) -> tuple[Sequence[float], Sequence[int]]:
        if self._binary:
            at = int(headers["inference-header-content-length"])
            return struct.unpack_from("<4f", content, at), struct.unpack_from("<i", content, at + 16)
        outputs = {each["name"]: each["data"] for each in json.loads(content)["outputs"]}
        return outputs["y"], outputs["v"]


class _Grpc:
    """One channel."""

    def __init__(self, port: int) -> None:
        import grpc
        from tritonclient.grpc import service_pb2, service_pb2_grpc

        options = [("grpc.use_local_subchannel_pool", 1), ("grpc.initial_reconnect_backoff_ms", 100)]
        options += [("grpc.max_reconnect_backoff_ms", 500), ("grpc.enable_retries", 0)]
        self._channel = grpc.insecure_channel(f"127.0.0.1:{port}", options=options)
        self._call: Callable[..., Any] = service_pb2_grpc.GRPCInferenceServiceStub(self._channel).ModelInfer.with_call
        self._types, self._error = service_pb2, grpc.RpcError

    def ask(self, client: str, user: str, values: list[float]) -> Found:
        """Send one request; what came of it."""
        tensor = self._types.ModelInferRequest.InferInputTensor(name="x", datatype="FP32", shape=[1, len(values)])
        request = self._types.ModelInferRequest(model_name=NAME, inputs=[tensor])
        request.raw_input_contents.append(struct.pack(f"<{len(values)}f", *values))
        metadata = (("x-api-key", KEYS[client]), ("x-user-id", user))
        try:
            answer, call = self._call(request, timeout=TIMEOUT, metadata=metadata)
        except self._error as error:
            return {"status": 1000 + error.code().value[0], "why": str(error.details())[:150]}
        about = dict(call.initial_metadata())
        raw = {each.name: content for each, content in zip(answer.outputs, answer.raw_output_contents, strict=True)}
        label, id_ = str(about.get("x-model-version", "")), str(about.get("x-request-id", ""))
        return _judged(values, struct.unpack("<4f", raw["y"]), struct.unpack("<i", raw["v"]), label, id_)

    def close(self) -> None:
        """Close the channel."""
        self._channel.close()
