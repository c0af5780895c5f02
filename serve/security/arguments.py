"""The server's command line, of a running process or in a manifest: what it opens, and what it tells.

Pure: reads a list of arguments.
"""

import re
from collections import defaultdict
from collections.abc import Iterator, Sequence

from seatrial.optimize.breach import Breach

from .rules import breach

RESTRICTING = ("http-restricted-api", "grpc-restricted-protocol")
_FLAG = re.compile(r"--([a-z][a-z0-9-]*)(?:=([^\s\"']*))?")
# A value, and not the path or variable that it is read from.
_SECRET = re.compile(r"(?:pass(?:word)?|token|secret|api[-_]?key)=(?![\"']?[/$`])[\"']?[^\s\"']+", re.I)
ADMINISTRATIVE = {
    "model-repository": "open-control",
    "shared-memory": "open-shared-memory",
    "statistics": "open-statistics",
    "trace": "open-trace",
    "logging": "open-logging",
    "model-config": "open-config",
}


def flags(arguments: Sequence[str]) -> dict[str, list[str]]:
    """Values by flag, also of flags inside a shell script; a flag without ``=`` takes the next argument."""
    found: dict[str, list[str]] = defaultdict(list)
    for place, argument in enumerate(arguments):
        for match in _FLAG.finditer(argument):
            value = match[2]
            following = arguments[place + 1] if place + 1 < len(arguments) else ""
            if value is None and argument == match[0] and following and not following.startswith("-"):
                value = following
            found[match[1]].append(value or "")
    return dict(found)


def secrets(arguments: Sequence[str], where: str, *, exposed: bool) -> Iterator[Breach]:
    """Keys and passwords that stand in the arguments; they are not repeated in the finding."""
    given = flags(arguments)
    for flag in RESTRICTING:
        for value in given.get(flag, []):
            key = value.rpartition(":")[2].partition("=")[2]
            if key and not key.startswith("$"):
                yield breach("secret-argument", where, f"--{flag} with its key", exposed=exposed)
    for argument in arguments:
        if found := _SECRET.search(argument):
            yield breach("secret-argument", where, f"{found[0].partition('=')[0]}=...", exposed=exposed)


def settings(arguments: Sequence[str], where: str, *, exposed: bool) -> Iterator[Breach]:
    """Check which risky settings the flags enable or leave enabled."""
    given = flags(arguments)
    if not {"disable-auto-complete-config", "strict-model-config"} & set(given):
        yield breach("auto-complete", where, "no --disable-auto-complete-config", exposed=exposed)
    if any("level=TENSORS" in value for value in given.get("trace-config", [])) or "TENSORS" in given.get(
        "trace-level", []
    ):
        yield breach("tensor-trace", where, "trace level TENSORS", exposed=exposed)
    if given.get("allow-client-shm", ["false"])[-1].lower() not in ("false", "0"):
        yield breach("client-shm", where, "--allow-client-shm", exposed=exposed)
    if given.get("cache-config") or given.get("response-cache-byte-size"):
        yield breach("cache", where, "a response cache is configured", exposed=exposed)


def unrestricted(arguments: Sequence[str]) -> Iterator[tuple[str, str]]:
    """Administrative calls that the flags leave open: the rule and the flag that does not name it."""
    given = flags(arguments)
    may_load = given.get("model-control-mode", ["none"])[-1] != "none"
    for flag in RESTRICTING:
        closed = {name for value in given.get(flag, []) for name in value.rpartition(":")[0].split(",")}
        for category, rule in ADMINISTRATIVE.items():
            if category not in closed and (may_load or category != "model-repository"):
                yield rule, f"--{flag} does not name {category}"
