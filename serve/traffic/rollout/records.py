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
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from seatrial.bench.records import journal
from seatrial.optimize.errors import IntegrityError, MissingError
from seatrial.optimize.locking import locked
from seatrial.optimize.names import checked
from seatrial.optimize.reading import decode, read_json, read_text
from seatrial.optimize.record import as_json
from seatrial.optimize.store import write_atomically

from ...errors import RolloutError
from .blocks import Block, Thresholds
from .decision import Decision, Observation
from .machine import Event, Rollout

SCHEMA = 1
_FOLDER = re.compile(r"[0-9]{1,9}-[0-9]{1,12}\.[0-9]{3}")


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
        self.model = checked(model, "model name")
        self.folder = home / model

    def start(self, rollout: Rollout) -> None:
        """Make this the model's rollout.

        Raises:
            RolloutError: another is still on its way, or the digest was rolled back and not lifted.
        """
        with locked(self.folder / "start.lock"):
            if self.exists() and not (running := self.load()).ended:
                raise RolloutError(
                    f"version {running.candidate} is still {running.label}",
                    where=self.model,
                    next_step="wait for its end, or end it with seatrial rollout abort",
                )
            if rollout.digest in (blocked := self.blocked()):
                raise RolloutError(
                    f"{rollout.digest} was rolled back: {blocked[rollout.digest]}",
                    where=self.model,
                    next_step=f"fix it, or lift the block by name: seatrial rollout lift {self.model} {rollout.digest}",
                )
            name = f"{rollout.candidate}-{rollout.started:.3f}"
            rollout.write(self.folder / name / "rollout.json")
            journal.append(self.folder / name / "log.jsonl", _line("start", rollout=rollout.to_json()))
            write_atomically(self.folder / "current", name.encode())

    def exists(self) -> bool:
        """Return whether this model ever had a rollout."""
        return (self.folder / "current").exists()

    def load(self) -> Rollout:
        """The newest rollout, where it stands.

        Raises:
            MissingError: this model never had one.
            IntegrityError: the file is not what this version of seatrial writes.
        """
        path = self._current / "rollout.json"
        try:
            found = Rollout.read(path, next_step=self._step)
        except FileNotFoundError as error:
            raise IntegrityError("this is not the state of a rollout", where=str(path), next_step=self._step) from error
        if found.model != self.model or not 0 <= found.step < len(found.plan.steps):
            raise IntegrityError("this is the state of another rollout", where=str(path), next_step=self._step)
        return found

    def save(self, rollout: Rollout) -> None:
        """Replace the state as a whole."""
        rollout.write(self._current / "rollout.json")

    def say(self, command: Event) -> None:
        """Write down an operator's word; whichever controller runs next hears it."""
        journal.append(self._current / "intents.jsonl", {"schema": SCHEMA, "command": command.value})

    def intents(self) -> list[Event]:
        """The operator's words so far, oldest first."""
        return journal.records(self._current / "intents.jsonl", SCHEMA, lambda line: Event(line["command"]))

    def learnt(self, thresholds: Thresholds) -> None:
        """Log the thresholds, once they are frozen."""
        journal.append(self._current / "log.jsonl", _line("thresholds", thresholds=as_json(thresholds)))

    def counted(self, block: Block) -> None:
        """Log a full block."""
        journal.append(self._current / "log.jsonl", _line("block", block=block.to_json()))

    def decided(self, entry: Entry) -> None:
        """Log a decision with everything it was made from, but the blocks, which are logged already."""
        value = {
            "observation": as_json(entry.observation),
            "event": entry.decision.event,
            "reason": entry.decision.reason,
            "before": _stand(entry.before),
            "after": _stand(entry.after),
            "blocks": entry.blocks,
        }
        journal.append(self._current / "log.jsonl", _line("decision", **value))

    def log(self) -> Log:
        """Everything logged, in order.

        Raises:
            IntegrityError: a line that this version of seatrial cannot read.
        """
        plan: Any = None
        blocks: list[Block] = []
        entries: list[Entry] = []
        thresholds: list[Thresholds] = []

        def read(line: dict[str, Any]) -> None:
            nonlocal plan
            match line["kind"]:
                case "start":
                    Rollout.from_json(line["rollout"])
                    plan = line["rollout"]["plan"]
                case "thresholds":
                    thresholds.append(decode(Thresholds, line["thresholds"], where=""))
                case "block":
                    blocks.append(Block.from_json(line["block"]))
                case "decision":
                    entries.append(_entry(line, plan, len(blocks)))

        journal.records(self._current / "log.jsonl", SCHEMA, read)
        last = thresholds[-1] if thresholds else None
        return Log(blocks=tuple(blocks), thresholds=last, entries=tuple(entries))

    def blocked(self) -> dict[str, str]:
        """Digests that were rolled back, with the reason."""
        path, step = (
            self.folder / "blocked.json",
            "restore it from a copy, or write {} into it, which lifts every block",
        )
        try:
            return decode(dict[str, str], read_json(path, next_step=step), where=str(path), next_step=step)
        except FileNotFoundError:
            return {}

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
            hint = f"blocked digests: {', '.join(found)}" if found else "no digest is blocked"
            raise MissingError(f"{digest} is not blocked", where=self.model, next_step=hint)
        del found[digest]
        write_atomically(self.folder / "blocked.json", json.dumps(found, indent=1).encode())

    @contextmanager
    def acting(self, *, patience: float = 1.0) -> Iterator[None]:
        """Be the one controller that acts for this model; released even by a kill.

        `patience` (seconds) is for a caller that only checks for a controller (`acted_on`), not for another controller.

        Raises:
            RolloutError: another controller holds it.
        """
        busy = RolloutError(
            "another controller is running for this model",
            where=self.model,
            next_step="check seatrial rollout status; commands reach the controller through the records",
        )
        with locked(self.folder / "controller.lock", seconds=patience, busy=busy):
            yield

    @property
    def acted_on(self) -> bool:
        """Return whether a controller runs now."""
        try:
            with self.acting(patience=0.0):
                return False
        except RolloutError:
            return True

    @property
    def _current(self) -> Path:
        path = self.folder / "current"
        try:
            name = read_text(path, next_step=self._step)
        except FileNotFoundError as error:
            raise MissingError(
                f"there is no rollout of {self.model}",
                where=str(self.folder),
                next_step="start one with seatrial rollout start",
            ) from error
        if not _FOLDER.fullmatch(name):
            raise IntegrityError("this is not the name of a rollout's folder", where=str(path), next_step=self._step)
        return self.folder / name

    @property
    def _step(self) -> str:
        """Return what to do about a damaged state."""
        current = self.folder / "current"
        return f"restore it from a copy, or abandon the rollout: remove {current}; its routes stay as they are"


def _stand(rollout: Rollout) -> dict[str, Any]:
    """Return where a rollout stands, without its plan, which is logged at its start."""
    return {name: value for name, value in rollout.to_json().items() if name != "plan"}


def _entry(line: dict[str, Any], plan: Any, counted: int) -> Entry:
    """One decision, of which at most the `counted` blocks before it can be evidence."""
    before, after = (Rollout.from_json(line[name] | {"plan": plan}) for name in ("before", "after"))
    entry = Entry(
        observation=decode(Observation, line["observation"], where=""),
        decision=decode(Decision, {"event": line["event"], "reason": line["reason"]}, where=""),
        before=before,
        after=after,
        blocks=line["blocks"],
    )
    steps = range(len(before.plan.steps))
    if before.step not in steps or after.step not in steps or line["blocks"] not in range(counted + 1):
        raise ValueError("a decision refers to missing steps or blocks")
    datetime.fromtimestamp(entry.observation.at, UTC)
    return entry


def _line(kind: str, **values: Any) -> dict[str, Any]:
    return {"schema": SCHEMA, "kind": kind, **values}
