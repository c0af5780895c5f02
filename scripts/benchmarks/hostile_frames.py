"""The HTTP/2 part of the grammar: frames, streams and header blocks that break the protocol or strain it. Pure."""

from collections.abc import Sequence
from random import Random
from typing import Any

from scripts.benchmarks.hostile import Hostile, Maker, Target, body, infer_path
from seatrial.bench.load import http2
from seatrial.bench.load.http2 import (
    CONTINUATION,
    DATA,
    END_HEADERS,
    END_STREAM,
    GOAWAY,
    HEADERS,
    PADDED,
    PING,
    PRIORITY,
    PUSH_PROMISE,
    RST_STREAM,
    SETTINGS,
    WINDOW_UPDATE,
)

Pairs = list[tuple[bytes, bytes]]


def _hostile(kind: str, *program: bytes | float, **more: Any) -> Hostile:
    return Hostile(family="frames", kind=kind, protocol="h2", program=program, **more)


def _head(target: Target, path: str = "", more: Sequence[tuple[bytes, bytes]] = ()) -> Pairs:
    pairs = [
        (b":method", b"POST"),
        (b":scheme", b"http"),
        (b":path", (path or infer_path(target)).encode()),
        (b":authority", b"edge"),
        (b"content-type", b"application/json"),
        (b"x-api-key", target.key.encode()),
    ]
    return pairs + ([(b"x-user-id", target.user.encode())] if target.user else []) + list(more)


def _post(target: Target, content: bytes, *, stream: int = 1, path: str = "", end: bool = True) -> bytes:
    return http2.headers(_head(target, path), stream=stream) + http2.data(content, stream=stream, end=end)


def rapid_reset(random: Random, target: Target) -> Hostile:
    """Streams that are opened and reset at once, with or without a whole request."""
    content = body(target, random)
    parts = []
    for number in range(random.choice((50, 150, 300))):
        stream = 2 * number + 1
        sent = (
            _post(target, content, stream=stream)
            if random.random() < 0.3
            else http2.headers(_head(target), stream=stream)
        )
        parts.append(sent + http2.frame(RST_STREAM, (8).to_bytes(4, "big"), stream=stream))
    return _hostile("rapid-reset", http2.opening(), 0.02, b"".join(parts), 0.3, ends=False, streams=())


def many_streams(random: Random, target: Target) -> Hostile:
    """More open streams than are allowed, unfinished or whole."""
    count, whole = random.choice((20, 120, 300)), random.random() < 0.3
    count = min(count, 20) if whole else count
    parts = [
        _post(target, body(target, random), stream=2 * number + 1)
        if whole
        else http2.headers(_head(target), stream=2 * number + 1)
        for number in range(count)
    ]
    after = random.choice(("close", "reset"))
    return _hostile("streams", http2.opening(), 0.02, b"".join(parts), 0.5, ends=False, after=after, streams=())


def settings(random: Random, target: Target) -> Hostile:
    """Settings of impossible values, and settings by the hundred."""
    pairs = random.choice(
        (
            ((1, 2**32 - 1),),
            ((1, 0), (1, 4096), (1, 0)),
            ((2, 2),),
            ((3, 0),),
            ((4, 2**31),),
            ((4, 0),),
            ((5, 1),),
            ((5, 2**24),),
            ((6, 1),),
            ((99, 1),) * 500,
        )
    )
    flood = http2.frame(SETTINGS, b"\x00\x01\x00\x00\x10\x00") * random.choice((0, 0, 500, 3000))
    sent = http2.opening(pairs) + flood + _post(target, body(target, random))
    return _hostile("settings", sent, ends=False)


def floods(random: Random, target: Target) -> Hostile:
    """Cheap frames by the thousand."""
    count = random.choice((200, 2000, 10_000))
    frames = random.choice(
        (
            http2.frame(PING, b"\x00" * 8),
            http2.frame(PRIORITY, b"\x00\x00\x00\x03\x10", stream=1),
            http2.frame(WINDOW_UPDATE, b"\x00\x00\x00\x01"),
            http2.frame(DATA, b"", stream=1),
            http2.frame(0x77, b"unknown"),
        )
    )
    sent = http2.opening() + http2.headers(_head(target)) + frames * count
    return _hostile("flood", sent, 0.1, http2.data(body(target, random)), ends=False)


def header_blocks(random: Random, target: Target) -> Hostile:
    """Header blocks that never end, are damaged, or name what is in no table."""
    block = http2.block(_head(target))
    piece = http2.block([(b"x-pad", b"a" * 1000)])
    sent = random.choice(
        (
            http2.frame(HEADERS, block, stream=1)
            + http2.frame(CONTINUATION, piece, stream=1) * random.choice((5, 100, 1000)),
            http2.frame(HEADERS, block, stream=1) + http2.frame(CONTINUATION, b"", stream=1) * 2000,
            http2.frame(HEADERS, block, stream=1) + http2.frame(PING, b"\x00" * 8),
            http2.frame(HEADERS, block, stream=1) + http2.frame(CONTINUATION, b"", flags=END_HEADERS, stream=3),
            http2.frame(HEADERS, b"\xbf" + block, flags=END_HEADERS, stream=1),
            http2.frame(HEADERS, b"\x3f\xff\xff\xff\x7f" + block, flags=END_HEADERS, stream=1),
            http2.frame(HEADERS, b"\x80" + block, flags=END_HEADERS, stream=1),
            http2.frame(HEADERS, block + b"\x00\x7f\xff\xff\xff\xff\xff\xff\x0f", flags=END_HEADERS, stream=1),
            http2.frame(HEADERS, block[:-4], flags=END_HEADERS, stream=1),
            http2.frame(
                HEADERS, block + b"\x40\x01a\x7f\xe1\x1f" + b"b" * 4096 + b"\xbe" * 8000, flags=END_HEADERS, stream=1
            ),
            http2.frame(HEADERS, random.randbytes(300), flags=END_HEADERS, stream=1),
            http2.frame(CONTINUATION, block, flags=END_HEADERS, stream=1),
        )
    )
    return _hostile("header-block", http2.opening() + sent, ends=False)


def pseudo_headers(random: Random, target: Target) -> Hostile:
    """Pseudo-headers that are missing, there twice, out of order or odd, and names that HTTP/2 forbids."""
    head = _head(target)
    hidden = f"/v2/models/{target.other}/infer".encode()
    pairs = random.choice(
        (
            head[1:],
            head[:2] + head[3:],
            head[:1] + head[2:],
            head[4:] + head[:4],
            [*head, (b":path", hidden)],
            [(b":path", hidden), *head],
            [*head, (b":status", b"200")],
            [*head, (b"X-Client", b"alice")],
            [*head, (b"connection", b"x-api-key")],
            [*head, (b"transfer-encoding", b"chunked")],
            [*head, (b"upgrade", b"h2c")],
            [*head, (b"te", b"gzip")],
            [*head, (b"host", b"other")],
            [*head, (b"content-length", b"3")],
            [*head, (b"content-length", b"3"), (b"content-length", b"4")],
            [*head, (b"x-bad", b"a\r\nx-client: alice")],
            [*head, (b"x-bad", b"a\x00b")],
            [*head, (b"x bad", b"a")],
            [*head, (b"", b"a")],
            [*head, (b"x_client", b"alice")],
            [*head, (b"x-client", b"alice"), (b"x-edge-model", target.other.encode())],
            [(b":method", b"CONNECT"), (b":protocol", b"websocket"), *head[1:]],
            [(b":method", b"PO ST"), *head[1:]],
            [head[0], (b":scheme", b"ftp"), *head[2:]],
            [*head[:2], (b":path", infer_path(target)[1:].encode()), *head[3:]],
            [*head[:2], (b":path", infer_path(target).encode() + b" HTTP/1.1\r\nx-client: alice"), *head[3:]],
            [*head[:2], (b":path", f"/v2/models/{target.model}/../{target.other}/infer".encode()), *head[3:]],
            [*head[:3], (b":authority", b"a@b:99999"), *head[4:]],
        )
    )
    sent = http2.opening() + http2.headers(pairs) + http2.data(body(target, random))
    return _hostile("pseudo", sent, ends=False)


def streams_out_of_order(random: Random, target: Target) -> Hostile:
    """Frames for streams that are idle, closed, even, or not there."""
    content = body(target, random)
    post = _post(target, content)
    sent = random.choice(
        (
            http2.data(content, stream=1),
            http2.headers(_head(target), stream=0),
            http2.data(content, stream=0),
            http2.headers(_head(target), stream=2) + http2.data(content, stream=2),
            _post(target, content, stream=5) + _post(target, content, stream=3),
            post + http2.data(content, stream=1),
            post + http2.headers(_head(target), stream=1),
            post + post,
            http2.headers(_head(target), end=True) + http2.data(content, stream=1),
            http2.frame(RST_STREAM, b"\x00" * 4, stream=9) + post,
            http2.frame(PUSH_PROMISE, b"\x00\x00\x00\x02" + http2.block(_head(target)), flags=END_HEADERS, stream=1),
            http2.frame(GOAWAY, b"\x00" * 8) + post,
            post + http2.frame(GOAWAY, b"\x00" * 8),
            http2.frame(WINDOW_UPDATE, b"\x00" * 4) + post,
            http2.frame(WINDOW_UPDATE, b"\x7f\xff\xff\xff") + post,
            http2.headers(_head(target))
            + http2.frame(WINDOW_UPDATE, b"\x7f\xff\xff\xff", stream=1) * 2
            + http2.data(content),
            _post(target, content, stream=2**31 - 1),
        )
    )
    return _hostile("order", http2.opening() + sent, ends=False, streams=(1,))


def lying_frames(random: Random, target: Target) -> Hostile:
    """Frames whose length, padding or flags are wrong."""
    content = body(target, random)
    head = http2.headers(_head(target))
    sent = random.choice(
        (
            head + http2.frame(DATA, content, flags=END_STREAM, stream=1, length=len(content) + 50),
            head + http2.frame(DATA, content, flags=END_STREAM, stream=1, length=2**24 - 1),
            head + http2.frame(DATA, content, flags=END_STREAM, stream=1, length=5),
            head + http2.frame(DATA, b"\xff" + content, flags=END_STREAM | PADDED, stream=1),
            head + http2.frame(DATA, b"\x00" + content, flags=END_STREAM | PADDED, stream=1),
            head + http2.frame(DATA, b"x" * 20_000, flags=END_STREAM, stream=1),
            head + http2.frame(PING, b"\x00" * 7),
            head + http2.frame(SETTINGS, b"\x00" * 5),
            head + http2.frame(RST_STREAM, b"\x00" * 3, stream=1),
            head + http2.frame(PRIORITY, b"\x00\x00\x00\x01\x10", stream=1) + http2.data(content),
            http2.PREFACE[:-2] + b"XX" + head,
            http2.PREFACE * 2 + head,
            http2.frame(HEADERS, b"\xff" + http2.block(_head(target)), flags=END_HEADERS | PADDED, stream=1),
        )
    )
    opening = b"" if sent.startswith(b"PRI") else http2.opening()
    return _hostile("lies", opening + sent, ends=False)


def over_http2(random: Random, target: Target) -> Hostile:
    """An inference in JSON over HTTP/2, to a version or a model of the caller's, with a body that may be none."""
    path = random.choice(
        (
            infer_path(target),
            f"/v2/models/{target.model}/versions/{target.hidden}/infer",
            f"/v2/models/{target.other}/infer",
            "/v2/repository/index",
        )
    )
    content = random.choice((body(target, random), b"{}", b"[" * 60_000, b""))
    return _hostile("json", http2.opening(), 0.02, _post(target, content, path=path))


def left_open(random: Random, target: Target) -> Hostile:
    """A request over HTTP/2 whose body never ends, or whose caller goes away."""
    content = body(target, random)[: random.randrange(20)]
    after = random.choice(("close", "reset"))
    sent = _post(target, content, end=False)
    return _hostile("open", http2.opening(), 0.02, sent, random.choice((0.0, 1.0)), ends=False, after=after)


FAMILIES: dict[str, Sequence[Maker]] = {
    "frames": (
        rapid_reset,
        many_streams,
        settings,
        floods,
        header_blocks,
        pseudo_headers,
        streams_out_of_order,
        lying_frames,
        over_http2,
        left_open,
    ),
}
