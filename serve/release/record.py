"""Release records as bytes: written once, read strictly, under names that stay in the registry's folder."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from seatrial.optimize.artifact import canonical, checked_digest
from seatrial.optimize.errors import IntegrityError
from seatrial.optimize.record import Record

RECORD_LIMIT = 64 << 20  # bytes of a record; a verdict has some thousand


@dataclass(frozen=True, slots=True, kw_only=True)
class Release(Record, schema=1, what="the release record"):
    """Version `version` of `name` is that artifact, because of that verdict.

    `previous` is the digest of the record of the version before (empty for the first), `run` the folder that the
    verdict was judged from.
    """

    name: str
    version: int
    digest: str
    verdict: Mapping[str, Any]
    run: str
    at: str
    previous: str

    def check(self) -> None:
        """Refuse digests that are none."""
        checked_digest(self.digest)
        if self.previous:
            checked_digest(self.previous)

    @property
    def label(self) -> str:
        """``name@3``, for people and for the command line."""
        return f"{self.name}@{self.version}"


def record_bytes(release: Release) -> bytes:
    """The record as a file."""
    return canonical(release.to_json())


def read_release(data: bytes, name: str, version: int) -> Release:
    """The release that a record holds.

    Raises:
        ValueError: it is no record, or another release's.
    """
    try:
        found = Release.parse(data)
    except IntegrityError as error:
        raise ValueError(error.what) from None
    if (found.name, found.version) != (name, version):
        raise ValueError(f"it belongs to {str(found.name)[:80]!r}, version {str(found.version)[:20]}")
    return found
