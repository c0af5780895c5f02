"""The rollout's records on disk: where it stands, its log, the operator's words, and digests that were rolled back.

    HOME/rollouts/MODEL/current                 name of the newest rollout's folder
    HOME/rollouts/MODEL/blocked.json            digests that may not start again, with the reason
    HOME/rollouts/MODEL/controller.lock         held by the one controller that acts
    HOME/rollouts/MODEL/NAME/rollout.json       the state, replaced as a whole
    HOME/rollouts/MODEL/NAME/log.jsonl          start, thresholds, blocks, decisions: all that a replay needs
    HOME/rollouts/MODEL/NAME/intents.jsonl      pause, resume, abort, promote, rollback, in the order they were said

Reads and writes; decides nothing. State is staged and renamed, lines are appended whole: a kill leaves the last state.
"""

import json
import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from functools import cache
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout
from pydantic import TypeAdapter, ValidationError

from bench.records import journal
from optimize.errors import IntegrityError, MissingError
from optimize.store import write_atomically

from ...errors import RolloutError
from .blocks import Block, Thresholds
from .decision import Decision, Observation
from .machine import Event, Rollout

SCHEMA = 1
_MODEL = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,127}")


@dataclass(frozen=True, slots=True, kw_only=True)
class Entry:
    """One logged decision: what was seen, where the rollout stood before and after, and by how many blocks."""

    observation: Observation
    decision: Decision
    before: Rollout
    after: Rollout
    blocks: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Log:
    """The whole log, read."""

    blocks: tuple[Block, ...]
    thresholds: Thresholds | None
    entries: tuple[Entry, ...]


class Records:
    """The records of one model's rollouts under `home` (``SEATRIAL_HOME/rollouts``)."""

    def __init__(self, home: Path, model: str) -> None:
        if not _MODEL.fullmatch(model):
            raise MissingError(f"{model!r} is no model's name", next_step="letters, digits, dot, dash, underscore")
        self.model = model
        self.folder = home / model

    def start(self, rollout: Rollout) -> None:
        """Make this the model's rollout.

        Raises:
            RolloutError: another is still on its way, or the digest was rolled back and not lifted.
        """
        self.folder.mkdir(parents=True, exist_ok=True)
        with FileLock(self.folder / "start.lock"):
            if self.exists() and not (running := self.load()).ended:
                raise RolloutError(
                    f"version {running.candidate} is still {running.label}",
                    where=self.model,
                    next_step="let it end, or seatrial rollout abort it",
                )
            if rollout.digest in (blocked := self.blocked()):
                raise RolloutError(
                    f"{rollout.digest} was rolled back: {blocked[rollout.digest]}",
                    where=self.model,
                    next_step=f"mend it, or lift the block by name: seatrial rollout lift {self.model} "
                    f"{rollout.digest}",
                )
            name = f"{rollout.candidate}-{rollout.started:.3f}"
            write_atomically(self.folder / name / "rollout.json", _rollout().dump_json(rollout))
            journal.append(self.folder / name / "log.jsonl", _line("start", rollout=_dump(rollout, plan=True)))
            write_atomically(self.folder / "current", name.encode())

    def exists(self) -> bool:
        """Whether this model ever had a rollout."""
        return (self.folder / "current").exists()

    def load(self) -> Rollout:
        """The newest rollout, where it stands.

        Raises:
            MissingError: this model never had one.
            IntegrityError: the file is not what this version of seatrial writes.
        """
        path = self._current / "rollout.json"
        try:
            return _rollout().validate_json(path.read_bytes())
        except (OSError, ValidationError) as error:
            raise IntegrityError(
                "cannot be read as a rollout", where=str(path), next_step="use the version of seatrial that wrote it"
            ) from error

    def save(self, rollout: Rollout) -> None:
        """Replace the state as a whole."""
        write_atomically(self._current / "rollout.json", _rollout().dump_json(rollout))

    def say(self, command: Event) -> None:
        """Write down an operator's word; whichever controller runs next hears it."""
        journal.append(self._current / "intents.jsonl", {"schema": SCHEMA, "command": command.value})

    def intents(self) -> list[Event]:
        """The operator's words so far, oldest first."""
        return [Event(line["command"]) for line in journal.read(self._current / "intents.jsonl", SCHEMA)]

    def learnt(self, thresholds: Thresholds) -> None:
        """Log the thresholds, once they are frozen."""
        journal.append(self._current / "log.jsonl", _line("thresholds", thresholds=asdict(thresholds)))

    def counted(self, block: Block) -> None:
        """Log a full block."""
        journal.append(self._current / "log.jsonl", _line("block", block=block.to_json()))

    def decided(self, entry: Entry) -> None:
        """Log a decision with everything it was made from, but the blocks, which are logged already."""
        value = {
            "observation": _observation().dump_python(entry.observation, mode="json"),
            "event": entry.decision.event,
            "reason": entry.decision.reason,
            "before": _dump(entry.before),
            "after": _dump(entry.after),
            "blocks": entry.blocks,
        }
        journal.append(self._current / "log.jsonl", _line("decision", **value))

    def log(self) -> Log:
        """Everything logged, in order.

        Raises:
            IntegrityError: a line that this version of seatrial cannot read.
        """
        path = self._current / "log.jsonl"
        plan: Any = None
        blocks: list[Block] = []
        entries: list[Entry] = []
        thresholds: Thresholds | None = None
        try:
            for line in journal.read(path, SCHEMA):
                match line["kind"]:
                    case "start":
                        plan = line["rollout"]["plan"]
                    case "thresholds":
                        thresholds = Thresholds(**line["thresholds"])
                    case "block":
                        blocks.append(Block.from_json(line["block"]))
                    case "decision":
                        entries.append(_entry(line, plan))
        except (KeyError, TypeError, ValueError) as error:
            raise IntegrityError(
                f"a line cannot be read: {error}", where=str(path), next_step="use the seatrial that wrote it"
            ) from error
        return Log(blocks=tuple(blocks), thresholds=thresholds, entries=tuple(entries))

    def blocked(self) -> dict[str, str]:
        """Digests that were rolled back, with the reason."""
        try:
            found = json.loads((self.folder / "blocked.json").read_text())
        except FileNotFoundError:
            return {}
        except ValueError as error:
            raise IntegrityError("not JSON", where=str(self.folder / "blocked.json"), next_step="mend it") from error
        return {str(digest): str(reason) for digest, reason in found.items()}

    def block(self, digest: str, reason: str) -> None:
        """Let this digest not start again until it is lifted by name; the first reason stays."""
        found = self.blocked()
        if digest not in found:
            write_atomically(self.folder / "blocked.json", json.dumps(found | {digest: reason}, indent=1).encode())

    def lift(self, digest: str) -> None:
        """Let this digest start again.

        Raises:
            MissingError: it is not blocked.
        """
        found = self.blocked()
        if digest not in found:
            hint = f"blocked are: {', '.join(found)}" if found else "nothing is blocked"
            raise MissingError(f"{digest} is not blocked", where=self.model, next_step=hint)
        del found[digest]
        write_atomically(self.folder / "blocked.json", json.dumps(found, indent=1).encode())

    @contextmanager
    def acting(self, *, patience: float = 1.0) -> Iterator[None]:
        """Be the one controller that acts for this model; released even by a kill.

        `patience` (seconds) is for somebody who only looks whether one acts (`acted_on`), not for another controller.

        Raises:
            RolloutError: another controller holds it.
        """
        self.folder.mkdir(parents=True, exist_ok=True)
        lock = FileLock(self.folder / "controller.lock", timeout=patience)
        try:
            lock.acquire()
        except Timeout as error:
            raise RolloutError(
                "another controller acts for this model",
                where=self.model,
                next_step="look with seatrial rollout status; commands reach it through the records",
            ) from error
        try:
            yield
        finally:
            lock.release()

    @property
    def acted_on(self) -> bool:
        """Whether a controller runs now."""
        try:
            with self.acting(patience=0.0):
                return False
        except RolloutError:
            return True

    @property
    def _current(self) -> Path:
        try:
            return self.folder / (self.folder / "current").read_text()
        except FileNotFoundError as error:
            raise MissingError(
                f"no rollout of {self.model}", where=str(self.folder), next_step="seatrial rollout start one"
            ) from error


@cache
def _rollout() -> TypeAdapter[Rollout]:
    return TypeAdapter(Rollout)


@cache
def _observation() -> TypeAdapter[Observation]:
    return TypeAdapter(Observation)


def _dump(rollout: Rollout, *, plan: bool = False) -> dict[str, Any]:
    value: dict[str, Any] = _rollout().dump_python(rollout, mode="json", exclude=None if plan else {"plan"})
    return value


def _entry(line: dict[str, Any], plan: Any) -> Entry:
    before, after = (_rollout().validate_python(line[name] | {"plan": plan}) for name in ("before", "after"))
    event = Event(line["event"]) if line["event"] else None
    return Entry(
        observation=_observation().validate_python(line["observation"]),
        decision=Decision(event=event, reason=line["reason"]),
        before=before,
        after=after,
        blocks=line["blocks"],
    )


def _line(kind: str, **values: Any) -> dict[str, Any]:
    return {"schema": SCHEMA, "kind": kind, **values}
