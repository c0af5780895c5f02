"""Hostile and malformed requests made from a grammar: each a value that says what to send and what may come back.

Pure and seeded: the same seed makes the same requests. `hostile_http`, `hostile_headers`, `hostile_json`,
`hostile_grpc`, `hostile_calls` and `hostile_frames` hold the grammar; `hostile_wire` sends. Every tensor of an attack
begins with `MARK`, so that a model which no caller may reach can write down that one did.
"""

import base64
import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from random import Random
from typing import Any, Literal

MARK = 666.0
Program = tuple[bytes | float, ...]
"""Bytes are sent, numbers are pauses in seconds."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Target:
    """The model under attack and who attacks it.

    `hidden` is a version that serves and that no route names, `other` a model that the edge does not offer. `user` is
    the value of the sticky header, by which an attack is steered to one version; empty sends none.
    """

    model: str = "target"
    hidden: int = 3
    other: str = "secret"
    width: int = 4
    key: str = "attackers-key"
    user: str = ""
    honest: str = "alice"


@dataclass(frozen=True, slots=True, kw_only=True)
class Hostile:
    """One attack on one connection.

    `most` is what a sound edge does at most: with "refused" no stream of it may be served, with "served" the version
    that the routes name may. `ends` is whether a response or a close must come by itself: an unfinished request may be
    left waiting. `after` is what the attacker does then: wait for the response, close, or reset the connection.
    `streams` are the HTTP/2 streams whose response is waited for.
    """

    family: str
    kind: str
    protocol: Literal["http", "h2"] = "http"
    program: Program = ()
    most: Literal["refused", "served"] = "served"
    ends: bool = True
    after: Literal["wait", "close", "reset"] = "wait"
    streams: tuple[int, ...] = (1,)
    user: str = field(default="", compare=False)

    @property
    def seconds(self) -> float:
        """The pauses together."""
        return sum(each for each in self.program if isinstance(each, float))

    @property
    def size(self) -> int:
        """The bytes together."""
        return sum(len(each) for each in self.program if isinstance(each, bytes))

    def to_json(self) -> dict[str, Any]:
        """Return it as JSON values; bytes in base64."""
        steps = [base64.b64encode(each).decode() if isinstance(each, bytes) else each for each in self.program]
        return asdict(self) | {"program": steps, "streams": list(self.streams)}

    @staticmethod
    def from_json(value: Mapping[str, Any]) -> "Hostile":
        """Return the counterpart of `to_json`."""
        steps = tuple(base64.b64decode(each) if isinstance(each, str) else float(each) for each in value["program"])
        return Hostile(**{**value, "program": steps, "streams": tuple(value["streams"])})


Maker = Callable[[Random, Target], Hostile]


def grammar() -> dict[str, Sequence[Maker]]:
    """Return every family with its makers."""
    from scripts.benchmarks import hostile_calls, hostile_frames, hostile_headers, hostile_http, hostile_json

    parts = (hostile_http, hostile_headers, hostile_json, hostile_calls, hostile_frames)
    return {name: makers for part in parts for name, makers in part.FAMILIES.items()}


def made(seed: int, count: int, target: Target, *, families: Sequence[str] = ()) -> Iterator[Hostile]:
    """Yield `count` attacks; the families take turns, and within a family its makers do, in an order of the seed."""
    random = Random(seed)
    chosen = {name: list(makers) for name, makers in grammar().items() if not families or name in families}
    for makers in chosen.values():
        random.shuffle(makers)
    names = list(chosen)
    for number in range(count):
        name = names[number % len(names)]
        makers = chosen[name]
        yield makers[(number // len(names)) % len(makers)](random, target)


def tensor(target: Target, random: Random, rows: int = 1) -> dict[str, Any]:
    """Return a well-formed input as JSON values; it begins with the mark."""
    values = [MARK, *(round(random.random(), 3) for _ in range(rows * target.width - 1))]
    return {"name": "x", "datatype": "FP32", "shape": [rows, target.width], "data": values}


def body(target: Target, random: Random, **changes: Any) -> bytes:
    """Return a well-formed inference as JSON, its input and its top level changed by `changes`.

    A change whose name begins with ``top_`` is one of the top level.
    """
    top = {name[4:]: value for name, value in changes.items() if name.startswith("top_")}
    own = {name: value for name, value in changes.items() if not name.startswith("top_")}
    return json.dumps({"inputs": [tensor(target, random) | own]} | top).encode()


def infer_path(target: Target) -> str:
    """Return the path of an inference."""
    return f"/v2/models/{target.model}/infer"


def request(
    target: Target,
    content: bytes = b"",
    *,
    method: str = "POST",
    path: str | bytes = "",
    headers: Sequence[tuple[str | bytes, str | bytes]] = (),
    keyed: bool = True,
    sized: bool = True,
    version: str = "HTTP/1.1",
    hosted: bool = True,
) -> bytes:
    """Return an HTTP/1 request with whatever headers; `keyed`, `sized` and `hosted` add those of an honest one."""
    lines: list[tuple[str | bytes, str | bytes]] = [("Host", "edge")] if hosted else []
    lines += [("x-api-key", target.key)] if keyed else []
    lines += [("x-user-id", target.user)] if target.user else []
    lines += [("content-type", "application/json")] if not any(_is(each, "content-type") for each in headers) else []
    lines += headers
    lines += [("Content-Length", str(len(content)))] if sized else []
    first = b" ".join((method.encode(), _bytes(path or infer_path(target)), version.encode()))
    return b"\r\n".join((first, *(_bytes(name) + b": " + _bytes(value) for name, value in lines), b"", b"")) + content


def _is(line: tuple[str | bytes, str | bytes], name: str) -> bool:
    return _bytes(line[0]).lower() == name.encode()


def _bytes(text: str | bytes) -> bytes:
    return text if isinstance(text, bytes) else text.encode("utf-8", "surrogateescape")
