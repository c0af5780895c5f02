"""The audit trail: who did what to which model, as a chain of lines in which each names the digest of the one before.

Pure: entries, lines and their checks; `trail_file` keeps them. The last line is vouched for by the head, which is
signed.
"""

import json
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, Literal, get_args

from seatrial.optimize.artifact import canonical, digest_bytes, is_digest
from seatrial.optimize.plain import parse_json
from seatrial.optimize.record import Record

Event = Literal[
    "trained",
    "gated",
    "registered",
    "approved",
    "revoked",
    "placed",
    "switched",
    "rollout",
    "contested",
    "retired",
    "pushed",
    "rehearsed",
]
EVENTS: tuple[str, ...] = get_args(Event)
LINE_LIMIT = 1 << 20  # bytes of one line; an entry has some hundreds
_KEYS = frozenset({"schema", "seq", "at", "event", "actor", "model", "subject", "details", "previous"})
_TEXTS = ("at", "event", "actor", "model", "subject", "previous")


@dataclass(frozen=True, slots=True, kw_only=True)
class Entry(Record, schema=1, what="an entry of the trail"):
    """One act: `event` on `model`, by `actor`; `subject` is the digest of the artifact, or a release's label.

    `seq` counts from 1, `at` is the time in UTC (ISO 8601), `previous` the digest of the line before (empty for the
    first). `details` are JSON values of the event's own.
    """

    seq: int
    at: str
    event: Event
    actor: str
    model: str
    subject: str = ""
    details: Mapping[str, Any] = field(default_factory=dict)
    previous: str = ""

    def check(self) -> None:
        """Refuse a number below 1, a time that is none, and a digest that is none."""
        if self.seq < 1:
            raise ValueError(f"entry {self.seq} is below 1")
        datetime.fromisoformat(self.at)
        if self.previous and not is_digest(self.previous):
            raise ValueError("previous is not a digest")


@dataclass(frozen=True, slots=True, kw_only=True)
class Fault:
    """What is wrong with one line, counted from 1."""

    line: int
    what: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Share:
    """One version that was served at a time: its artifact's digest, and the fraction of live requests it took."""

    version: int
    digest: str
    share: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Served:
    """Versions that answered a model's live requests at one time, and since when that held.

    `changing` are the shares of the next routes where that time lies in the moment of their change: an answer is of
    the old ones or of the new ones then.
    """

    model: str
    at: str
    since: str
    entry: int
    shares: tuple[Share, ...]
    changing: tuple[Share, ...] = ()

    @property
    def digests(self) -> frozenset[str]:
        """Return the digests that may have answered."""
        return frozenset(each.digest for each in (*self.shares, *self.changing) if each.share > 0)


def line_of(entry: Entry) -> bytes:
    """Return the entry as a line, without its end."""
    return canonical(entry.to_json())


def checked_chain(lines: Iterable[bytes]) -> Iterator[tuple[Mapping[str, Any], str, Fault | None]]:
    """Yield each line's values, the digest of its bytes, and what is wrong with it: form, number, or place in the
    chain.

    Values of a line that cannot be read are empty.
    """
    previous = ""
    for number, line in enumerate(lines, start=1):
        digest = digest_bytes(line)
        values, why = _read(line)
        if not why and values["seq"] != number:
            why = f"it is entry {values['seq']}, entry {number} is expected here"
        if not why and values["previous"] != previous:
            why = "it does not follow the line before: a line was changed, dropped, added or moved"
        yield values, digest, Fault(line=number, what=why) if why else None
        previous = digest


def _read(line: bytes) -> tuple[dict[str, Any], str]:
    """Return the values of a line, and what is wrong with their form."""
    try:
        values = json.loads(line)
    except (ValueError, RecursionError):
        return {}, "it is not JSON"
    if not isinstance(values, dict) or not values.keys() <= _KEYS or values.get("schema") != 1:
        return {}, "it is not an entry of this version"
    if type(values.get("seq")) is not int or not isinstance(values.get("details", {}), dict):
        return {}, "it is not an entry of this version"
    if any(not isinstance(values.get(name), str) for name in _TEXTS) or values["event"] not in EVENTS:
        return {}, "it is not an entry of this version"
    return values, ""


def entry_of(line: bytes, where: str = "") -> Entry:
    """Return the entry of a line.

    Raises:
        IntegrityError: it is none.
    """
    return Entry.parse(line, where=where)


def needle(model: str) -> bytes:
    """Return the bytes that stand in every line of a model."""
    return b'"model":' + json.dumps(model).encode()


def served_at(lines: Iterable[bytes], model: str, at: datetime) -> Served | None:
    """Return what `lines`, newest first, say was serving at that time; None where no switch came before.

    The first switch at or before that time decides; one that was under way then is named too. A clock that was set
    back is followed as it stood.
    """
    wanted, changing = needle(model), tuple[Share, ...]()
    for line in lines:
        if wanted not in line or b'"switched"' not in line:
            continue
        values = parse_json(line)
        if values.get("event") != "switched" or values.get("model") != model:
            continue
        shares = tuple(Share(**each) for each in values["details"].get("shares", ()))
        if datetime.fromisoformat(values["at"]) > at:
            begun = values["details"].get("begun", values["at"])
            changing = shares if datetime.fromisoformat(begun) <= at else ()
            continue
        return Served(
            model=model,
            at=at.isoformat(),
            since=values["at"],
            entry=values["seq"],
            shares=shares,
            changing=changing,
        )
    return None
