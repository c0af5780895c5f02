"""The registry: numbered releases, written once, each with the verdict that allowed it.

A record holds the artifact's digest, the judged run's digest and the verdict itself, and the digest of the record
before it, so that a record changed afterwards is found. Each is kept twice: the second copy is named by its digest, so
that the newest record, which no later one vouches for, is checked too, and a lost record can be restored bit for bit.
It does not hold the artifact; the store does.
"""

from pathlib import Path

from seatrial.bench.verdict import Verdict
from seatrial.optimize.artifact import Artifact
from seatrial.optimize.environment import now
from seatrial.optimize.errors import MissingError
from seatrial.optimize.names import checked

from ..errors import RegistryError
from .record import Release, record_bytes
from .registry_folder import RegistryFolder

__all__ = ["Registry", "Release"]


class Registry:
    """All releases under one folder: ``<name>/<version>.json``."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.folder = RegistryFolder(root)

    def register(self, name: str, artifact: Artifact, verdict: Verdict, *, run: Path) -> Release:
        """Give the artifact the next version of `name`; one that already is a version of it keeps that number.

        Raises:
            ConfigError: the name is not legal.
            RegistryError: the verdict is not PASS, or it judged another artifact.
            IntegrityError: a record in the chain was changed.
            MachineError: the disk refused.
        """
        checked(name, "release name", where="--name")
        if verdict.candidate.digest != artifact.digest:
            raise RegistryError(
                f"the verdict belongs to {verdict.candidate.digest[:19]}, not to {artifact.short}",
                where=str(run),
                next_step="gate this artifact and register it with that run",
            )
        if verdict.outcome != "PASS":
            raise RegistryError(
                f"{artifact.short} cannot be registered: its verdict is {verdict.outcome}",
                where="; ".join(verdict.summary[:3]),
                next_step="fix the causes named in the verdict, then build and gate again",
                exit_code=verdict.exit_code,
            )
        with self.folder.locked(name):
            known = self.folder.chain(name)
            if same := [release for release, _ in known if release.digest == artifact.digest]:
                self.folder.copy_all(name)
                return same[-1]
            release = Release(
                name=name,
                version=len(known) + 1,
                digest=artifact.digest,
                verdict=verdict.to_json(),
                run=str(run),
                at=now(),
                previous=known[-1][1] if known else "",
            )
            self.folder.write(name, release.version, record_bytes(release))
            self.folder.copy_all(name)
        return release

    def releases(self, name: str) -> tuple[Release, ...]:
        """Every version, oldest first, the chain checked.

        Raises:
            ConfigError: the name is not legal.
            IntegrityError: a record is missing, or was changed.
        """
        return tuple(release for release, _ in self.folder.chain(checked(name, "release name")))

    def get(self, label: str) -> Release:
        """The release called ``name@3``, or the newest for a bare name.

        Raises:
            ConfigError: the name is not legal.
            MissingError: there is none.
        """
        name, at, version = label.partition("@")
        found = self.releases(checked(name, "release name"))
        chosen = [release for release in found if not at or str(release.version) == version]
        if not chosen:
            raise MissingError(
                f"there is no release {label!r}",
                where=str(self.root),
                next_step=f"register one first; known: {', '.join(self.folder.names()) or 'none'}",
            )
        return chosen[-1]
