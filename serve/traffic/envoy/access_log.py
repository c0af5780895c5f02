"""Envoy's access log as `Seen`: what a proxy saw of each inference, readable while it is written.

Reads; never writes, except that `rotate` moves a log away that has grown. Lines that are no inference of a version
(health, metadata, refused before a version was chosen) are not evidence and are left out.
"""

import json
import os
import re
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO, TypeVar

from ..seen import Role, Seen
from .admin import Admin
from .routes import ARM, COPIED

Parsed = TypeVar("Parsed")

_ARM = re.compile(rf"{ARM}(\d+)(?:{COPIED})?$")


@dataclass(frozen=True, slots=True, kw_only=True)
class LogPosition:
    """Position in a log: the file (which may be rotated), and the number of bytes read."""

    inode: int = 0
    offset: int = 0


def parse(line: str) -> Seen | None:
    """One line; None where it says nothing about a version.

    A request that fell back counts for the version that answered in the end.
    """
    try:
        return of(json.loads(line))
    except (ValueError, RecursionError):
        return None  # a foreign line, or one that a killed process left half-written


def of(said: Mapping[str, Any]) -> Seen | None:
    """One record; None where it says nothing about a version.

    That is so where no upstream answered: a caller without a key, a refusal of the edge's own, a server that could not
    be reached or died. What a version leaves unanswered until the route's timeout does say something.
    """
    try:
        route = str(said.get("route", ""))
        if "version" not in said or route.endswith("/about"):
            return None
        flags, grpc = str(said.get("flags", "")).replace("-", ""), said.get("grpc")
        words, details = set(flags.split(",")), str(said.get("details", ""))
        if details and details != "via_upstream" and not words & {"UT", "DC"}:
            return None
        arm = _ARM.search(route)
        version, own = int(said["version"]), int(arm.group(1)) if arm else 0
        return Seen(
            at=float(said["start"]),
            model=str(said["model"]),
            version=version,
            role=_role(said["role"]),
            seconds=_seconds(said, words),
            status=int(said.get("status", 0)),
            grpc_status=int(grpc) if grpc is not None else None,
            request_id=str(said.get("id", "")),
            flags=flags,
            route=route,
            attempts=max(1, int(said.get("attempts", 1))),
            asked=own if own != version else 0,
            on_trial=bool(own),
            client=str(said.get("client", "")),
            kind=str(said.get("kind", "")),
            size=int(said.get("size", 0)),
            digest=str(said.get("digest", "")),
        )
    except (ValueError, KeyError, TypeError, AttributeError, OverflowError):
        return None  # a foreign line


def _seconds(said: Mapping[str, Any], words: set[str]) -> float:
    """Return how long the version took: what a caller takes to send its body or to read the answer is not its doing.

    Without an answer it is the wait since the body had arrived.
    """
    if "upstream_us" in said and not words & {"UT", "DC"}:
        return max(0, int(said["upstream_us"])) / 1e6
    if "received_ms" in said and "ms" in said:
        return max(0, int(said["ms"]) - int(said["received_ms"])) / 1e3
    return max(0, int(said.get("us", 0))) / 1e6


def read(
    log: Path, place: LogPosition | None = None, *, parsing: Callable[[str], Seen | None] = parse
) -> tuple[list[Seen], LogPosition]:
    """Requests that were written since that place; see `read_lines`."""
    return read_lines(log, place, parsing=parsing)


def read_lines(
    log: Path, place: LogPosition | None = None, *, parsing: Callable[[str], Parsed | None]
) -> tuple[list[Parsed], LogPosition]:
    """Return the lines since that position (default: the beginning), and the new position.

    A line that is not ended yet waits for the next reading. Where the log was moved away, the rest of the old file
    (`log` with ``.1``) comes first; where the place is in neither file any more, because it was moved away twice since,
    all of both is read. `parsing` is for a proxy whose lines say less.
    """
    found: list[Parsed] = []
    place = place or LogPosition()
    with ExitStack() as stack:
        # The log first: once there is a new one the proxy has closed the old one, whose end is then really its end.
        new, old = (_opened(stack, path) for path in (log, log.with_name(f"{log.name}.1")))
        streams = [stream for stream in (old, new) if stream is not None]
        if new is not None and (place.inode in (0, _inode(new)) or (old is not None and _inode(old) == _inode(new))):
            streams = [new]
        for stream in streams:
            begin = place.offset if _inode(stream) == place.inode else 0
            stream.seek(begin if begin <= os.fstat(stream.fileno()).st_size else 0)  # else another file of that number
            content = stream.read()
            ended = content.rfind(b"\n") + 1
            place = LogPosition(inode=_inode(stream), offset=stream.tell() - len(content) + ended)
            found.extend(_lines(content[:ended], parsing))
    return found, place


def _opened(stack: ExitStack, path: Path) -> BinaryIO | None:
    try:
        return stack.enter_context(path.open("rb"))
    except FileNotFoundError:
        return None


def _inode(stream: BinaryIO) -> int:
    return os.fstat(stream.fileno()).st_ino


def end(log: Path) -> LogPosition:
    """The place after all that was written so far; whatever is read from there on is new."""
    try:
        with log.open("rb") as stream:
            return LogPosition(inode=log.stat().st_ino, offset=stream.seek(0, 2))
    except FileNotFoundError:
        return LogPosition()


def rotate(log: Path, admin: Admin, *, above: int = 256 << 20) -> bool:
    """Move a log of more bytes away, over the one moved before, so that two are the most there ever is."""
    if not log.exists() or log.stat().st_size <= above:
        return False
    log.replace(log.with_name(f"{log.name}.1"))
    admin.reopen_logs()
    return True


def _lines(content: bytes, parsing: Callable[[str], Parsed | None]) -> Iterator[Parsed]:
    for line in content.decode(errors="replace").splitlines():
        if (parsed := parsing(line)) is not None:
            yield parsed


def _role(text: object) -> Role:
    if text not in ("live", "shadow"):
        raise ValueError(f"{text!r} is no role")
    return "shadow" if text == "shadow" else "live"
