"""The calls of the gRPC part of the grammar: methods, paths, metadata, and how a message is sent. Pure."""

import gzip
from collections.abc import Sequence
from functools import lru_cache
from random import Random

from scripts.benchmarks.hostile import Hostile, Maker, Target
from scripts.benchmarks.hostile_grpc import (
    MAKERS,
    SERVICE,
    Metadata,
    call,
    field,
    framed,
    message,
    metadata,
    varint,
)
from seatrial.bench.load import http2

CLOSED = (
    "ModelConfig",
    "ModelStatistics",
    "RepositoryIndex",
    "RepositoryModelLoad",
    "RepositoryModelUnload",
    "SystemSharedMemoryStatus",
    "SystemSharedMemoryRegister",
    "SystemSharedMemoryUnregister",
    "CudaSharedMemoryStatus",
    "CudaSharedMemoryRegister",
    "CudaSharedMemoryUnregister",
    "TraceSetting",
    "LogSettings",
    "ModelStreamInfer",
    "NoSuchMethod",
)


@lru_cache(64)
def _gzipped(content: bytes) -> bytes:
    return gzip.compress(content, mtime=0)


def odd_encodings(random: Random, target: Target) -> Hostile:
    """Compression that is announced, done, or neither."""
    content = message(target, version=str(target.hidden))
    encoding = random.choice(("gzip", "deflate", "identity", "snappy", "", "gzip,gzip"))
    bomb = field(1, target.model.encode()) + b"\x00" * (10 << 20)
    body = random.choice(
        (framed(_gzipped(content), flag=1), framed(content), framed(_gzipped(bomb), flag=1), framed(content, flag=1))
    )
    name = random.choice(("grpc-encoding", "content-encoding", "grpc-accept-encoding"))
    return call(target, "encoding", body, more=[(name, encoding)])


def closed_methods(random: Random, target: Target) -> Hostile:
    """Methods that change or reveal the server."""
    method = random.choice(CLOSED)
    content = random.choice((b"", message(target), field(1, target.model.encode()), random.randbytes(30)))
    return call(target, "method", framed(content), method=method, most="refused")


def about_other_models(random: Random, target: Target) -> Hostile:
    """Readiness and metadata of a model or version that is not offered."""
    method = random.choice(("ModelReady", "ModelMetadata"))
    other, model, hidden = target.other.encode(), target.model.encode(), str(target.hidden).encode()
    opened = varint(200 << 3 | 2) + varint(len(field(1, model) + field(2, b"1")))
    content = random.choice(
        (
            field(1, other),
            field(1, model) + field(2, hidden) + opened,
            field(1, model) + field(1, other) + field(2, b"1") + opened,
            field(1, model) + field(1, other) + field(2, b"1"),
            b"",
            field(1, model) + b"\x1a\x7f",
        )
    )
    return call(target, "about", framed(content), method=method)


def crooked_paths(random: Random, target: Target) -> Hostile:
    """Paths that are read as one method by the edge and as another by the server."""
    path = random.choice(
        (
            SERVICE.lower() + "ModelInfer",
            "/" + SERVICE + "ModelInfer",
            SERVICE + "ModelInfer?x=1",
            SERVICE + "ModelInfer/",
            SERVICE + "ModelInfer/../RepositoryIndex",
            SERVICE + "RepositoryIndex?/ModelInfer",
            SERVICE + "Model%49nfer",
            SERVICE + "ModelInfer;x",
            SERVICE + "ModelInfer#x",
            SERVICE[1:] + "ModelInfer",
            SERVICE + "./ModelInfer",
            "/x/.." + SERVICE + "ModelStreamInfer",
            SERVICE + "%2e%2e/ModelInfer",
            "/grpc.reflection.v1.ServerReflection/ServerReflectionInfo",
            "/grpc.health.v1.Health/Check",
            SERVICE + "M" * 9000,
        )
    )
    return call(target, "path", framed(message(target, version=str(target.hidden))), path=path)


def odd_metadata(random: Random, target: Target) -> Hostile:
    """Metadata that steers Triton, gRPC or the edge."""
    more: Metadata = random.choice(
        (
            [("triton_grpc_error", "true")],
            [("triton_grpc_error", "true"), ("triton_grpc_error", "true")],
            [("grpc-timeout", "0n")],
            [("grpc-timeout", "1u")],
            [("grpc-timeout", "-1S")],
            [("grpc-timeout", "99999999H")],
            [("grpc-timeout", "999999999999H")],
            [("grpc-timeout", "abc")],
            [("grpc-timeout", "1S"), ("grpc-timeout", "1n")],
            [("grpc-status", "0")],
            [("grpc-message", "%00")],
            [("x-edge-model", target.other)],
            [("x-client", target.honest)],
            [("x-envoy-upstream-rq-timeout-ms", "1")],
            [("x-envoy-max-retries", "50"), ("x-envoy-retry-grpc-on", "internal,unavailable")],
            [("grpc-previous-rpc-attempts", "1000")],
            [("x-pad-bin", "!!not base64!!")],
            [("x-pad-bin", b"\xff\x00")],
            [("x-pad", "a" * random.choice((7000, 9000, 20_000, 60_000, 100_000)))],
            [(f"x-{number}", "v") for number in range(random.choice((90, 200, 1000)))],
            [("user-agent", "a" * 5000)],
            [("inference-header-content-length", "5")],
            [("content-length", "3")],
        )
    )
    return call(target, "metadata", framed(message(target)), more=more)


def odd_protocol(random: Random, target: Target) -> Hostile:
    """Content types of relatives of gRPC, and calls without what gRPC demands."""
    kind = random.choice(
        (
            "application/grpc+json",
            "application/grpc+proto",
            "application/grpc-web",
            "application/grpc-web+proto",
            "application/grpc-web-text",
            "application/grpc;charset=utf-8",
            "application/json",
            "application/x-protobuf",
            "APPLICATION/GRPC",
            "",
        )
    )
    without = random.choice((("content-type",), ("content-type", "te"), ("content-type", ":authority")))
    more: Metadata = [("content-type", kind)] if random.random() < 0.85 else []
    return call(target, "protocol", framed(message(target)), without=without, more=more, ends=False)


def streams(random: Random, target: Target) -> Hostile:
    """The streaming method with errors inside, which is a use after free in servers before 2.68."""
    bad = field(1, target.model.encode()) + field(
        5, field(1, b"x") + field(2, b"FP32") + field(3, varint(1) + varint(9))
    )
    content = framed(bad) * random.randint(1, 5) + framed(message(target)) * random.randint(0, 2)
    return call(
        target, "stream", content, method="ModelStreamInfer", more=[("triton_grpc_error", "true")], most="refused"
    )


def unkeyed(random: Random, target: Target) -> Hostile:
    """A call without the key, or with a wrong one."""
    more: Metadata = random.choice(([], [("x-api-key", "wrong")], [("x-api-key", "")], [("x-client", target.honest)]))
    return call(target, "key", framed(message(target)), more=more, keyed=False, most="refused")


def dribbled(random: Random, target: Target) -> Hostile:
    """A message in frames of one byte, or with its end left open."""
    content = framed(message(target, version=str(target.hidden)))
    head = http2.opening() + http2.headers(metadata(target))
    parts = b"".join(http2.data(bytes((each,)), end=False) for each in content)
    if random.random() < 0.5:
        return Hostile(
            family="grpc", kind="dribble", protocol="h2", program=(head, 0.02, parts + http2.data(b"", end=True))
        )
    return Hostile(
        family="grpc", kind="open", protocol="h2", program=(head, 0.02, parts, 1.0), ends=False, after="close"
    )


FAMILIES: dict[str, Sequence[Maker]] = {
    "grpc": (
        *MAKERS,
        odd_encodings,
        closed_methods,
        about_other_models,
        crooked_paths,
        odd_metadata,
        odd_protocol,
        streams,
        unkeyed,
        dribbled,
    ),
}
