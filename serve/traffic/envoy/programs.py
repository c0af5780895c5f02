"""The Lua programs inside Envoy: admission, inspection, and the pin to a version. Text only; they stand in ``lua/``.

Envoy's own features cannot bound a client's unfinished bodies, read JSON or a gRPC message before it is routed, or
change a gRPC body. The model's name and version are fields 1 and 2 of every message that has them, and the last
occurrence of a field wins, so appending them overrides what the caller asked for, once the message is known to end
exactly where its frame does.
"""

import re
from collections.abc import Mapping, Sequence
from functools import cache
from pathlib import Path

from ..edge import Limits, Recording, Sticky
from ..headers import CLIENT

SERVICE = "/inference.GRPCInferenceService/"
INFER = SERVICE + "ModelInfer"
ASKED = ("ModelReady", "ModelMetadata")  # these carry name and version in the same two fields
REFUSED = "x-refused"  # response header that names the reason of a refusal, for the log
SLOTS = 1_000_000  # a request's user has a place below this number
DEPTH = 64  # levels of JSON; Triton 2.51 overflows its stack at some ten thousand

_NEEDED = (
    *("content-type", "content-length", "transfer-encoding", "inference-header-content-length", "accept-encoding"),
    *("te", "grpc-timeout", "grpc-accept-encoding", "traceparent", "x-request-id", CLIENT),
)
_HERE = Path(__file__).with_name("lua")


def admission(limits: Limits) -> str:
    """Return the filter that bounds what one client may have unfinished."""
    return _filled(
        "admit",
        {
            "REQUESTS": str(limits.client_requests),
            "BYTES": str(limits.unfinished_bytes),
            "LARGEST": str(limits.body_bytes),
            "UNKNOWN": str(min(limits.body_bytes, 1 << 20)),
            "SECONDS": str(limits.receive_seconds + 1),
        },
    )


def inspection(sticky: Sticky, limits: Limits, key: bytes) -> str:
    """Return the filter that refuses malformed requests, and notes model, digest, size and place for routes and log.

    `key` are 8 bytes that only this edge knows.
    """
    methods = ", ".join(f'["{SERVICE}{name}"] = true' for name in ("ModelInfer", *ASKED))
    parts = (
        _digest(key),
        _filled("json", {"DEPTH": str(DEPTH), "JSON": str(limits.json_bytes)}),
        _filled("protobuf", {}),
        balance(),
        _filled(
            "inspect",
            {"SERVICE": SERVICE, "METHODS": methods, "HEADER": sticky.header, "COOKIE": sticky.cookie},
        ),
    )
    return "\n".join(parts)


def balance() -> str:
    """Return what keeps the load on a version on trial at its share; a part of `inspection`."""
    return _filled("balance", {})


def recording(record: Recording, key: bytes, *, facts: str, bodies: str, workers: int) -> str:
    """Return the filter that keeps sampled requests and their answers for the recorder.

    `facts` and `bodies` name the dynamic metadata; each of the edge's `workers` spends its part of the budget.
    """
    values = {
        "FACTS": facts,
        "BODIES": bodies,
        "INFER": INFER,
        "MOST": str(record.most_bytes),
        "BUDGET": str(record.bytes_per_minute // workers),
        "BELOW": str(round(record.share * 2**32)),
    }
    return _digest(key) + _filled("record", values)


def pin(model: str, version: int, forwarded: Sequence[str] = ()) -> str:
    """Return the upstream filter that makes every request one of that version, over HTTP and gRPC.

    `forwarded` are headers that its server gets beside those that every server needs.
    """
    fields = b"".join(
        bytes((tag, len(value))) + value for tag, value in ((10, model.encode()), (18, str(version).encode()))
    )
    escaped = "".join(f"\\{byte:03d}" for byte in fields)  # Lua's decimal escapes: no byte can end the literal
    values = {"MODEL": model, "VERSION": str(version), "FIELDS": escaped, "SERVICE": SERVICE}
    head = 'local ffi = require("ffi")\n'
    return head + _filled("protobuf", {}) + _cleaning(forwarded) + _filled("pin", values)


def cleaning(forwarded: Sequence[str] = ()) -> str:
    """Return the upstream filter of requests about the server itself."""
    return _cleaning(forwarded) + "function envoy_on_request(h) clean(h) end\n"


def _cleaning(forwarded: Sequence[str]) -> str:
    kept = ", ".join(f'["{name}"] = 1' for name in (*_NEEDED, *forwarded))
    return _filled("clean", {"KEPT": kept, "PREFIX": str(len(SERVICE)), "SERVICE": SERVICE})


def _digest(key: bytes) -> str:
    return _filled("digest", {"KEY0": str(_word(key[:4])), "KEY1": str(_word(key[4:8]))})


def _word(part: bytes) -> int:
    return int.from_bytes(part, "little", signed=True)


def _filled(name: str, values: Mapping[str, str]) -> str:
    return re.sub(r"@([A-Z0-9]+)@", lambda found: values[found.group(1)], _text(name))


@cache
def _text(name: str) -> str:
    """Return a program without its comments, which every cluster of a configuration would carry."""
    lines = (_HERE / f"{name}.lua").read_text().splitlines()
    return "".join(f"{line}\n" for line in lines if line.strip() and not line.lstrip().startswith("--"))
