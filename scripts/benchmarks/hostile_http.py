"""The HTTP/1 part of the grammar: framing, headers, paths and slow or broken connections. Pure."""

import gzip
import zlib
from collections.abc import Sequence
from functools import lru_cache
from random import Random
from typing import Any

from scripts.benchmarks.hostile import Hostile, Maker, Target, body, infer_path, request

_LONG = (8_000, 9_000, 16_000, 20_000, 60_000, 100_000)  # bytes of headers, around the limits of Triton and of Envoy


def _hostile(family: str, kind: str, *program: bytes | float, **more: Any) -> Hostile:
    return Hostile(family=family, kind=kind, program=program, **more)


@lru_cache(64)
def _gzipped(content: bytes) -> bytes:
    return gzip.compress(content, mtime=0)


@lru_cache(64)
def _deflated(content: bytes) -> bytes:
    return zlib.compress(content)


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
    return _hostile("framing", "cl-te", request(target, inner, headers=pair, sized=False), ends=False)


def coding_spelled_oddly(random: Random, target: Target) -> Hostile:
    """A Transfer-Encoding that one parser sees and another does not."""
    name = random.choice(
        (b"Transfer-Encoding ", b" Transfer-Encoding", b"Transfer_Encoding", b"X: y\nTransfer-Encoding")
    )
    content = body(target, random)
    chunked = b"%x\r\n%s\r\n0\r\n\r\n" % (len(content), content)
    return _hostile("framing", "te-odd", request(target, chunked, headers=[(name, b"chunked")]), ends=False)


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
    return _hostile("framing", "length", request(target, content, headers=headers, sized=False), ends=False)


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
    return _hostile("framing", "chunks", request(target, chunks, headers=coding, sized=False), ends=False)


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
    return _hostile("framing", "lines", program, ends=False)


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
    return _hostile("framing", "first-line", program, ends=False)


def odd_methods(random: Random, target: Target) -> Hostile:
    """Methods other than POST."""
    methods = ("GET", "PUT", "DELETE", "PATCH", "TRACE", "OPTIONS", "HEAD", "PURGE", "post", "PRI", "M" * 5000, "P<>")
    method = random.choice(methods)
    content = body(target, random) if random.random() < 0.7 else b""
    return _hostile("framing", "method", request(target, content, method=method), ends=method != "HEAD")


def expectations(random: Random, target: Target) -> Hostile:
    """A body that is announced, and comes before, after or never."""
    content = body(target, random)
    value = random.choice(("100-continue", "100-Continue", "200-ok", ""))
    head = request(target, b"", headers=[("Expect", value), ("Content-Length", str(len(content)))], sized=False)
    program: tuple[bytes | float, ...] = random.choice(
        ((head + content,), (head, 0.5, content), (head, 1.0), (head, 0.3, content[:-5], 0.3))
    )
    return _hostile("framing", "expect", *program, ends=False)


def upgrades(random: Random, target: Target) -> Hostile:
    """A change of the protocol in the middle of a connection."""
    kind = random.choice(("h2c", "websocket", "TLS/1.0", "connect-udp"))
    headers = [
        ("Connection", "Upgrade, HTTP2-Settings"),
        ("Upgrade", kind),
        ("HTTP2-Settings", "AAMAAABkAAQAoAAAAAIAAAAA"),
    ]
    return _hostile("framing", "upgrade", request(target, body(target, random), headers=headers), ends=False)


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
    return _hostile("framing", "pipeline", b"".join(found), ends=False)


def trailers(random: Random, target: Target) -> Hostile:
    """Headers after the body: a key, a client, a version."""
    content = body(target, random)
    name = random.choice(("x-api-key", "x-client", "content-length", "x-edge-model", "x-user-id"))
    keyed = random.random() < 0.5
    chunked = b"%x\r\n%s\r\n0\r\n%s: %s\r\n\r\n" % (len(content), content, name.encode(), target.key.encode())
    headers = [("Transfer-Encoding", "chunked"), ("Trailer", name)]
    program = request(target, chunked, headers=headers, sized=False, keyed=keyed)
    return _hostile("framing", "trailers", program, most="served" if keyed else "refused")


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
    return _hostile("framing", "noise", program, ends=False, most="refused")


def long_headers(random: Random, target: Target) -> Hostile:
    """One header, or a name, of a size between the limits of the parts."""
    size = random.choice(_LONG) + random.randint(-300, 300)
    name, value = random.choice((("x-pad", "a" * size), ("a" * size, "b"), ("cookie", "c=" + "d" * size)))
    return _hostile("headers", "long", request(target, body(target, random), headers=[(name, value)]), ends=False)


def many_headers(random: Random, target: Target) -> Hostile:
    """Headers by the hundred, small or together as large as the limits."""
    count = random.choice((90, 100, 101, 200, 500, 1000, 3000))
    value = "v" * random.choice((1, 20, 80))
    headers = [(f"x-{number}" if random.random() < 0.9 else "x-same", value) for number in range(count)]
    return _hostile("headers", "many", request(target, body(target, random), headers=headers), ends=False)


def spoofed_headers(random: Random, target: Target) -> Hostile:
    """Headers that belong to the edge, to Envoy or to Triton, and spellings of them."""
    pairs = (
        ("x-client", target.honest),
        ("X-Client", target.honest),
        ("x_client", target.honest),
        ("x-edge-model", target.other),
        ("X-EDGE-MODEL", target.other),
        ("x-edge-shadow", f"{target.model}_v{target.hidden}"),
        ("x-edge-shadow", f"{target.model}_v2_shadow"),
        ("x-edge-anything", "1"),
        ("x-request-id", "0000" + "f" * 28),
        ("x-request-id", "0" * 5000),
        ("x-envoy-upstream-rq-timeout-ms", "1"),
        ("x-envoy-upstream-rq-per-try-timeout-ms", "1"),
        ("x-envoy-max-retries", "100"),
        ("x-envoy-retry-on", "5xx,retriable-4xx"),
        ("x-envoy-retry-grpc-on", "internal"),
        ("x-envoy-original-path", f"/v2/models/{target.other}/infer"),
        ("x-envoy-original-host", "other"),
        ("x-envoy-force-trace", "1"),
        ("x-envoy-upstream-alt-stat-name", "a" * 2000),
        ("x-envoy-decorator-operation", "x"),
        ("x-envoy-hedge-on-per-try-timeout", "true"),
        ("x-envoy-expected-rq-timeout-ms", "1"),
        ("x-envoy-internal", "true"),
        ("x-envoy-peer-metadata", "AAAA"),
        ("x-forwarded-for", "127.0.0.1"),
        ("x-forwarded-proto", "https"),
        ("x-original-url", f"/v2/models/{target.other}/infer"),
        ("x-rewrite-url", "/v2/repository/index"),
        ("x-http-method-override", "DELETE"),
        ("x-model-version", str(target.hidden)),
        ("x-model", target.other),
        ("triton_grpc_error", "true"),
        ("endpoint-load-metrics-format", "text"),
        ("seatrial-key", "0"),
        ("Connection", "x-api-key, x-client, x-user-id, close"),
        ("Connection", "keep-alive, transfer-encoding, content-length"),
        ("Keep-Alive", "timeout=99999"),
        ("Content-Length ", "3"),
    )
    chosen = random.sample(pairs, random.randint(1, 4))
    return _hostile("headers", "spoofed", request(target, body(target, random), headers=chosen), ends=False)


def bad_keys(random: Random, target: Target) -> Hostile:
    """No key, a wrong one, or one where no key belongs."""
    path = infer_path(target)
    headers: list[tuple[str | bytes, str | bytes]] = list(
        random.choice(
            (
                (),
                (("x-api-key", ""),),
                (("x-api-key", "wrong"),),
                (("x-api-key", target.key[:-1]),),
                (("x-api-key", target.key + "x"),),
                (("x-api-key", target.key.upper()),),
                (("x-api-key", target.honest),),
                (("x-api-key", b"\xff\xfe"),),
                (("x-api-key", "k" * 7000),),
                (("x_api_key", target.key),),
                (("authorization", f"Bearer {target.key}"),),
                (("cookie", f"x-api-key={target.key}"),),
                (("x-client", target.honest),),
                (("x-forwarded-x-api-key", target.key),),
            )
        )
    )
    at = random.choice((path, f"{path}?x-api-key={target.key}", "/v2/health/live", f"/v2/models/{target.model}"))
    content = body(target, random)
    return _hostile("headers", "key", request(target, content, path=at, headers=headers, keyed=False), most="refused")


def two_keys(random: Random, target: Target) -> Hostile:
    """The attacker's key beside another one, in either order."""
    keys = [("x-api-key", target.key), ("x-api-key", random.choice(("wrong", "", target.honest)))]
    random.shuffle(keys)
    return _hostile("headers", "two-keys", request(target, body(target, random), headers=keys, keyed=False))


def odd_values(random: Random, target: Target) -> Hostile:
    """Bytes in values, sticky ids and content types that are unusual."""
    name, value = random.choice(
        (
            ("x-user-id", "u" * 7000),
            ("x-user-id", b"\xff\x80\xfe"),
            ("x-user-id", ""),
            ("x-odd", b"\x7f"),
            ("x-odd", b"\x1b[31m"),
            ("x-odd", "é" * 100),
            ("content-type", "application/octet-stream"),
            ("content-type", "multipart/form-data; boundary=x"),
            ("content-type", "application/grpc"),
            ("content-type", "application/json; charset=utf-7"),
            ("content-type", "text/html" * 300),
            ("accept", "text/event-stream"),
            ("accept-encoding", "gzip;q=9, br, *"),
            ("range", "bytes=0-1"),
            ("if-match", "*"),
        )
    )
    return _hostile("headers", "value", request(target, body(target, random), headers=[(name, value)]), ends=False)


def header_lengths(random: Random, target: Target) -> Hostile:
    """Inference-Header-Content-Length that is no length of a part of this body."""
    content = body(target, random)
    values = (
        "-1",
        "0",
        "1",
        str(len(content) + 1),
        str(2**31),
        str(2**63),
        str(2**64 + 1),
        "abc",
        "",
        "1e9",
        " 5",
        "0x10",
    )
    headers = [("Inference-Header-Content-Length", random.choice(values))]
    headers += [("Inference-Header-Content-Length", "7")] if random.random() < 0.2 else []
    return _hostile("headers", "json-length", request(target, content, headers=headers))


def encodings(random: Random, target: Target) -> Hostile:
    """Compressed bodies: bombs, lies, cut short, nested."""
    content = body(target, random)
    bomb = b'{"inputs":' + b" " * random.choice((1 << 20, 10 << 20))
    name, sent = random.choice(
        (
            ("gzip", content),
            ("deflate", content),
            ("gzip", _gzipped(content)),
            ("deflate", _deflated(content)),
            ("gzip", _gzipped(content)[:-9]),
            ("gzip", _gzipped(bomb)),
            ("deflate", _deflated(bomb)),
            ("gzip", _gzipped(_gzipped(bomb))),
            ("gzip, gzip", _gzipped(_gzipped(content))),
            ("br", random.randbytes(200)),
            ("zstd", b"\x28\xb5\x2f\xfd" + random.randbytes(100)),
            ("identity", content),
            ("x" * 3000, content),
            ("gzip", _gzipped(content) + random.randbytes(100)),
            ("gzip", _gzipped(b"[" * 60_000)),
            ("deflate", _deflated(b'{"inputs":' * 40_000)),
        )
    )
    return _hostile("headers", "encoding", request(target, sent, headers=[("Content-Encoding", name)]))


def versions_in_paths(random: Random, target: Target) -> Hostile:
    """A version in the path, in many spellings: the routes decide which version serves, not the caller."""
    version = random.choice(
        (
            str(target.hidden),
            "2",
            "02",
            f"0{target.hidden}",
            "0",
            "-1",
            "+3",
            "1.0",
            "3 ",
            "９",
            "３",
            "%33",
            "%EF%BC%93",
            "2147483648",
            str(10**20),
            "latest",
            f"1/versions/{target.hidden}",
            f"1/../{target.hidden}",
            f"1%2f..%2f{target.hidden}",
            f"{target.hidden}/../../versions/{target.hidden}",
            "",
        )
    )
    suffix = random.choice(("/infer", "/infer?versions=3", "/infer/", "//infer", "/infer#x", "/infer;v=3", "/%69nfer"))
    path = f"/v2/models/{target.model}/versions/{version}{suffix}"
    return _hostile("paths", "version", request(target, body(target, random), path=path), ends=False)


def crooked_paths(random: Random, target: Target) -> Hostile:
    """Paths that reach another model where a part of them is read in another way."""
    model, other = target.model, target.other
    path = random.choice(
        (
            f"/v2/models/{model}/../{other}/infer",
            f"/v2/models/{model}/%2e%2e/{other}/infer",
            f"/v2/models/{model}/%2E%2E%2F{other}/infer",
            f"/v2/models/{model}%2f..%2f{other}/infer",
            f"/v2/models/{model}/..;/{other}/infer",
            f"/v2/models/{model}\\..\\{other}/infer",
            f"//v2//models//{other}//infer",
            f"/v2/models/{model}/infer/../../{other}/infer",
            f"/v2/models/{model}/./infer/../../../models/{other}/infer",
            f"/./v2/./models/{other}/infer",
            f"/v2/models/{model}%00/infer",
            f"/v2/models/{model}?/../{other}/infer",
            f"/v2/models/{model}%3f/../{other}/infer",
            f"/v2/models/{model.upper()}/infer",
            f"/V2/MODELS/{other}/INFER",
            f"/v2/models/{model}x/infer",
            f"/v2/models/x{model}/infer",
            "/v2/models//infer",
            f"/v2/models/{model}/versions/1/../../../{other}/infer",
            f"/v2/models/{model}/%252e%252e/{other}/infer",
            f"/v2/models/{'a' * random.choice((1000, 7000, 20_000))}/infer",
            f"/{'../' * 50}v2/models/{other}/infer",
            f"/v2/models/{model}/infer?{'q=1&' * random.choice((10, 2000))}",
        )
    )
    return _hostile("paths", "crooked", request(target, body(target, random), path=path), ends=False)


def closed_interfaces(random: Random, target: Target) -> Hostile:
    """Interfaces of Triton that change or reveal the server, and models that the edge does not offer."""
    model = target.model
    path = random.choice(
        (
            f"/v2/models/{target.other}/infer",
            f"/v2/models/{target.other}/versions/1/infer",
            f"/v2/models/{target.other}",
            f"/v2/models/{target.other}/ready",
            f"/v2/models/{model}/generate",
            f"/v2/models/{model}/generate_stream",
            f"/v2/models/{model}/config",
            f"/v2/models/{model}/versions/{target.hidden}/config",
            f"/v2/models/{model}/stats",
            "/v2/models/stats",
            "/v2/repository/index",
            f"/v2/repository/models/{model}/load",
            f"/v2/repository/models/{model}/unload",
            "/v2/systemsharedmemory/status",
            "/v2/systemsharedmemory/region/x/register",
            "/v2/systemsharedmemory/unregister",
            "/v2/cudasharedmemory/status",
            "/v2/trace/setting",
            f"/v2/models/{model}/trace/setting",
            "/v2/logging",
            "/metrics",
            "/server_info",
            "/config_dump",
            "/quitquitquit",
            "/stats",
            "/v1/models",
        )
    )
    content = random.choice((b"", b"{}", body(target, random)))
    method = random.choice(("POST", "POST", "GET"))
    return _hostile("paths", "closed", request(target, content, path=path, method=method), most="refused")


def slow_heads(random: Random, target: Target) -> Hostile:
    """A head that comes byte by byte."""
    head = request(target, b"", sized=False)
    cut = random.randrange(5, len(head) - 4)
    steps: list[bytes | float] = [head[:cut]]
    for byte in head[cut : cut + random.randint(4, 12)]:
        steps += [0.25, bytes((byte,))]
    return _hostile("slow", "head", *steps, ends=False, after=random.choice(("close", "reset")))


def slow_bodies(random: Random, target: Target) -> Hostile:
    """A body that comes byte by byte, or whose end never comes."""
    content = body(target, random)
    size = random.choice((len(content), 1 << 20, 16 << 20))
    head = request(target, b"", headers=[("Content-Length", str(size))], sized=False)
    steps: list[bytes | float] = [head]
    for at in range(0, random.randint(3, 10) * 8, 8):
        steps += [content[at : at + 8], 0.3]
    return _hostile("slow", "body", *steps, ends=False, after=random.choice(("close", "reset")))


def aborts(random: Random, target: Target) -> Hostile:
    """A connection that goes away at some byte, or as soon as all was sent."""
    whole = request(target, body(target, random))
    cut = random.choice((len(whole), random.randrange(1, len(whole))))
    return _hostile("slow", "abort", whole[:cut], ends=False, after=random.choice(("close", "reset")))


def idle(random: Random, target: Target) -> Hostile:
    """A connection that says nothing, or nothing more."""
    steps: tuple[bytes | float, ...] = random.choice(((2.0,), (request(target, body(target, random)), 2.0)))
    return _hostile("slow", "idle", *steps, ends=False, after="close")


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
    "headers": (
        long_headers,
        many_headers,
        spoofed_headers,
        bad_keys,
        two_keys,
        odd_values,
        header_lengths,
        encodings,
    ),
    "paths": (versions_in_paths, crooked_paths, closed_interfaces),
    "slow": (slow_heads, slow_bodies, aborts, idle),
}
