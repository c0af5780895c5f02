"""A registry in memory, and homes with releases to exchange."""

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

from scripts.benchmarks.release_home import released, stored
from seatrial.optimize.artifact import digest_bytes
from seatrial.optimize.errors import IntegrityError, MissingError
from seatrial.serve.errors import ExchangeError

__all__ = ["Memory", "released", "stored"]


@dataclass
class Memory:
    """A repository of a registry that keeps its blobs in a dictionary; after `broken_after` uploads, or when no
    downloads are left, it goes away."""

    blobs: dict[str, bytes] = field(default_factory=dict)
    tags: dict[str, bytes] = field(default_factory=dict)
    broken_after: int = 1 << 30
    uploads: int = 0
    downloads_left: int = 1 << 30

    def holds(self, digest: str) -> bool:
        return digest in self.blobs

    def upload(self, digest: str, size: int, source: Path | bytes) -> None:
        if self.uploads >= self.broken_after:
            raise ExchangeError("gone")
        self.uploads += 1
        data = source if isinstance(source, bytes) else source.read_bytes()
        assert (digest_bytes(data), len(data)) == (digest, size)
        self.blobs[digest] = data

    def put_manifest(self, data: bytes, tag: str) -> str:
        self.tags[tag] = data
        return digest_bytes(data)

    def manifest(self, limit: int) -> bytes:
        if not self.tags:
            raise MissingError("no tag")
        data = next(reversed(self.tags.values()))
        assert len(data) <= limit
        return data

    def blob(self, digest: str, size: int, write: Callable[[bytes], object]) -> None:
        if not self.downloads_left:
            raise ExchangeError("gone")
        self.downloads_left -= 1
        data = self.blobs[digest]
        write(data)
        if digest_bytes(data) != digest or len(data) != size:
            raise IntegrityError("other bytes")
