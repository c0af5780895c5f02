"""Release records as bytes: written once, read strictly, under names that stay in the registry's folder."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

from seatrial.optimize.artifact import canonical, is_digest
from seatrial.optimize.plain import parse_json

SCHEMA = 1
RECORD_LIMIT = 64 << 20  # bytes of a record; a verdict has some thousand


@dataclass(frozen=True, slots=True, kw_only=True)
class Release:
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

    @property
    def label(self) -> str:
        """``name@3``, for people and for the command line."""
        return f"{self.name}@{self.version}"


def record_bytes(release: Release) -> bytes:
    """The record as a file."""
    return canonical({"schema": SCHEMA} | asdict(release))


def read_release(data: bytes, name: str, version: int) -> Release:
    """The release that a record holds.

    Raises:
        ValueError: it is no record, or another release's.
    """
    value = parse_json(data)
    if not isinstance(value, dict) or value.pop("schema", None) != SCHEMA:
        raise ValueError("the record has another schema, or is not a release record")
    try:
        found = Release(**value)
    except TypeError as error:
        raise ValueError(str(error)) from None
    if (found.name, found.version) != (name, version) or type(found.version) is not int:
        raise ValueError(f"it belongs to {str(found.name)[:80]!r}, version {str(found.version)[:20]}")
    if not is_digest(found.digest) or not (found.previous == "" or is_digest(found.previous)):
        raise ValueError("its digests are malformed")
    if not isinstance(found.verdict, dict) or not all(isinstance(text, str) for text in (found.run, found.at)):
        raise ValueError("a field has the wrong type")
    canonical(value)  # infinite numbers are refused where they are read
    return found
