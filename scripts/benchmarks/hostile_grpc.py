"""The messages of the gRPC part of the grammar, as bytes on HTTP/2. Pure.

The fields of a message are written by hand, so that lengths may lie. A message that is well-formed but for one thing is
parsed by Triton as the thing allows: an open field at its end swallows whatever an edge appends.
"""

import gzip
import struct
from collections.abc import Sequence
from functools import lru_cache
from random import Random
from typing import Any

from scripts.benchmarks.hostile import MARK, Hostile, Maker, Target
from seatrial.bench.load import http2

SERVICE = "/inference.GRPCInferenceService/"
Metadata = Sequence[tuple[str | bytes, str | bytes]]


@lru_cache(64)
def _gzipped(content: bytes) -> bytes:
    return gzip.compress(content, mtime=0)


def varint(value: int, *, length: int = 0) -> bytes:
    """Return a varint; `length` pads it to that many bytes."""
    found = bytearray()
    while value > 127:
        found.append(value & 127 | 128)
        value >>= 7
    found.append(value)
    while len(found) < length:
        found[-1] |= 128
        found.append(0)
    return bytes(found)


def field(number: int, content: bytes | int, *, kind: int | None = None, length: int | None = None) -> bytes:
    """Return one field; `kind` and `length` replace what its content would have."""
    if isinstance(content, int):
        return varint(number << 3 | (0 if kind is None else kind)) + varint(content)
    size = len(content) if length is None else length
    return varint(number << 3 | (2 if kind is None else kind)) + varint(size) + content


def tensors(target: Target, rows: int = 1) -> bytes:
    """Return the fields of a well-formed input: its description, and its content."""
    shape = b"".join(varint(each) for each in (rows, target.width))
    described = field(1, b"x") + field(2, b"FP32") + field(3, shape)
    raw = struct.pack(f"<{rows * target.width}f", MARK, *([0.0] * (rows * target.width - 1)))
    return field(5, described) + field(7, raw)


def message(target: Target, *, model: str = "", version: str = "", rows: int = 1) -> bytes:
    """Return a well-formed inference."""
    named = field(2, version.encode()) if version else b""
    return field(1, (model or target.model).encode()) + named + tensors(target, rows)


def framed(content: bytes, *, flag: int = 0, length: int | None = None) -> bytes:
    """Return a message with the five bytes before it."""
    return bytes((flag,)) + (len(content) if length is None else length).to_bytes(4, "big") + content


def metadata(
    target: Target,
    method: str = "ModelInfer",
    more: Metadata = (),
    *,
    keyed: bool = True,
    without: Sequence[str] = (),
    path: str = "",
) -> list[tuple[bytes, bytes]]:
    """Return the headers of a call; those named in `without` are left out."""
    pairs: list[tuple[str | bytes, str | bytes]] = [
        (":method", "POST"),
        (":scheme", "http"),
        (":path", path or SERVICE + method),
        (":authority", "edge"),
        ("te", "trailers"),
        ("content-type", "application/grpc"),
    ]
    pairs += [("x-api-key", target.key)] if keyed else []
    pairs += [("x-user-id", target.user)] if target.user else []
    pairs = [pair for pair in pairs if pair[0] not in without]
    return [(_bytes(name), _bytes(value)) for name, value in (*pairs, *more)]


def call(
    target: Target,
    kind: str,
    content: bytes,
    *,
    method: str = "ModelInfer",
    more: Metadata = (),
    keyed: bool = True,
    without: Sequence[str] = (),
    path: str = "",
    **about: Any,
) -> Hostile:
    """Return one call whose body is `content`, frames of gRPC included."""
    head = http2.headers(metadata(target, method, more, keyed=keyed, without=without, path=path))
    return Hostile(
        family="grpc", kind=kind, protocol="h2", program=(http2.opening() + head, 0.02, http2.data(content)), **about
    )


def swallowing(random: Random, target: Target) -> Hostile:
    """A request for a version of the caller's, and an open field at its end that swallows what an edge appends."""
    version = random.choice((str(target.hidden), "2", "9", ""))
    model = random.choice((target.model, target.model, target.other))
    named = field(1, target.model.encode()) + (field(1, model.encode()) if model != target.model else b"")
    named += field(2, version.encode()) if version else b""
    appended = len(field(1, target.model.encode()) + field(2, b"1"))
    size = random.choice((appended, appended, appended, 1, 7, 40, 127))
    number = random.choice((3, 3, 4, 5, 6, 7, 8, 9, 15, 16, 200, 2047, 2048, 2**20, 2**28, 2**29 - 1))
    length = varint(size, length=random.choice((0, 0, 2, 3, 5, 10)))
    tag = varint(number << 3 | 2, length=random.choice((0, 0, 5)))
    inner = random.choice((b"", b"", b"ab", field(1, b"x")))
    content = named + tensors(target) + tag + length + inner
    return call(target, "swallow", framed(content))


def nested_open(random: Random, target: Target) -> Hostile:
    """Lengths inside a field that reach beyond it, or beyond the message."""
    base = message(target, version=str(target.hidden))
    inner = field(1, b"x", length=random.choice((2, 20, 200)))
    tail = random.choice(
        (
            field(5, inner),
            field(5, inner, length=len(inner) + 14),
            field(4, field(1, b"k") + field(2, field(3, b"v", length=90)), length=30),
            field(6, field(1, b"y") + field(2, b"\x0a\x7f")),
            field(7, b"\x00" * 16, length=1000),
            field(5, field(3, b"\xff" * 20)),
        )
    )
    return call(target, "nested", framed(base + tail))


def odd_names(random: Random, target: Target) -> Hostile:
    """Model and version twice, in any order, after the tensors, or of no legal form."""
    model, other, hidden = target.model.encode(), target.other.encode(), str(target.hidden).encode()
    content = random.choice(
        (
            field(2, hidden) + field(1, model) + tensors(target),
            tensors(target) + field(1, model) + field(2, hidden),
            tensors(target) + field(1, other) + field(2, b"1"),
            field(1, model) + tensors(target) + field(1, other),
            field(1, other) + tensors(target) + field(1, model),
            field(1, model) + field(1, other) + field(1, model) + tensors(target),
            field(1, model) + field(2, hidden) + field(2, b"1") + field(2, hidden) + tensors(target),
            field(1, model, length=len(model)) + field(2, b"0" + hidden) + tensors(target),
            field(1, model) + field(2, "３".encode()) + tensors(target),
            field(1, model) + field(2, b" " + hidden) + tensors(target),
            field(1, model) + field(2, b"-1") + tensors(target),
            field(1, model) + field(2, b"9" * 300) + tensors(target),
            field(1, model + b"\x00") + tensors(target),
            field(1, b"\xff\xfe") + tensors(target),
            field(1, b"a" * 300) + tensors(target),
            field(1, b"../" + other) + tensors(target),
            field(1, model + b"/versions/" + hidden) + tensors(target),
            field(1, b"") + tensors(target),
            tensors(target),
            field(1, 5) + tensors(target),
            varint(10, length=5) + varint(len(model), length=5) + model + field(2, hidden) + tensors(target),
            field(3, b"i" * 2000) + field(1, model) + tensors(target),
            field(200, b"u" * 1100) + field(1, other) + field(1, model) + tensors(target),
        )
    )
    return call(target, "names", framed(content))


def odd_wire(random: Random, target: Target) -> Hostile:
    """Wire types and tags that few writers use: groups, fixed sizes, field 0, types 6 and 7, long varints."""
    group, end = varint(200 << 3 | 3), varint(200 << 3 | 4)
    deep = random.choice((2, 99, 101, 20_000))
    tail = random.choice(
        (
            group,
            group + end,
            group + field(1, target.other.encode()) + end,
            group * deep + end * deep,
            group * deep,
            end,
            group + varint(201 << 3 | 4),
            varint(200 << 3 | 6),
            varint(200 << 3 | 7) + b"\x00",
            b"\x02\x00",
            b"\x00",
            b"\x03\x04",
            varint(200 << 3 | 1) + b"\x00" * 8,
            varint(200 << 3 | 1) + b"\x00" * 3,
            varint(200 << 3 | 5) + b"\x00" * 4,
            varint(200 << 3 | 5) + b"\x00",
            varint(200 << 3) + b"\xff" * 9 + b"\x01",
            varint(200 << 3) + b"\xff" * 10 + b"\x01",
            varint(200 << 3) + b"\x80",
            b"\xff" * 4 + b"\x7f",
            b"\xff" * 9 + b"\x01",
            varint(26) + b"\xff\xff\xff\xff\x07",
            varint(26) + b"\xff\xff\xff\xff\x0f",
            varint(26) + b"\xff" * 9 + b"\x01",
            varint(26) + b"\x80\x80\x80\x80\x80\x80\x80\x80\x80\x80\x01",
        )
    )
    version = random.choice((str(target.hidden), ""))
    base = message(target, version=version)
    content = tail + base if random.random() < 0.3 else base + tail
    return call(target, "wire", framed(content))


def cut_short(random: Random, target: Target) -> Hostile:
    """A message that ends at any byte, as its frame says or not."""
    content = message(target, version=str(target.hidden))
    cut = content[: random.randrange(len(content))]
    return call(target, "cut", random.choice((framed(cut), framed(cut, length=len(content)))))


def frame_lies(random: Random, target: Target) -> Hostile:
    """Frames whose length or flag is wrong, two messages in one body, and none."""
    content = message(target, version=str(target.hidden))
    secret = framed(message(target, model=target.other))
    whole = random.choice(
        (
            framed(content, length=len(content) - 3),
            framed(content, length=len(content) + 3),
            framed(content, length=0),
            framed(content, length=2**32 - 1),
            framed(content, length=2**31),
            framed(content) + framed(content),
            framed(content) + secret,
            framed(b"") + framed(content),
            framed(content) + b"\x00",
            framed(content) + b"\x00\x00\x00\x00",
            framed(content)[:4],
            b"",
            b"\x00",
            content,
            framed(content, flag=1),
            framed(_gzipped(content), flag=1),
            framed(content, flag=2),
            framed(content, flag=255),
            framed(content, flag=128),
            framed(b"\x0a" * 70_000),
        )
    )
    return call(target, "frame", whole)


def wrong_tensors(random: Random, target: Target) -> Hostile:
    """Tensors whose types, shapes, sizes or counts lie."""

    def described(name: bytes, kind: bytes, shape: Sequence[int]) -> bytes:
        sizes = b"".join(varint(each % 2**64) for each in shape)
        return field(5, field(1, name) + field(2, kind) + field(3, sizes))

    raw = struct.pack("<4f", MARK, 0, 0, 0)
    content = random.choice(
        (
            described(b"x", b"FP32", (1, 4)),
            described(b"x", b"FP32", (1, 4)) + field(7, raw[:-1]),
            described(b"x", b"FP32", (1, 4)) + field(7, raw * 2),
            described(b"x", b"FP32", (1, 4)) + field(7, raw) + field(7, raw),
            described(b"x", b"FP32", (-1, 4)) + field(7, raw),
            described(b"x", b"FP32", (0, 4)) + field(7, b""),
            described(b"x", b"FP32", (2**62, 4)) + field(7, raw),
            described(b"x", b"FP32", (2**61, 8)) + field(7, b""),
            described(b"x", b"FP32", (1,) * 1000) + field(7, raw),
            described(b"x", b"BYTES", (1, 4)) + field(7, raw),
            described(b"x", b"NOPE", (1, 4)) + field(7, raw),
            described(b"nope", b"FP32", (1, 4)) + field(7, raw),
            described(b"x", b"FP32", (1, 4)) * 2 + field(7, raw) * 2,
            described(b"x", b"FP32", (17, 4)) + field(7, raw * 17),
            described(b"x", b"FP32", (16, 4)) + field(7, raw * 16),
            described(b"i", b"FP32", (1, 1)) * 5000 + field(7, b"\x00" * 4) * 5000,
            described(b"x", b"FP32", (1, 4)) + field(7, raw) + field(6, field(1, b"nope")),
            described(b"x", b"FP32", (1, 4)) + field(7, raw) + field(6, field(1, b"y")) * 5000,
            described(b"x", b"FP32", (1, 4))
            + described(b"s", b"BYTES", (1, 2**40))
            + field(7, raw)
            + field(7, b"\xff" * 9),
            described(b"x", b"FP32", (1, 4))
            + described(b"s", b"BYTES", (1, 1))
            + field(7, raw)
            + field(7, b"\xff" * 4),
            field(5, field(1, b"x") + field(2, b"FP32") + field(3, varint(1) + varint(4)) + field(5, field(7, raw))),
        )
    )
    named = field(1, target.model.encode())
    shared = field(5, field(1, b"x") + field(4, field(1, b"shared_memory_region") + field(2, field(3, b"r"))))
    return call(target, "tensors", framed(named + (content if random.random() < 0.95 else shared)))


def parameters(random: Random, target: Target) -> Hostile:
    """Request parameters that steer Triton."""

    def parameter(name: bytes, value: bytes) -> bytes:
        return field(4, field(1, name) + field(2, value))

    tail = random.choice(
        (
            parameter(b"priority", field(2, 2**63)),
            parameter(b"timeout", field(2, 2**64 - 1)),
            parameter(b"timeout", field(2, 1)),
            parameter(b"sequence_id", field(2, 7)) + parameter(b"sequence_start", field(1, 1)),
            parameter(b"sequence_id", field(3, b"a" * 5000)),
            parameter(b"binary_data_size", field(2, 2**63)),
            parameter(b"a" * 60_000, field(1, 1)),
            parameter(b"k", b"") * 3000,
            parameter(b"\xff", field(3, b"\xff")),
        )
    )
    return call(target, "parameters", framed(message(target) + tail))


def noise(random: Random, target: Target) -> Hostile:
    """Bytes that are no message, or a message with a few bytes changed."""
    content = bytearray(message(target, version=str(target.hidden)))
    if random.random() < 0.3:
        content = bytearray(random.randbytes(random.randint(1, 2000)))
    else:
        for _ in range(random.randint(1, 4)):
            content[random.randrange(len(content))] = random.randrange(256)
    return call(target, "noise", framed(bytes(content)))


def _bytes(text: str | bytes) -> bytes:
    return text if isinstance(text, bytes) else text.encode()


MAKERS: Sequence[Maker] = (
    swallowing,
    nested_open,
    odd_names,
    odd_wire,
    cut_short,
    frame_lies,
    wrong_tensors,
    parameters,
    noise,
)
