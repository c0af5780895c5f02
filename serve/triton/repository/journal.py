"""The journal of a model's switches: what was begun, how far it came, and what is to be done about it after a crash.

One file per model, beside the repository and not under SEATRIAL_HOME: it speaks of that repository's config.pbtxt, so
it must travel with it to another machine and be the same for every user who switches there. Written by rename and
fsynced, one state at a time; the holder of `lock` may write. Talks to no server.

A switch passes three states, and a crash leaves one of them:

    ========  ==================================  ============================================================
    state     what is certain                     what recovery does, by what the server serves
    ========  ==================================  ============================================================
    intent    nothing, `before` can be served     `after`: prove it again and finish; else, or no server: undo
    applied   `after` loaded and was proven       finish: the disk says `after`, a server that runs serves it
    verified  disk and server were read back      nothing
    ========  ==================================  ============================================================
"""

from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from seatrial.optimize.errors import MachineError
from seatrial.optimize.locking import locked
from seatrial.optimize.record import Record

State = Literal["intent", "applied", "verified"]
Serving = Literal["after", "before", "other", "down"]
Remedy = Literal["finish", "undo", "nothing"]

STATES: tuple[State, ...] = ("intent", "applied", "verified")
SERVINGS: tuple[Serving, ...] = ("after", "before", "other", "down")
RECOVERY: Mapping[tuple[State, Serving], Remedy] = {
    ("intent", "after"): "finish",
    ("intent", "before"): "undo",
    ("intent", "other"): "undo",
    ("intent", "down"): "undo",
    ("applied", "after"): "finish",
    ("applied", "before"): "finish",
    ("applied", "other"): "finish",
    ("applied", "down"): "finish",
    ("verified", "after"): "nothing",
    ("verified", "before"): "nothing",
    ("verified", "other"): "nothing",
    ("verified", "down"): "nothing",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Failure:
    """Failed loads of those bytes: the number of attempts, and the last reason."""

    tries: int
    reason: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Entry(
    Record,
    schema=1,
    what="the journal of switches",
    next_step="check that config.pbtxt lists the wanted versions, move the file away, and switch again",
):
    """The last switch of a model: from the versions `before` to those `after`, and how far it came.

    `digests` are the versions' bytes when they were first loaded; `failures` counts by such a digest, so that the same
    bytes under another number are not tried all over again.
    """

    model: str
    state: State
    before: tuple[int, ...]
    after: tuple[int, ...]
    at: str = ""
    digests: Mapping[int, str] = field(default_factory=dict)
    failures: Mapping[str, Failure] = field(default_factory=dict)


def serving_of(entry: Entry, ready: frozenset[int] | None) -> Serving:
    """Return the versions that the server serves, as in the entry; None if no server runs."""
    if ready is None:
        return "down"
    if ready == frozenset(entry.after):
        return "after"
    return "before" if ready == frozenset(entry.before) else "other"


def journal_path(repository: Path, model: str) -> Path:
    """Return the path of a model's journal."""
    repository = repository.absolute()
    return repository.parent / ".seatrial" / "switching" / repository.name / f"{model}.json"


def read(repository: Path, model: str) -> Entry | None:
    """The model's last switch; None where it was never switched.

    Raises:
        IntegrityError: the file was changed by hand, or another version wrote it.
    """
    return Entry.find(journal_path(repository, model))


def write(repository: Path, entry: Entry) -> None:
    """Make the entry the model's last word; on disk when this returns."""
    path = journal_path(repository, entry.model)
    try:
        entry.write(path)
    except OSError as error:
        raise MachineError(
            f"cannot write the journal of switches: {error.strerror or error}",
            where=str(path),
            next_step="free space there, or allow this user to write there",
        ) from error


def journaled(repository: Path) -> tuple[str, ...]:
    """Models with a journal."""
    return tuple(sorted(path.stem for path in journal_path(repository, "x").parent.glob("*.json")))


@contextmanager
def lock(repository: Path, model: str, *, timeout: float = 60.0) -> Iterator[None]:
    """The right to switch or heal that model; the kernel takes it back from a process that dies.

    Raises:
        MachineError: another process holds it for longer than `timeout` seconds.
    """
    path = journal_path(repository, model).with_suffix(".lock")
    busy = MachineError(
        f"another process has been switching {model} for {timeout:g} seconds",
        where=str(path),
        next_step="wait for that process, or end it: the next switch then finishes or undoes its work",
    )
    with ExitStack() as held:
        try:
            held.enter_context(locked(path, seconds=timeout, busy=busy))
        except OSError as error:
            raise MachineError(
                f"cannot lock the journal of switches: {error.strerror or error}",
                where=str(path),
                next_step="allow this user to write there",
            ) from error
        yield
