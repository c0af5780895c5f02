"""Segments: files of captured rows, each encrypted, with an authenticated head that says what it holds.

A segment is the magic, the length of the head, the head (JSON), a nonce and the ciphertext of a Parquet file; all
before the nonce is associated data. Only whole segments stand under their names.
"""

import json
import struct
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from seatrial.optimize.errors import IntegrityError

from .policy import digest_of

SCHEMA = 1
SUFFIX = ".seg"
MAGIC = b"SEATSEG\n"
NONCE = 12
_LENGTH = struct.Struct("<I")
_MOST_HEAD = 1 << 20
_RESTORE = "restore it, or leave it: readers skip and count it"


@dataclass(frozen=True, slots=True, kw_only=True)
class Head:
    """What a segment says of itself: `policy` by which its rows were kept, its key's name, and times of its rows."""

    model: str
    policy: Mapping[str, Any]
    key: str
    rows: int
    first: float
    last: float

    @property
    def digest(self) -> str:
        """Return the policy's digest."""
        return digest_of(self.policy)

    def to_bytes(self) -> bytes:
        """Return the associated data: everything before the nonce."""
        found = {name: getattr(self, name) for name in ("model", "policy", "key", "rows", "first", "last")}
        text = json.dumps({"schema": SCHEMA, "digest": self.digest, **found}, sort_keys=True).encode()
        return MAGIC + _LENGTH.pack(len(text)) + text


def parted(content: bytes, where: str) -> tuple[Head, bytes, bytes]:
    """Return the head of a segment, its associated data, and nonce with ciphertext.

    Raises:
        IntegrityError: half a segment, a later schema, or a head that does not fit its digest; says which.
    """
    start = len(MAGIC) + _LENGTH.size
    if len(content) < start or not content.startswith(MAGIC):
        raise IntegrityError("half a segment, or none", where=where, next_step=_RESTORE)
    size = _LENGTH.unpack(content[len(MAGIC) : start])[0]
    if size > _MOST_HEAD or len(content) < start + size + NONCE:
        raise IntegrityError("half a segment, or none", where=where, next_step=_RESTORE)
    try:
        told = json.loads(content[start : start + size])
        schema, digest = told.pop("schema"), told.pop("digest", "")
        if schema != SCHEMA:
            raise IntegrityError(f"a segment of schema {schema}", where=where, next_step="read it with a later version")
        head = Head(**told)
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise IntegrityError("a segment whose head is damaged", where=where, next_step=_RESTORE) from error
    if digest != head.digest:
        raise IntegrityError("a segment whose policy is not the one of its digest", where=where, next_step=_RESTORE)
    return head, content[: start + size], content[start + size :]


def paths(folder: Path) -> list[Path]:
    """Return the segments in that folder, oldest first."""
    return sorted(folder.glob(f"*{SUFFIX}"))


def next_path(folder: Path, first: float) -> Path:
    """Return the path of a new segment whose first row is of that time: ``HOUR-n.seg``."""
    hour = datetime.fromtimestamp(first, UTC).strftime("%Y-%m-%dT%H")
    numbers = [int(each.stem.rpartition("-")[2]) for each in folder.glob(f"{hour}-*{SUFFIX}") if _numbered(each)]
    return folder / f"{hour}-{max(numbers, default=0) + 1:05d}{SUFFIX}"


def expired(folder: Path, retention: float) -> Iterator[Path]:
    """Yield the segments whose last row is older than `retention` seconds; an unreadable one goes by its own time."""
    before = time.time() - retention
    for path in paths(folder):
        try:
            state = path.stat().st_mtime
            if state >= before:  # written after its last row
                continue
            head, _, _ = parted(path.read_bytes(), str(path))
            if head.last < before:
                yield path
        except IntegrityError:
            yield path
        except FileNotFoundError:
            continue


def _numbered(path: Path) -> bool:
    return path.stem.rpartition("-")[2].isdecimal()
