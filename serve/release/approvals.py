"""Approvals on disk: signed, written once, read with every signature checked.

    HOME/approvals/NAME/VERSION/ROLE-NUMBER.json    one bundle each, in the order in which they were given

The trail names the digest of every bundle, so that one that was removed is missed.
"""

import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path

from seatrial.optimize.artifact import Artifact, digest_bytes
from seatrial.optimize.errors import ConfigError, IntegrityError, MachineError, SeatrialError
from seatrial.optimize.locking import locked
from seatrial.optimize.plain import read_plain, write_once

from ..errors import UnapprovedError
from . import on_cryptography as keys
from .approval import PAYLOAD, Approval, Standing, bundle, read_bundle, read_statement, standings, statement
from .record import Release, record_bytes
from .roles import Environment, Role, Roles
from .trail_file import TrailFile

_LIMIT = 4 << 20
_NAME = re.compile(r"([A-Za-z0-9][A-Za-z0-9_.-]{0,127})-([1-9][0-9]{0,5})\.json")


@dataclass(frozen=True, slots=True, kw_only=True)
class Subject:
    """What is approved: a release, and the artifact that it is."""

    release: Release
    artifact: Artifact

    @property
    def record(self) -> str:
        """The digest of the release's record."""
        return digest_bytes(record_bytes(self.release))


class Approvals:
    """The approvals under one home; `roles` were read from a file in `base`."""

    def __init__(self, home: Path, roles: Roles, base: Path) -> None:
        self.root = home / "approvals"
        self.trail = TrailFile(home / "trail")
        self.roles, self.base = roles, base

    def approve(
        self, subject: Subject, *, role: str, key: Path, reason: str = "", withdraw: bool = False
    ) -> tuple[Approval, Path]:
        """Sign a member's word on a release, write it once, and enter it in the trail.

        Raises:
            ConfigError: an unknown role; a key that is of no member, that is revoked, or that approved as another role;
                an approval that stands already, or none that could be withdrawn.
        """
        private = keys.private_key(key)
        mine = keys.fingerprint(private.public_key())
        member = self._member(self.roles.role(role), role, mine, key)
        with self._alone(subject):
            given = [each for each, _ in self._completed(subject)]
            self._check_other_role(given, role, mine, key)
            approval = self._word(subject, role=role, member=member, key=mine, reason=reason, withdraw=withdraw)
            self._check_changes(approval, given)
            data = bundle(keys.envelope(private, PAYLOAD, statement(approval, subject.artifact)), mine)
            path = self._folder(subject.release) / f"{role}-{self._next(subject.release)}.json"
            write_once(path, data)
            self._enter(approval, digest_bytes(data))
        return approval, path

    def _enter(self, approval: Approval, digest: str) -> None:
        self.trail.append(
            "revoked" if approval.withdrawn else "approved",
            model=approval.release.rpartition("@")[0],
            actor=f"{approval.member} ({approval.role})",
            subject=approval.release,
            details={"approval": digest, "key": approval.key, "reason": approval.reason},
        )

    def _completed(self, subject: Subject) -> list[tuple[Approval, str]]:
        """Return every word, under the lock; one that a kill kept from the trail is entered first."""
        given = self.read(subject)
        known = self._entered(subject)
        for approval, digest in given:
            if digest not in known:
                self._enter(approval, digest)
        return given

    def _word(self, subject: Subject, *, role: str, member: str, key: str, reason: str, withdraw: bool) -> Approval:
        now, days = datetime.now(UTC), self.roles.role(role).days
        expires = "" if not days or withdraw else (now + timedelta(days=days)).isoformat(timespec="seconds")
        return Approval(
            release=subject.release.label,
            record=subject.record,
            artifact=subject.artifact.digest,
            role=role,
            member=member,
            key=key,
            at=now.isoformat(timespec="microseconds"),
            expires=expires,
            reason=reason,
            withdrawn=withdraw,
        )

    def standings(self, subject: Subject, environment: Environment) -> tuple[Standing, ...]:
        """Return how each role of the environment stands on the release.

        Raises:
            IntegrityError: an approval was changed, removed, or is not in the trail.
        """
        with self._alone(subject):
            given = self._completed(subject)
        self._check_trail(subject, {digest for _, digest in given})
        approvals = [approval for approval, _ in given]
        return standings(environment, self.roles, approvals, record=subject.record, now=datetime.now(UTC))

    def check(self, subject: Subject, name: str, environment: Environment) -> None:
        """Refuse a release that a protected environment does not allow.

        Raises:
            UnapprovedError: a role's approvals are short.
            IntegrityError: an approval was changed, removed, or is not in the trail.
        """
        if not environment.protected:
            return
        short = [each for each in self.standings(subject, environment) if not each.met]
        if short:
            said = "; ".join(
                f"{each.role} {len(each.counted)} of {each.needs}"
                + (f" (not counted: {', '.join(each.others)})" if each.others else "")
                for each in short
            )
            raise UnapprovedError(
                f"{subject.release.label} is not approved for the protected environment {name}: {said}",
                where=subject.release.label,
                next_step=f"seatrial approve {subject.release.label} --as {short[0].role} --key FILE",
            )

    def read(self, subject: Subject) -> list[tuple[Approval, str]]:
        """Return every word on a release with its file's digest, oldest first, each signature checked.

        Raises:
            IntegrityError: one was changed, or no member's key signed it.
        """
        found = []
        for path in self._files(subject.release):
            where = f"{path}:1"
            try:
                data = read_plain(path, _LIMIT)
            except OSError as error:
                what = f"an approval cannot be read: {error.strerror or error}"
                raise IntegrityError(what, where=where, next_step="restore the file from a backup") from error
            found.append((self._read(data, subject, where), digest_bytes(data)))
        return sorted(found, key=lambda each: each[0].at)

    def _read(self, data: bytes, subject: Subject, where: str) -> Approval:
        envelope, fingerprint = read_bundle(data, where)
        key = self._keys().get(fingerprint)
        if key is None:
            raise IntegrityError(
                f"it is signed by {fingerprint[:19]}, which is no member's key",
                where=where,
                next_step="keep keys of earlier members in the file of roles, under revoked, or move the approval away",
            )
        signed = {**envelope, "signatures": [{**each, "keyid": fingerprint} for each in envelope["signatures"]]}
        approval = read_statement(keys.opened(signed, key, PAYLOAD, where), subject.artifact, where)
        if approval.key != fingerprint:
            raise IntegrityError("it names another key than signed it", where=where)
        return approval

    def _keys(self) -> Mapping[str, keys.PublicKey]:
        """Return every member's public key by its fingerprint."""
        found = {}
        for name, role in self.roles.roles.items():
            for member, path in role.members.items():
                try:
                    key = keys.public_key(self.base / path)
                except SeatrialError as error:
                    error.where = f"{error.where} (roles.{name}.members.{member})"
                    raise
                found[keys.fingerprint(key)] = key
        return found

    def _member(self, role: Role, name: str, fingerprint: str, path: Path) -> str:
        if fingerprint in self.roles.revoked:
            raise ConfigError("this key is revoked", where=str(path), next_step="use another key of a member")
        for member, public in role.members.items():
            if keys.fingerprint(keys.public_key(self.base / public)) == fingerprint:
                return member
        raise ConfigError(
            f"this key is of no member of the role {name}",
            where=str(path),
            next_step=f"use the key of one of: {', '.join(role.members)}; or add its public key to the role",
        )

    @staticmethod
    def _check_other_role(given: list[Approval], role: str, fingerprint: str, path: Path) -> None:
        others = {each.role for each in given if each.key == fingerprint and each.role != role}
        if others:
            raise ConfigError(
                f"this key spoke on the release as {min(others)}: no key counts for two roles",
                where=str(path),
                next_step=f"approve as {role} with another member's key",
            )

    @staticmethod
    def _check_changes(approval: Approval, given: list[Approval]) -> None:
        mine = [each for each in given if each.key == approval.key and each.role == approval.role]
        stands = bool(mine) and not mine[-1].withdrawn
        if stands and not approval.withdrawn and mine[-1].expires == "":
            raise ConfigError(
                f"{approval.member} has approved {approval.release} already",
                where=approval.release,
                next_step="nothing is left to do, or withdraw it: --withdraw",
            )
        if approval.withdrawn and not stands:
            raise ConfigError(
                f"{approval.member} has not approved {approval.release}",
                where=approval.release,
                next_step="there is nothing to withdraw",
            )

    def _check_trail(self, subject: Subject, digests: set[str]) -> None:
        """Refuse a set of approvals that is not the one in the trail."""
        entered = self._entered(subject)
        if missing := entered.keys() - digests:
            raise IntegrityError(
                f"{len(missing)} words on {subject.release.label} are in the trail, but their files are missing",
                where=entered[min(missing)],
                next_step="restore the folder of approvals from a backup",
            )

    def _entered(self, subject: Subject) -> Mapping[str, str]:
        """Return the digests of the words that the trail has, with the line of each."""
        return {
            str(entry.details.get("approval")): f"{self.trail.path}:{entry.seq}"
            for entry in self.trail.entries(model=subject.release.name)
            if entry.event in ("approved", "revoked") and entry.subject == subject.release.label
        }

    def _files(self, release: Release) -> list[Path]:
        folder = self._folder(release)
        return sorted(path for path in folder.iterdir() if _NAME.fullmatch(path.name)) if folder.is_dir() else []

    def _next(self, release: Release) -> int:
        numbers = [int(match[2]) for path in self._files(release) if (match := _NAME.fullmatch(path.name))]
        return max(numbers, default=0) + 1

    def _folder(self, release: Release) -> Path:
        return self.root / release.name / str(release.version)

    @contextmanager
    def _alone(self, subject: Subject) -> Iterator[None]:
        folder = self._folder(subject.release)
        try:
            folder.mkdir(parents=True, exist_ok=True)
            with locked(folder / ".lock"):
                yield
        except OSError as error:
            raise MachineError(
                f"an approval cannot be written: {error.strerror or error}",
                where=str(folder),
                next_step="free space or set SEATRIAL_HOME",
            ) from error
