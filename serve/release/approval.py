"""Approvals as values: what one says, when it counts, and what a release still lacks.

Pure. An approval is an in-toto statement over the artifact's files in the form of OpenSSF Model Signing 1.0, so that
``model_signing verify key`` accepts it as a signature of the model; who approved which release stands beside it.
"""

import hashlib
import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from seatrial.optimize.artifact import Artifact, canonical
from seatrial.optimize.errors import IntegrityError
from seatrial.optimize.record import Record

from .roles import Environment, Roles

PAYLOAD = "application/vnd.in-toto+json"
BUNDLE = "application/vnd.dev.sigstore.bundle.v0.3+json"
_STATEMENT = "https://in-toto.io/Statement/v1"
_PREDICATE = "https://model_signing/signature/v1.0"
_STEP = "have the release approved again: seatrial approve RELEASE --as ROLE --key FILE"


@dataclass(frozen=True, slots=True, kw_only=True)
class Approval(Record, schema=1, what="an approval", next_step=_STEP):
    """One member's word on a release, by `record`, the digest of the release's record.

    `withdrawn` takes an earlier word back. `expires` is empty where it holds without end; times are ISO 8601 in UTC.
    """

    release: str
    record: str
    artifact: str
    role: str
    member: str
    key: str
    at: str
    expires: str = ""
    reason: str = ""
    withdrawn: bool = False

    def check(self) -> None:
        """Refuse times that are none."""
        datetime.fromisoformat(self.at)
        if self.expires:
            datetime.fromisoformat(self.expires)


@dataclass(frozen=True, slots=True, kw_only=True)
class Standing:
    """One role's approvals of a release: who gave one that counts, and why others do not."""

    role: str
    needs: int
    counted: tuple[str, ...]
    others: tuple[str, ...]

    @property
    def met(self) -> bool:
        """Return whether enough members approved."""
        return len(self.counted) >= self.needs


def statement(approval: Approval, artifact: Artifact) -> bytes:
    """Return the in-toto statement that is signed: the files of the artifact, and the approval."""
    resources = [
        {"name": file.path, "algorithm": "sha256", "digest": file.digest.removeprefix("sha256:")}
        for file in sorted(artifact.files, key=lambda file: file.path)
    ]
    root = hashlib.sha256(b"".join(bytes.fromhex(each["digest"]) for each in resources)).hexdigest()
    serialization = {"method": "files", "hash_type": "sha256", "allow_symlinks": False, "ignore_paths": []}
    return canonical(
        {
            "_type": _STATEMENT,
            "subject": [{"name": approval.release, "digest": {"sha256": root}}],
            "predicateType": _PREDICATE,
            "predicate": {
                "serialization": serialization,
                "resources": resources,
                "seatrial": approval.to_json(),
            },
        }
    )


def read_statement(payload: bytes, artifact: Artifact, where: str) -> Approval:
    """Return the approval in a statement over exactly the files of this artifact.

    Raises:
        IntegrityError: another form, or other files.
    """
    try:
        approval = Approval.from_json(json.loads(payload)["predicate"]["seatrial"], where=where, next_step=_STEP)
    except (ValueError, KeyError, TypeError) as error:
        raise IntegrityError("not the statement of an approval", where=where, next_step=_STEP) from error
    if statement(approval, artifact) != payload or approval.artifact != artifact.digest:
        raise IntegrityError("it approves other files than the release's", where=where, next_step=_STEP)
    return approval


def bundle(envelope: Mapping[str, Any], key: str) -> bytes:
    """Return a Sigstore bundle of a DSSE envelope, with the fingerprint of the key as its hint."""
    signatures = [{"sig": each["sig"], "keyid": ""} for each in envelope["signatures"]]
    return canonical(
        {
            "mediaType": BUNDLE,
            "verificationMaterial": {"publicKey": {"hint": key.removeprefix("sha256:")}, "tlogEntries": []},
            "dsseEnvelope": {**envelope, "signatures": signatures},
        }
    )


def read_bundle(data: bytes, where: str) -> tuple[Mapping[str, Any], str]:
    """Return the envelope of a bundle, and its key's fingerprint.

    Raises:
        IntegrityError: it is no bundle, or not byte for byte what `bundle` writes.
    """
    try:
        value = json.loads(data)
        envelope, key = value["dsseEnvelope"], f"sha256:{value['verificationMaterial']['publicKey']['hint']}"
        same = bundle(envelope, key) == data
    except (ValueError, KeyError, TypeError, RecursionError) as error:
        raise IntegrityError("not a signed bundle", where=where, next_step=_STEP) from error
    if not same:
        raise IntegrityError("the bundle was changed", where=where, next_step=_STEP)
    return envelope, key


def standings(
    environment: Environment, roles: Roles, approvals: Iterable[Approval], *, record: str, now: datetime
) -> tuple[Standing, ...]:
    """Return how each role of an environment stands on the release with that record.

    The last word of a key counts. One that has expired, was withdrawn, is of a revoked key, of somebody who left the
    role, or of a key that also approves in another role, does not count, and says so.
    """
    last: dict[tuple[str, str], Approval] = {}
    for approval in sorted(approvals, key=lambda each: each.at):
        last[approval.role, approval.key] = approval
    spoken: dict[str, set[str]] = {}
    for approval in last.values():
        spoken.setdefault(approval.key, set()).add(approval.role)
    found = []
    for name in environment.roles:
        role = roles.role(name)
        counted, others = list[str](), list[str]()
        for approval in (each for each in last.values() if each.role == name):
            why = _void(approval, roles, record=record, now=now)
            if not why and len(spoken[approval.key]) > 1:
                why = f"its key approves as {' and '.join(sorted(spoken[approval.key]))}"
            (others if why else counted).append(f"{approval.member}: {why}" if why else approval.member)
        unique = tuple(dict.fromkeys(counted))
        found.append(Standing(role=name, needs=role.needs, counted=unique, others=tuple(others)))
    return tuple(found)


def _void(approval: Approval, roles: Roles, *, record: str, now: datetime) -> str:
    """Return why an approval does not count; empty where it does."""
    if approval.record != record:
        return "it approves another release"
    if approval.withdrawn:
        return f"withdrawn on {approval.at[:10]}"
    if approval.expires and datetime.fromisoformat(approval.expires) <= now:
        return f"expired on {approval.expires[:10]}"
    if approval.key in roles.revoked:
        return "its key is revoked"
    if approval.member not in roles.role(approval.role).members:
        return f"no longer in the role {approval.role}"
    return ""
