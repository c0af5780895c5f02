"""The vault of a model's captured rows: the key, sealing rows into segments, and reading segments back.

Rows become Parquet in memory (DuckDB over memory files), so that nothing in the clear is ever a file on disk.
"""

import hashlib
import hmac
import json
import os
import secrets
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from seatrial.optimize.errors import ConfigError, IntegrityError, MissingError
from seatrial.optimize.plain import read_plain, write_atomically, write_once

from .policy import FACTS, TIME, Capture
from .rows import Row
from .segments import NONCE, Head, expired, next_path, parted, paths

_BYTES = 32
LOST = 0.01  # of the segments, which may be unreadable where one learns
FOLDER = "captured"
KEY = "capture.key"


@dataclass(frozen=True, slots=True, kw_only=True)
class Secret:
    """The secret of one model's capture."""

    raw: bytes = field(repr=False)

    @property
    def hashing(self) -> bytes:
        """The key of hashed fields."""
        return self._derived(b"seatrial capture: hash")

    @property
    def sealing(self) -> AESGCM:
        """The cipher of segments."""
        return AESGCM(self._derived(b"seatrial capture: seal"))

    @property
    def name(self) -> str:
        """Tell keys apart without telling anything of them."""
        return self._derived(b"seatrial capture: name").hex()[:16]

    def _derived(self, what: bytes) -> bytes:
        return hmac.new(self.raw, what, hashlib.sha256).digest()


@dataclass(frozen=True, slots=True, kw_only=True)
class Read:
    """Rows that were read into `connection`, table ``rows``, and why segments were skipped; `policy` of the rows."""

    connection: Any
    segments: int
    skipped: Counter[str]
    policy: Mapping[str, Any]

    @property
    def notes(self) -> list[str]:
        """Return a line for each reason to skip segments."""
        return [f"{count} of {self.segments} segments were skipped: {why}" for why, count in self.skipped.items()]

    def refuse_lossy(self, where: Path) -> None:
        """Refuse to learn from what is not whole.

        Raises:
            IntegrityError: more than 1 % of the segments were skipped.
        """
        if self.skipped.total() > LOST * self.segments:
            raise IntegrityError(
                "; ".join(self.notes) + ": too many to learn from",
                where=str(where),
                next_step="restore the segments or the key, or move what is lost away and learn from the rest",
            )


@dataclass(frozen=True, slots=True, kw_only=True)
class Vault:
    """The captured rows of one model below its monitor's folder."""

    model: str
    home: Path

    @property
    def folder(self) -> Path:
        """Return where the segments lie."""
        return self.home / FOLDER

    def secret(self, *, make: bool = False) -> Secret:
        """Return the key, made where asked for and there is neither a key nor a segment that one would belong to.

        Raises:
            MissingError: there is none.
            ConfigError: other users can read it, or it is no key.
        """
        path = self.home / KEY
        if make and not path.exists():
            if paths(self.folder):
                raise MissingError("the key is missing, but segments are here", where=str(path), next_step=_KEY_STEP)
            self.home.mkdir(parents=True, exist_ok=True)
            write_once(path, secrets.token_bytes(_BYTES), mode=0o600)
        try:
            mode, raw = path.stat().st_mode, read_plain(path, _BYTES + 1)
        except FileNotFoundError as error:
            raise MissingError(
                "the key of the captured rows is missing", where=str(path), next_step=_KEY_STEP
            ) from error
        except OSError as error:
            raise ConfigError(f"the key cannot be read: {error}", where=str(path), next_step=_KEY_STEP) from error
        if mode & 0o077:
            raise ConfigError("the key is readable for other users", where=str(path), next_step=f"chmod 600 {path}")
        if len(raw) != _BYTES:
            raise ConfigError(f"the key has {len(raw)} bytes, not {_BYTES}", where=str(path), next_step=_KEY_STEP)
        return Secret(raw=raw)

    def seal(self, rows: Sequence[Row], capture: Capture, secret: Secret) -> Path:
        """Write rows as one segment: on return it is on disk, whole."""
        self.folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        times = [float(each[TIME]) for each in rows]
        head = Head(
            model=self.model,
            policy=capture.policy,
            key=secret.name,
            rows=len(rows),
            first=min(times),
            last=max(times),
        )
        told, nonce = head.to_bytes(), secrets.token_bytes(NONCE)
        columns = [name for name, kept in capture.fields.items() if kept.keep != "drop"]
        sealed = told + nonce + secret.sealing.encrypt(nonce, _parquet(rows, columns), told)
        path = next_path(self.folder, head.first)
        write_atomically(path, sealed)
        return path

    def forget(self, retention: float) -> int:
        """Delete the segments older than that; return how many."""
        found = list(expired(self.folder, retention))
        for path in found:
            path.unlink(missing_ok=True)
        return len(found)

    @contextmanager
    def read(self, secret: Secret, *, policy: str = "") -> Iterator[Read]:
        """Read all segments of one policy, by its digest, else of the newest segment's; skipped ones are counted.

        Raises:
            MissingError: there is no segment that can be read.
        """
        import duckdb

        skipped, known, count = Counter[str](), dict[str, Any](), 0
        with duckdb.connect() as connection:
            _in_memory(connection)
            for path in reversed(paths(self.folder)):
                try:
                    head, table = self._opened(path, secret)
                    count += 1
                except FileNotFoundError:  # it has just become too old
                    continue
                except IntegrityError as error:
                    count += 1
                    skipped[error.what] += 1
                    continue
                if head.digest != (policy or head.digest):
                    skipped["captured by another policy"] += 1
                    continue
                policy, known = head.digest, dict(head.policy)
                _added(connection, table)
            if not known:
                why = f" ({', '.join(skipped)})" if skipped else ""
                raise MissingError(
                    f"no captured rows can be read{why}", where=str(self.folder), next_step="seatrial record PLAN"
                )
            yield Read(connection=connection, segments=count, skipped=skipped, policy=known)

    @contextmanager
    def holding(self, secret: Secret, request: str) -> Iterator[Read]:
        """Read all segments of the policy by which that request was captured, the newest's where it was not.

        Raises:
            MissingError: there is no segment that can be read.
        """
        with self.read(secret, policy=self._policy_of(secret, request)) as read:
            yield read

    def _policy_of(self, secret: Secret, request: str) -> str:
        import duckdb

        with duckdb.connect() as connection:
            _in_memory(connection)
            for path in reversed(paths(self.folder)):
                with suppress(FileNotFoundError, IntegrityError):
                    head, table = self._opened(path, secret)
                    with memory_file(table) as descriptor:
                        source = f"select 1 from read_parquet('{path_of(descriptor)}') where request = ? limit 1"
                        if connection.execute(source, [request]).fetchall():
                            return head.digest
        return ""

    def _opened(self, path: Path, secret: Secret) -> tuple[Head, bytes]:
        """Return head and table of a segment.

        Raises:
            IntegrityError: it is damaged, of a later version, or of another key.
        """
        head, told, sealed = parted(path.read_bytes(), str(path))
        if head.key != secret.name:
            raise IntegrityError("sealed by another key", where=str(path), next_step=_KEY_STEP)
        try:
            return head, secret.sealing.decrypt(sealed[:NONCE], sealed[NONCE:], told)
        except InvalidTag as error:
            raise IntegrityError(
                "damaged: its content is not what was sealed", where=str(path), next_step="restore it"
            ) from error


_KEY_STEP = f"restore {KEY} from your backup; without it the segments cannot be read, and may be moved away"


@contextmanager
def memory_file(content: bytes = b"") -> Iterator[int]:
    """A file in memory, by its descriptor; DuckDB opens it by its path in /proc."""
    descriptor = os.memfd_create("seatrial", os.MFD_CLOEXEC)
    try:
        view = memoryview(content)
        while view:
            view = view[os.write(descriptor, view) :]
        yield descriptor
    finally:
        with suppress(OSError):
            os.close(descriptor)


def path_of(descriptor: int) -> str:
    """Return the path under which this process opens a descriptor again."""
    return f"/proc/self/fd/{descriptor}"


@contextmanager
def as_parquet(read: Read) -> Iterator[Path]:
    """Return the path of a Parquet file in memory with the rows that were read whole.

    Requests that failed, or of which a body is missing, are left out: their gaps say nothing about the features.
    """
    with memory_file() as made:
        whole = "select * from rows where reason = ''"
        read.connection.execute(f"copy ({whole}) to '{path_of(made)}' (format parquet, use_tmp_file false)")
        yield Path(path_of(made))


def _parquet(rows: Sequence[Row], columns: Sequence[str]) -> bytes:
    import duckdb

    types = dict(FACTS) | dict.fromkeys(columns, "VARCHAR")
    lines = b"".join(json.dumps({name: each.get(name) for name in types}).encode() + b"\n" for each in rows)
    wanted = ", ".join(f"{_quoted(name)}: '{kind}'" for name, kind in types.items())
    with ExitStack() as stack:
        source, made = stack.enter_context(memory_file(lines)), stack.enter_context(memory_file())
        connection = stack.enter_context(duckdb.connect())
        _in_memory(connection)
        reader = (
            f"read_json('{path_of(source)}', format = 'newline_delimited', compression = 'uncompressed', "
            f"maximum_object_size = {max(16 << 20, len(lines) + 1)}, columns = {{{wanted}}})"
        )
        connection.execute(
            f"copy (select * from {reader}) to '{path_of(made)}' (format parquet, compression zstd, use_tmp_file false)"
        )
        size = os.fstat(made).st_size
        return os.pread(made, size, 0)


def _added(connection: Any, table: bytes) -> None:
    with memory_file(table) as descriptor:
        source = f"select * from read_parquet('{path_of(descriptor)}')"
        connection.execute(f"create table if not exists rows as {source} limit 0")
        connection.execute(f"insert into rows by name {source}")


def _in_memory(connection: Any) -> None:
    """Have DuckDB write nothing of its own to disk, where more than fits into memory would go."""
    connection.execute("set threads = 1; set temp_directory = ''; set TimeZone = 'UTC'")


def _quoted(name: str) -> str:
    return '"' + name.replace('"', '""') + '"'
