"""Outcomes: what became known of a request after it was answered, by the request's id.

A label, a correction and a conversion are one truth of a request, so a second value is a conflict: the first stays, the
other is kept apart. Tickets, reviews and revenue are events, as many as come. The same line twice changes nothing. Only
a random selection says how good the model is; others are for training, with their selection noted. Pure.
"""

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from typing import Any, Literal, get_args

from seatrial.optimize.record import Record

Kind = Literal["label", "correction", "ticket", "review", "conversion", "revenue"]
KINDS: tuple[Kind, ...] = get_args(Kind)
RANDOM = "random"
UNKNOWN = "unknown"
"""The selection of an outcome that says none: it is not taken for random."""
_SINGLE: frozenset[Kind] = frozenset({"label", "correction", "conversion"})
_TRUTH: frozenset[Kind] = frozenset({"label", "correction"})
_NUMBER: frozenset[Kind] = frozenset({"review", "conversion", "revenue"})
_ALIASES: Mapping[str, tuple[str, ...]] = {
    "request": ("request", "request_id"),
    "kind": ("kind",),
    "value": ("value", "label"),
    "at": ("at", "time"),
    "chosen_by": ("chosen_by",),
    "by": ("by",),
}
_YES, _NO = ("true", "yes"), ("false", "no")
_LONGEST = 10_000  # characters of a value: chosen


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome(Record):
    """What became known of one request. `value` is the class of a label or correction, a number, or a ticket's text.

    `at` is when it became known and `added` when it was given to us, in seconds of the Unix epoch; `at` is None where
    the file did not say. `chosen_by` is why this request was looked into: ``random``, or something else.
    """

    request: str
    kind: Kind
    value: str
    at: float | None
    added: float
    chosen_by: str
    by: str = ""

    @property
    def moment(self) -> float:
        """When it became known, as far as that is known."""
        return self.added if self.at is None else self.at

    @property
    def number(self) -> float:
        """The value as a number; 1 of a ticket."""
        return float(self.value) if self.kind in _NUMBER else 1.0

    @property
    def single(self) -> bool:
        """Whether a request has one of its kind."""
        return self.kind in _SINGLE

    @property
    def key(self) -> tuple[str, ...]:
        """What two outcomes share that say the same thing, apart from the value of a single one."""
        return (self.request, self.kind) if self.single else (self.request, self.kind, self.value, str(self.at))


@dataclass(frozen=True, slots=True, kw_only=True)
class Conflict(Record):
    """Two values of one truth: the one that stands, and the one that was offered later and does not count."""

    stands: Outcome
    offered: Outcome


@dataclass(frozen=True, slots=True, kw_only=True)
class Added:
    """What a file brought: new outcomes, how many were known already, and values that differ from what stands."""

    fresh: tuple[Outcome, ...]
    same: int
    conflicts: tuple[Conflict, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Truth:
    """The right class of a request, when it became known, and why the request was looked into."""

    value: str
    moment: float
    chosen_by: str

    @property
    def random(self) -> bool:
        """Whether it may say how good the model is."""
        return self.chosen_by == RANDOM


def outcome_of(row: Mapping[str, Any], *, added: float, kind: str = "label", queued: Mapping[str, str]) -> Outcome:
    """Return the outcome of a row of a file; `kind` is for rows that say none, `queued` why requests were chosen.

    Raises:
        ValueError: no request or value, an unknown kind, or a value or time that cannot be read.
    """
    cells = {name: _first(row, names) for name, names in _ALIASES.items()}
    if odd := [name for name, cell in cells.items() if isinstance(cell, dict | list)]:
        raise ValueError(f"{odd[0]} is a list or an object, where a text or a number is needed")
    found = {name: _text(cell) for name, cell in cells.items()}
    if any("\0" in text or any("\ud800" <= each <= "\udfff" for each in text) for text in found.values()):
        raise ValueError("it holds a NUL or half of a surrogate pair, which no text has")
    if not found["request"]:
        raise ValueError("it names no request: a column request (or request_id) is needed")
    known = found["kind"] or kind
    named = next((each for each in KINDS if each == known), None)
    if named is None:
        raise ValueError(f"{known!r} is not a kind of outcome; there are {', '.join(KINDS)}")
    if not found["value"] and named != "ticket":
        raise ValueError("it has no value")
    if len(found["value"]) > _LONGEST:
        raise ValueError(f"its value has {len(found['value'])} characters, at most {_LONGEST} are kept")
    return Outcome(
        request=found["request"],
        kind=named,
        value=_number(named, found["value"]) if named in _NUMBER else found["value"],
        at=_time(found["at"]) if found["at"] else None,
        added=added,
        chosen_by=found["chosen_by"] or queued.get(found["request"], UNKNOWN),
        by=found["by"],
    )


def added(known: Iterable[Outcome], offered: Sequence[Outcome], *, replaces: bool = False) -> Added:
    """Return what is new of the offered outcomes; with `replaces` another value is the new truth, not a conflict."""
    there = {each.key: each for each in known}
    fresh, conflicts, same = list[Outcome](), list[Conflict](), 0
    for each in offered:
        before = there.get(each.key)
        if before is not None and before.value == each.value:
            same += 1
        elif before is not None and not replaces:
            conflicts.append(Conflict(stands=before, offered=each))
        else:
            there[each.key] = each
            fresh.append(each)
    return Added(fresh=tuple(fresh), same=same, conflicts=tuple(conflicts))


def standing(outcomes: Iterable[Outcome]) -> tuple[Outcome, ...]:
    """Return the outcomes that count, oldest first: of a single kind the last one that was added."""
    return tuple({each.key: each for each in outcomes}.values())


def truths(outcomes: Iterable[Outcome]) -> dict[str, Truth]:
    """Return the right class by request: a correction goes before a label.

    The request counts as random where its label was: that somebody corrected it later selects nothing.
    """
    found = dict[str, Truth]()
    for each in sorted(standing(outcomes), key=lambda outcome: outcome.kind != "label"):
        if each.kind not in _TRUTH:
            continue
        made = Truth(value=each.value, moment=each.moment, chosen_by=each.chosen_by)
        label = found.get(each.request)
        if label is not None:
            made = replace(made, chosen_by=label.chosen_by if label.random else made.chosen_by, moment=label.moment)
        found[each.request] = made
    return found


def _first(row: Mapping[str, Any], names: Sequence[str]) -> Any:
    return next((row[name] for name in names if row.get(name) not in (None, "")), None)


def _text(value: Any) -> str:
    """Return a cell as text; 3 and 3.0 are one class, since files do not keep the difference."""
    if value is None or (isinstance(value, float) and math.isnan(value)):
        return ""
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, datetime):
        return (value if value.tzinfo else value.replace(tzinfo=UTC)).isoformat()
    return str(int(value)) if isinstance(value, float) and value.is_integer() else str(value).strip()


def _number(kind: Kind, text: str) -> str:
    """Return a number in one form, so that 1, 1.0 and true of a conversion are the same."""
    low = text.lower()
    if kind == "conversion" and low in (*_YES, *_NO):
        return "1" if low in _YES else "0"
    try:
        value = float(text)
    except ValueError as error:
        raise ValueError(f"{text[:40]!r} is not a number, which a {kind} needs") from error
    if not math.isfinite(value):
        raise ValueError(f"{text[:40]!r} is not a finite number")
    if kind == "conversion" and value not in (0.0, 1.0):
        raise ValueError(f"a conversion is 0 or 1, got {text[:40]!r}")
    return f"{value:g}" if float(f"{value:g}") == value else repr(value)


def _time(text: str) -> float:
    """Return ISO 8601, or seconds since 1970, as seconds of the Unix epoch."""
    try:
        moment = float(text)
    except ValueError:
        try:
            read = datetime.fromisoformat(text)
        except ValueError as error:
            raise ValueError(f"{text[:40]!r} is not a time: write ISO 8601, or seconds since 1970") from error
        moment = (read if read.tzinfo else read.replace(tzinfo=UTC)).timestamp()
    if not math.isfinite(moment):
        raise ValueError(f"{text[:40]!r} is not a time")
    return moment
