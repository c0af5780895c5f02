"""Headers and paths of the grammar: long, spoofed, crooked, and to what no caller may reach. Pure."""

import gzip
import zlib
from collections.abc import Sequence
from functools import lru_cache
from random import Random

from scripts.benchmarks.hostile import Hostile, Maker, Target, body, infer_path, request
from scripts.benchmarks.hostile_http import hostile

_LONG = (8_000, 9_000, 16_000, 20_000, 60_000, 100_000)  # bytes of headers, around the limits of Triton and of Envoy


@lru_cache(64)
def _gzipped(content: bytes) -> bytes:
    return gzip.compress(content, mtime=0)


@lru_cache(64)
def _deflated(content: bytes) -> bytes:
    return zlib.compress(content)


def long_headers(random: Random, target: Target) -> Hostile:
    """One header, or a name, of a size between the limits of the parts."""
    size = random.choice(_LONG) + random.randint(-300, 300)
    name, value = random.choice((("x-pad", "a" * size), ("a" * size, "b"), ("cookie", "c=" + "d" * size)))
    return hostile("headers", "long", request(target, body(target, random), headers=[(name, value)]), ends=False)


def many_headers(random: Random, target: Target) -> Hostile:
    """Headers by the hundred, small or together as large as the limits."""
    count = random.choice((90, 100, 101, 200, 500, 1000, 3000))
    value = "v" * random.choice((1, 20, 80))
    headers = [(f"x-{number}" if random.random() < 0.9 else "x-same", value) for number in range(count)]
    return hostile("headers", "many", request(target, body(target, random), headers=headers), ends=False)


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
    return hostile("headers", "spoofed", request(target, body(target, random), headers=chosen), ends=False)


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
    return hostile("headers", "key", request(target, content, path=at, headers=headers, keyed=False), most="refused")


def two_keys(random: Random, target: Target) -> Hostile:
    """The attacker's key beside another one, in either order."""
    keys = [("x-api-key", target.key), ("x-api-key", random.choice(("wrong", "", target.honest)))]
    random.shuffle(keys)
    return hostile("headers", "two-keys", request(target, body(target, random), headers=keys, keyed=False))


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
    return hostile("headers", "value", request(target, body(target, random), headers=[(name, value)]), ends=False)


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
    return hostile("headers", "json-length", request(target, content, headers=headers))


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
    return hostile("headers", "encoding", request(target, sent, headers=[("Content-Encoding", name)]))


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
    return hostile("paths", "version", request(target, body(target, random), path=path), ends=False)


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
    return hostile("paths", "crooked", request(target, body(target, random), path=path), ends=False)


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
    return hostile("paths", "closed", request(target, content, path=path, method=method), most="refused")


FAMILIES: dict[str, Sequence[Maker]] = {
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
}
