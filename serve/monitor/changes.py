"""Changes around a model that may explain an alarm: deployments, and events of feature stores and pipelines.

People and programs add theirs by ``seatrial changes add``; what seatrial itself did is read from its journals
(`deploys`). A change is held against an alarm in `suspects`.
"""

import math
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Literal, get_args

from seatrial.bench.records import journal
from seatrial.optimize.errors import ConfigError
from seatrial.optimize.record import Record

Kind = Literal["deploy", "feature-store", "pipeline", "other"]
KINDS: tuple[Kind, ...] = get_args(Kind)
SCHEMA = 1
_LONGEST = 500  # characters of a text
_FILE = "changes.jsonl"


@dataclass(frozen=True, slots=True, kw_only=True)
class Change(Record, schema=SCHEMA, what="a change"):
    """Something that changed at a time (seconds of the Unix epoch). `ours` was read from a journal of seatrial.

    `moved_traffic` says of a deployment that requests were answered by another version from then on, `undo` is the
    command that takes it back.
    """

    at: float
    kind: Kind
    text: str
    ours: bool = False
    moved_traffic: bool = False
    undo: str = ""

    def check(self) -> None:
        """Refuse a time that is none."""
        moment(self.at)


def moment(seconds: float) -> str:
    """Return a time as text.

    Raises:
        ValueError: it is beyond the calendar.
    """
    try:
        return datetime.fromtimestamp(seconds, UTC).strftime("%Y-%m-%d %H:%M UTC")
    except (OverflowError, OSError) as error:
        raise ValueError(f"{seconds} is beyond the calendar") from error


def add(folder: Path, change: Change) -> bool:
    """Add a change to those of a model's monitor; returns whether it was new.

    Raises:
        ConfigError: an empty or long text, or control characters in it.
        MachineError: the disk refused.
    """
    text = change.text.strip()
    if not text or len(text) > _LONGEST or not text.isprintable() or not math.isfinite(change.at):
        raise ConfigError(
            f"a text of 1 to {_LONGEST} printable characters in one line is needed",
            where="TEXT",
            next_step="say what changed, and where",
        )
    if change in added(folder):
        return False
    folder.mkdir(parents=True, exist_ok=True)
    journal.append(folder / _FILE, change.to_json())
    return True


def added(folder: Path) -> list[Change]:
    """Return the changes that were added, in the order of their times.

    Raises:
        IntegrityError: a line that is damaged.
    """
    found = journal.records(folder / _FILE, SCHEMA, Change.from_json)
    return sorted(found, key=lambda change: change.at)
