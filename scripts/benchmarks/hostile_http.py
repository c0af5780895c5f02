"""The HTTP/1 part of the grammar: framing, and slow or broken connections. Pure."""

from collections.abc import Sequence
from random import Random
from typing import Any

from scripts.benchmarks.hostile import Hostile, Maker, Target, body, infer_path, request


def hostile(family: str, kind: str, *program: bytes | float, **more: Any) -> Hostile:
    """Return one attack over HTTP/1."""
    return Hostile(family=family, kind=kind, program=program, **more)


def _smuggled(target: Target, random: Random) -> bytes:
    """Return a second request, inside the first: to a version, a model or an interface that no caller may reach."""
    paths = (
        f"/v2/models/{target.model}/versions/{target.hidden}/infer",
        f"/v2/models/{target.other}/infer",
        "/v2/repository/index",
    )
    return request(target, body(target, random), path=random.choice(paths))


def lengths_disagree(random: Random, target: Target) -> Hostile:
    """Content-Length and Transfer-Encoding together, in either order, with a request hidden behind the last chunk."""
    coding = random.choice(("chunked", "Chunked", "xchunked", " chunked", "chunked, identity", "identity, chunked", ""))
    inner = b"0\r\n\r\n" + _smuggled(target, random)
    size = random.choice((str(len(inner)), "5", "0"))
    pair = [("Transfer-Encoding", coding), ("Content-Length", size)]
    random.shuffle(pair)
    return hostile("framing", "cl-te", request(target, inner, headers=pair, sized=False), ends=False)


def coding_spelled_oddly(random: Random, target: Target) -> Hostile:
    """A Transfer-Encoding that one parser sees and another does not."""
    name = random.choice(
        (b"Transfer-Encoding ", b" Transfer-Encoding", b"Transfer_Encoding", b"X: y\nTransfer-Encoding")
    )
    content = body(target, random)
    chunked = b"%x\r\n%s\r\n0\r\n\r\n" % (len(content), content)
    return hostile("framing", "te-odd", request(target, chunked, headers=[(name, b"chunked")]), ends=False)


def lengths_repeated(random: Random, target: Target) -> Hostile:
    """A Content-Length that is there twice or is no length."""
    content = body(target, random)
    size = len(content)
    values = random.choice(
        (
            (str(size), str(size + 40)),
            (str(size), "0"),
            (str(size), str(size)),
            (f"{size}, {size}",),
            (f"+{size}",),
            ("-1",),
            (hex(size),),
            ("1e3",),
            (str(2**64),),
            (str(2**63 - 1),),
            (f"{size} 1",),
            ("",),
        )
    )
    headers = [("Content-Length", value) for value in values]
    return hostile("framing", "length", request(target, content, headers=headers, sized=False), ends=False)


def bad_chunks(random: Random, target: Target) -> Hostile:
    """Chunks whose sizes, ends or extensions are wrong."""
    content = body(target, random)
    good = b"%x" % len(content)
    chunks = random.choice(
        (
            b"zz\r\n" + content + b"\r\n0\r\n\r\n",
            b"-1\r\n" + content + b"\r\n0\r\n\r\n",
            b"ffffffffffffffff\r\n" + content,
            b"1" + b"0" * 40 + b"\r\n" + content,
            good + b";" + b"e" * 20_000 + b"\r\n" + content + b"\r\n0\r\n\r\n",
            good + b"\n" + content + b"\n0\n\n",
            good + b"\r\n" + content + b"XX0\r\n\r\n",
            b"0x" + good + b"\r\n" + content + b"\r\n0\r\n\r\n",
            good + b"\r\n" + content[:-3],
            b"".join(b"1\r\n" + bytes((each,)) + b"\r\n" for each in content) + b"0\r\n\r\n",
        )
    )
    coding = [("Transfer-Encoding", "chunked")]
    return hostile("framing", "chunks", request(target, chunks, headers=coding, sized=False), ends=False)


def odd_lines(random: Random, target: Target) -> Hostile:
    """Line ends and header lines that parsers read differently."""
    content, good = body(target, random), request(target, body(target, random))
    head = f"POST {infer_path(target)} HTTP/1.1\r\n".encode()
    rest = b"Host: edge\r\nx-api-key: " + target.key.encode() + b"\r\nContent-Length: %d\r\n\r\n" % len(content)
    program = random.choice(
        (
            good.replace(b"\r\n", b"\n"),
            good.replace(b"\r\n", b"\r"),
            head + b"x-fold: a\r\n b: c\r\n\tx-client: alice\r\n" + rest + content,
            head + b"x-nul: a\x00b\r\n" + rest + content,
            head + b"x-cr: a\rx-client: alice\r\n" + rest + content,
            head + b"x-client : alice\r\n" + rest + content,
            head + b": nameless\r\n" + rest + content,
            head + b"no colon here\r\n" + rest + content,
            head + b"x\x01y: z\r\n" + rest + content,
            head + b"x\xffy: z\r\n" + rest + content,
            b"\r\n" * random.choice((1, 1000)) + good,
            b"POST  " + infer_path(target).encode() + b"  HTTP/1.1\r\n" + rest + content,
            b"POST\t" + infer_path(target).encode() + b"\tHTTP/1.1\r\n" + rest + content,
            b"POST " + infer_path(target).encode() + b" HTTP/1.1 HTTP/1.1\r\n" + rest + content,
        )
    )
    return hostile("framing", "lines", program, ends=False)


def odd_first_lines(random: Random, target: Target) -> Hostile:
    """Other versions, methods, hosts and forms of the URI."""
    content = body(target, random)
    path = infer_path(target)
    program = random.choice(
        (
            request(target, content, version="HTTP/1.0"),
            request(target, content, version="HTTP/1.0", hosted=False),
            request(target, content, version="HTTP/0.9"),
            request(target, content, version="HTTP/2.0"),
            request(target, content, version="HTTP/9.9"),
            request(target, content, version="http/1.1"),
            request(target, content, hosted=False),
            request(target, content, headers=[("Host", "other")]),
            request(target, content, headers=[("Host", "")], hosted=False),
            request(target, content, path=f"http://edge{path}"),
            request(target, content, path=f"http://user:word@other:1{path}"),
            request(target, content, path=f"ftp://edge{path}"),
            request(target, content, path="*"),
            request(target, content, path="edge:80", method="CONNECT"),
            b"GET " + path.encode() + b"\r\n\r\n",
        )
    )
    return hostile("framing", "first-line", program, ends=False)


def odd_methods(random: Random, target: Target) -> Hostile:
    """Methods other than POST."""
    methods = ("GET", "PUT", "DELETE", "PATCH", "TRACE", "OPTIONS", "HEAD", "PURGE", "post", "PRI", "M" * 5000, "P<>")
    method = random.choice(methods)
    content = body(target, random) if random.random() < 0.7 else b""
    return hostile("framing", "method", request(target, content, method=method), ends=method != "HEAD")


def expectations(random: Random, target: Target) -> Hostile:
    """A body that is announced, and comes before, after or never."""
    content = body(target, random)
    value = random.choice(("100-continue", "100-Continue", "200-ok", ""))
    head = request(target, b"", headers=[("Expect", value), ("Content-Length", str(len(content)))], sized=False)
    program: tuple[bytes | float, ...] = random.choice(
        ((head + content,), (head, 0.5, content), (head, 1.0), (head, 0.3, content[:-5], 0.3))
    )
    return hostile("framing", "expect", *program, ends=False)


def upgrades(random: Random, target: Target) -> Hostile:
    """A change of the protocol in the middle of a connection."""
    kind = random.choice(("h2c", "websocket", "TLS/1.0", "connect-udp"))
    headers = [
        ("Connection", "Upgrade, HTTP2-Settings"),
        ("Upgrade", kind),
        ("HTTP2-Settings", "AAMAAABkAAQAoAAAAAIAAAAA"),
    ]
    return hostile("framing", "upgrade", request(target, body(target, random), headers=headers), ends=False)


def pipelines(random: Random, target: Target) -> Hostile:
    """Requests one behind the other, some without a key or to what no caller may reach."""
    found = []
    for _ in range(random.randint(2, 12)):
        kind = random.randrange(4)
        if kind == 0:
            found.append(request(target, body(target, random), keyed=False))
        elif kind == 1:
            found.append(_smuggled(target, random))
        else:
            found.append(request(target, body(target, random)))
    return hostile("framing", "pipeline", b"".join(found), ends=False)


def trailers(random: Random, target: Target) -> Hostile:
    """Headers after the body: a key, a client, a version."""
    content = body(target, random)
    name = random.choice(("x-api-key", "x-client", "content-length", "x-edge-model", "x-user-id"))
    keyed = random.random() < 0.5
    chunked = b"%x\r\n%s\r\n0\r\n%s: %s\r\n\r\n" % (len(content), content, name.encode(), target.key.encode())
    headers = [("Transfer-Encoding", "chunked"), ("Trailer", name)]
    program = request(target, chunked, headers=headers, sized=False, keyed=keyed)
    return hostile("framing", "trailers", program, most="served" if keyed else "refused")


def noise(random: Random, target: Target) -> Hostile:
    """Bytes of no protocol, or of another one."""
    program = random.choice(
        (
            random.randbytes(random.randint(1, 4000)),
            b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + random.randbytes(500),
            b"\x00" * 3000,
            b"EHLO edge\r\n",
            b"A" * 100_000,
            b"PRI * HTTP/2.0\r\n\r\n",
            b"GET / HTTP/1.1\r\n" + b"a: b\r\n" * 3000,
        )
    )
    return hostile("framing", "noise", program, ends=False, most="refused")


def slow_heads(random: Random, target: Target) -> Hostile:
    """A head that comes byte by byte."""
    head = request(target, b"", sized=False)
    cut = random.randrange(5, len(head) - 4)
    steps: list[bytes | float] = [head[:cut]]
    for byte in head[cut : cut + random.randint(4, 12)]:
        steps += [0.25, bytes((byte,))]
    return hostile("slow", "head", *steps, ends=False, after=random.choice(("close", "reset")))


def slow_bodies(random: Random, target: Target) -> Hostile:
    """A body that comes byte by byte, or whose end never comes."""
    content = body(target, random)
    size = random.choice((len(content), 1 << 20, 16 << 20))
    head = request(target, b"", headers=[("Content-Length", str(size))], sized=False)
    steps: list[bytes | float] = [head]
    for at in range(0, random.randint(3, 10) * 8, 8):
        steps += [content[at : at + 8], 0.3]
    return hostile("slow", "body", *steps, ends=False, after=random.choice(("close", "reset")))


def aborts(random: Random, target: Target) -> Hostile:
    """A connection that goes away at some byte, or as soon as all was sent."""
    whole = request(target, body(target, random))
    cut = random.choice((len(whole), random.randrange(1, len(whole))))
    return hostile("slow", "abort", whole[:cut], ends=False, after=random.choice(("close", "reset")))


def idle(random: Random, target: Target) -> Hostile:
    """A connection that says nothing, or nothing more."""
    steps: tuple[bytes | float, ...] = random.choice(((2.0,), (request(target, body(target, random)), 2.0)))
    return hostile("slow", "idle", *steps, ends=False, after="close")


FAMILIES: dict[str, Sequence[Maker]] = {
    "framing": (
        lengths_disagree,
        coding_spelled_oddly,
        lengths_repeated,
        bad_chunks,
        odd_lines,
        odd_first_lines,
        odd_methods,
        expectations,
        upgrades,
        pipelines,
        trailers,
        noise,
    ),
    "slow": (slow_heads, slow_bodies, aborts, idle),
}
