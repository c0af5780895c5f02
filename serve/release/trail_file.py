"""The trail's files: lines that are only appended, and a signed head that holds the last of them.

    HOME/trail/trail.jsonl    one entry a line, each with the digest of the line before
    HOME/trail/head.json      the last line, the number of entries and bytes, signed; written before that line
    HOME/trail/key.pem        the private key of this home, for its owner alone; `key.pub` beside it

A kill between head and line leaves a line that stands in the head alone: the next append, or a repair, writes it. So no
entry is ever lost, and no line counts that the head does not vouch for.
"""

import base64
import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from seatrial.optimize.artifact import canonical, digest_bytes
from seatrial.optimize.errors import ConfigError, IntegrityError, MachineError, MissingError
from seatrial.optimize.inspection import Damage
from seatrial.optimize.locking import locked
from seatrial.optimize.plain import opened, read_plain, write_atomically
from seatrial.optimize.record import Record

from . import on_cryptography as keys
from .trail import LINE_LIMIT, Entry, Event, Served, checked_chain, line_of, needle, served_at

_HEAD_LIMIT = 4 * LINE_LIMIT
_BLOCK = 1 << 16
_BACKUP = "restore the file from a backup; the trail shows what was done only as far as it verifies"
_REPAIR = "seatrial trail verify --repair writes it"


@dataclass(frozen=True, slots=True, kw_only=True)
class Head(Record, schema=1, what="the head of the trail", next_step=_BACKUP):
    """`entries` lines of `size` bytes together, the last of which is `line`; `signature` is base64, by `key`."""

    entries: int
    size: int
    line: str
    key: str
    signature: str = ""

    @property
    def signed(self) -> bytes:
        """The bytes that are signed."""
        return canonical({name: value for name, value in self.to_json().items() if name != "signature"})


@dataclass(frozen=True, slots=True, kw_only=True)
class Checked:
    """A trail that was verified: how many entries, whose key, and the damage found."""

    entries: int
    key: str
    damage: tuple[Damage, ...] = ()


class TrailFile:
    """The trail of one home."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.path = root / "trail.jsonl"
        self.head_path = root / "head.json"
        self.key_path = root / "key.pem"

    def append(
        self, event: Event, *, model: str, actor: str, subject: str = "", details: Mapping[str, Any] | None = None
    ) -> Entry:
        """Add an entry; it is on the disk when this returns.

        Raises:
            IntegrityError: head or key were changed, or the file does not end as the head says.
            MachineError: the disk refused; what stood there before still stands.
        """
        with self._alone():
            key = self._key()
            head = self.head(key.public_key())
            self._completed(head)
            entry = Entry(
                seq=(head.entries if head else 0) + 1,
                at=datetime.now(UTC).isoformat(timespec="microseconds"),
                event=event,
                actor=actor,
                model=model,
                subject=subject,
                details=details or {},
                previous=digest_bytes(head.line.encode()) if head else "",
            )
            line = line_of(entry)
            after = Head(
                entries=entry.seq,
                size=(head.size if head else 0) + len(line) + 1,
                line=line.decode(),
                key=keys.fingerprint(key.public_key()),
            )
            signature = base64.b64encode(keys.sign(key, after.signed)).decode()
            write_atomically(self.head_path, canonical(after.to_json() | {"signature": signature}))
            self._write(line)
            return entry

    def head(self, key: keys.PublicKey) -> Head | None:
        """Return the head; None where there is no trail yet.

        Raises:
            IntegrityError: it cannot be read, or the key did not sign it.
        """
        try:
            data = read_plain(self.head_path, _HEAD_LIMIT)
        except FileNotFoundError:
            if self.path.exists():
                raise self._damaged("the head is missing", f"{self.head_path}:1") from None
            return None
        except OSError as error:
            raise self._damaged(f"the head cannot be read: {error.strerror or error}", f"{self.head_path}:1") from error
        head = Head.parse(data, where=f"{self.head_path}:1", next_step=_BACKUP)
        try:
            signature = base64.b64decode(head.signature, validate=True)
        except ValueError:
            signature = b""
        whole = canonical(head.to_json()) == data and base64.b64encode(signature).decode() == head.signature
        if not whole or head.key != keys.fingerprint(key) or not keys.verifies(key, signature, head.signed):
            raise self._damaged("the head was changed: its signature does not fit", f"{self.head_path}:1")
        return head

    def verify(self, *, public: Path | None = None, repair: bool = False) -> Checked:
        """Check every byte of the trail against the chain and the signed head.

        `public` is a public key kept elsewhere; without it the one beside the trail is taken, which shows changes but
        not that key and trail were replaced together. With `repair`, a line that a kill left in the head alone is
        written first.

        Raises:
            MissingError, ConfigError: there is no such public key, or it is none.
        """
        if not self.head_path.exists() and not self.path.exists():
            return Checked(entries=0, key="")
        try:
            if repair and self.head_path.exists():
                with self._alone():
                    self._completed(self.head(self._key().public_key()))
            key = keys.public_key(public or self.key_path.with_suffix(".pub"))
            head = self.head(key)
        except IntegrityError as error:
            damage = Damage(part="trail", what=error.what, where=error.where, next_step=error.next_step or _BACKUP)
            return Checked(entries=0, key="", damage=(damage, *self._lines_checked(None)))
        fingerprint = keys.fingerprint(key)
        return Checked(entries=head.entries if head else 0, key=fingerprint, damage=tuple(self._lines_checked(head)))

    def export(self, to: Path) -> Checked:
        """Copy trail, head and public key into a new folder.

        Raises:
            ConfigError: something is there.
            IntegrityError: the trail is damaged.
            MissingError: there is no trail yet.
        """
        found = self.verify()
        for damage in found.damage:
            raise IntegrityError(damage.what, where=damage.where, next_step=damage.next_step)
        if not found.entries:
            raise MissingError("there is no trail yet", where=str(self.root), next_step="it begins with the first act")
        try:
            to.mkdir(parents=True)
            for path in (self.path, self.head_path, self.key_path.with_suffix(".pub")):
                write_atomically(to / path.name, read_plain(path, path.stat().st_size))
        except FileExistsError as error:
            raise ConfigError(
                "something is there already", where=str(to), next_step="name a folder that does not exist"
            ) from error
        return found

    def entries(self, *, model: str = "") -> Iterator[Entry]:
        """Every entry, oldest first; of one model where it is named.

        Raises:
            IntegrityError: a line cannot be read.
        """
        for number, line in enumerate(self._lines(), start=1):
            entry = Entry.parse(line, where=f"{self.path}:{number}", next_step=_BACKUP)
            if not model or entry.model == model:
                yield entry

    def served(self, model: str, at: datetime) -> Served | None:
        """Return which digests answered a model's live requests at that time, and at which share; None if unknown."""
        return served_at(self._backwards(needle(model)), model, at)

    def _lines_checked(self, head: Head | None) -> Iterator[Damage]:
        lines, size, last = self._lines(), 0, b""
        number = 0
        for number, (line, (_, _, fault)) in enumerate(zip(lines, checked_chain(lines), strict=True), start=1):
            size, last = size + len(line) + 1, line
            if fault:
                yield self._damage(fault.what, fault.line)
            elif head and number > head.entries:
                yield self._damage("the head does not vouch for it: it was added", number)
        if torn := self._torn():
            yield self._damage(f"{torn} bytes stand behind the last whole line", number + 1)
        if head is None:
            if number:
                yield self._damage("no head vouches for it", number)
            return
        if number == head.entries - 1:
            yield self._damage("the last entry stands in the head alone", head.entries, _REPAIR)
        elif number < head.entries:
            yield self._damage(f"{head.entries - number} entries are missing at the end", number + 1)
        elif number == head.entries and (last != head.line.encode() or size != head.size):
            yield self._damage("it is not what the head vouches for", number)

    def _completed(self, head: Head | None) -> None:
        """Write the line that a kill left in the head alone, and cut off what it left of one."""
        size = self.path.stat().st_size if self.path.exists() else 0
        if head is None or size == head.size:
            return
        line = head.line.encode()
        before = head.size - len(line) - 1
        if not before <= size < head.size:
            raise self._damaged("the trail does not end where its head says", f"{self.path}:{head.entries}")
        if size > before:
            with self.path.open("rb") as stream:
                stream.seek(before)
                if not (line + b"\n").startswith(stream.read()):
                    raise self._damaged("the last line is not what the head vouches for", f"{self.path}:{head.entries}")
            os.truncate(self.path, before)
        self._write(line)

    def _write(self, line: bytes) -> None:
        with self.path.open("ab", buffering=0) as stream:
            size = stream.tell()
            if stream.write(line + b"\n") != len(line) + 1:
                stream.truncate(size)
                raise MachineError(
                    "no space is left for an entry", where=str(self.path), next_step="free space, then run again"
                )
            os.fsync(stream.fileno())

    def _key(self) -> keys.PrivateKey:
        if self.key_path.exists():
            key = keys.private_key(self.key_path)
            if not (public := self.key_path.with_suffix(".pub")).exists():  # an earlier version was killed before it
                write_atomically(public, keys.public_bytes(key.public_key()))
            return key
        if self.head_path.exists() or self.path.exists():
            raise IntegrityError(
                "the key that signs the trail is missing",
                where=str(self.key_path),
                next_step=f"restore it from a backup; or move {self.root} away, and a new trail begins",
            )
        return keys.new_key(self.key_path)

    @contextmanager
    def _alone(self) -> Iterator[None]:
        try:
            with locked(self.root / ".lock"):
                yield
        except OSError as error:
            raise MachineError(
                f"the trail cannot be written: {error.strerror or error}",
                where=str(self.path),
                next_step="free space or set SEATRIAL_HOME",
            ) from error

    def _lines(self) -> list[bytes]:
        """Whole lines, oldest first."""
        try:
            with opened(self.path) as stream:
                return stream.read().split(b"\n")[:-1]
        except FileNotFoundError:
            return []
        except OSError as error:
            raise self._damaged(f"it cannot be read: {error.strerror or error}", f"{self.path}:1") from error

    def _torn(self) -> int:
        """Return how many bytes stand behind the last line's end."""
        try:
            with opened(self.path) as stream:
                return len(stream.read().rpartition(b"\n")[2])
        except FileNotFoundError:
            return 0

    def _backwards(self, holding: bytes = b"") -> Iterator[bytes]:
        """Yield whole lines, newest first, in blocks; blocks without `holding` may be passed over."""
        try:
            stream = self.path.open("rb")
        except FileNotFoundError:
            return
        with stream:
            at, rest = stream.seek(0, os.SEEK_END), b""
            while at:
                start = max(0, at - _BLOCK)
                stream.seek(start)
                block = stream.read(at - start) + rest
                first, end, others = block.partition(b"\n")
                if not end:
                    rest, at = block, start
                    continue
                rest, at = first, start
                if holding in others:
                    yield from (line for line in reversed(others.split(b"\n")) if line)
            if rest:
                yield rest

    def _damage(self, what: str, line: int, next_step: str = _BACKUP) -> Damage:
        return Damage(part="trail", what=what, where=f"{self.path}:{line}", next_step=next_step)

    def _damaged(self, what: str, where: str) -> IntegrityError:
        return IntegrityError(what, where=where, next_step=_BACKUP)


def moment(text: str) -> datetime:
    """Return the time that a text names: ISO 8601 (UTC where it names no zone), or ``now``.

    Raises:
        ValueError: it is no time.
    """
    if text == "now":
        return datetime.now(UTC)
    found = datetime.fromisoformat(text)
    return found if found.tzinfo else found.replace(tzinfo=UTC)
