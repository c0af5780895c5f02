"""Cases: reviews that somebody asked for of a single answer, kept beside the model's monitor."""

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from seatrial.optimize.environment import now
from seatrial.optimize.errors import ConfigError
from seatrial.optimize.record import Record

FOLDER = "cases"
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,127}")


@dataclass(frozen=True, slots=True, kw_only=True)
class Case(Record, schema=1, what="the record of a contested answer", next_step="restore it from your backup"):
    """A contested answer: why, when, and what its replay said at that time."""

    request: str
    contest: str
    at: str
    digest: str
    state: str = "open"
    replay: Mapping[str, Any] = field(default_factory=dict)


def opened(folder: Path, request: str, contest: str, digest: str, replay: Mapping[str, Any]) -> Case:
    """Open a review of a request; what was said before about the same request stays.

    Raises:
        ConfigError: an empty text, or an id that no file can be named by.
    """
    if not contest.strip():
        raise ConfigError("the reason is empty", where="--contest", next_step='say why: --contest "..."')
    case = Case(request=checked(request), contest=contest, at=now(), digest=digest, replay=dict(replay))
    number = len(list((folder / FOLDER).glob(f"{request}.*.json"))) + 1
    case.write(folder / FOLDER / f"{request}.{number}.json")
    return case


def listed(folder: Path) -> list[Case]:
    """Return all reviews, by time.

    Raises:
        IntegrityError: a record is damaged.
    """
    found = [Case.read(path) for path in sorted((folder / FOLDER).glob("*.json"))]
    return sorted(found, key=lambda case: case.at)


def checked(request: str) -> str:
    """Return a request's id.

    Raises:
        ConfigError: it is none.
    """
    if not _NAME.fullmatch(request):
        raise ConfigError(
            f"{request[:60]!r} is no id of a request",
            where="REQUEST",
            next_step="give the x-request-id of the answer; the edge writes it into each",
        )
    return request
