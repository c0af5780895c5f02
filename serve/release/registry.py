"""The registry: numbered releases, written once, each with the verdict that allowed it.

A record holds the artifact's digest, the judged run's digest and the verdict itself, and the digest of the record
before it, so that a record changed afterwards is found. It does not hold the artifact; the store does.
"""

import json
import os
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from filelock import FileLock

from bench.verdict import Verdict
from optimize.artifact import Artifact, canonical, digest_bytes
from optimize.environment import now
from optimize.errors import IntegrityError, MachineError, MissingError
from optimize.names import checked

from ..errors import RegistryError

SCHEMA = 1


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


class Registry:
    """All releases under one folder: ``<name>/<version>.json``."""

    def __init__(self, root: Path) -> None:
        self.root = root

    def register(self, name: str, artifact: Artifact, verdict: Verdict, *, run: Path) -> Release:
        """Give the artifact the next version of `name`; one that already is a version of it keeps that number.

        Raises:
            ConfigError: the name is not legal.
            RegistryError: the verdict is not PASS, or it judged another artifact.
            IntegrityError: a record in the chain was changed.
            MachineError: the disk refused.
        """
        checked(name, "release name", where="--name")
        if verdict.candidate.get("digest") != artifact.digest:
            raise RegistryError(
                f"the verdict judged {str(verdict.candidate.get('digest'))[:19]}, not {artifact.short}",
                where=str(run),
                next_step="gate this artifact and register it with that run",
            )
        if verdict.outcome != "PASS":
            raise RegistryError(
                f"{artifact.short} is refused: its verdict is {verdict.outcome}",
                where="; ".join(verdict.summary[:3]),
                next_step="mend what the verdict names, build and gate again",
                exit_code=verdict.exit_code,
            )
        try:
            (self.root / name).mkdir(parents=True, exist_ok=True)
            with FileLock(self.root / name / ".lock"):
                known = self.releases(name)
                if same := [release for release in known if release.digest == artifact.digest]:
                    return same[-1]
                release = Release(
                    name=name,
                    version=known[-1].version + 1 if known else 1,
                    digest=artifact.digest,
                    verdict=json.loads(canonical(verdict.to_json())),
                    run=str(run),
                    at=now(),
                    previous=self._bytes_digest(known[-1]) if known else "",
                )
                self._write(release)
        except OSError as error:
            raise MachineError(
                f"cannot write: {error.strerror}", where=str(self.root), next_step="free space or set SEATRIAL_HOME"
            ) from error
        return release

    def releases(self, name: str) -> tuple[Release, ...]:
        """Every version, oldest first, the chain checked.

        Raises:
            IntegrityError: a record is missing in the middle, or was changed.
        """
        numbers = sorted(int(path.stem) for path in (self.root / name).glob("*.json") if path.stem.isdigit())
        found: list[Release] = []
        for expected, number in enumerate(numbers, start=1):
            release = self._read(name, number)
            before = self._bytes_digest(found[-1]) if found else ""
            if number != expected or release.previous != before:
                raise IntegrityError(
                    f"the registry's chain of {name} breaks before version {number}",
                    where=str(self.root / name),
                    next_step="restore the records from a copy; they are never edited",
                )
            found.append(release)
        return tuple(found)

    def get(self, label: str) -> Release:
        """The release called ``name@3``, or the newest for a bare name.

        Raises:
            MissingError: there is none.
        """
        name, at, version = label.partition("@")
        found = self.releases(checked(name, "release name"))
        chosen = [release for release in found if not at or str(release.version) == version]
        if not chosen:
            names = sorted(path.name for path in self.root.glob("*") if path.is_dir())
            raise MissingError(
                f"no release {label!r}",
                where=str(self.root),
                next_step=f"register one first; there is: {', '.join(names) or 'nothing'}",
            )
        return chosen[-1]

    def _path(self, name: str, version: int) -> Path:
        return self.root / name / f"{version}.json"

    def _bytes_digest(self, release: Release) -> str:
        return digest_bytes(self._path(release.name, release.version).read_bytes())

    def _read(self, name: str, version: int) -> Release:
        path = self._path(name, version)
        try:
            value = json.loads(path.read_bytes())
            if value.pop("schema") != SCHEMA:
                raise ValueError("another schema")
            return Release(**value)
        except (ValueError, KeyError, TypeError) as error:
            raise IntegrityError(
                f"a release record that cannot be read: {error}", where=str(path), next_step="restore it"
            ) from error

    def _write(self, release: Release) -> None:
        """Stage, fsync, link: the record appears whole, and never over another one."""
        path = self._path(release.name, release.version)
        staged = path.with_suffix(f".{os.getpid()}")
        try:
            with staged.open("wb") as stream:
                stream.write(canonical({"schema": SCHEMA} | asdict(release)))
                stream.flush()
                os.fsync(stream.fileno())
            staged.chmod(0o444)
            os.link(staged, path)
        finally:
            staged.unlink(missing_ok=True)
