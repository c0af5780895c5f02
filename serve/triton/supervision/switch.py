"""The journaled switch: which versions a server serves, changed so that a crash at any point can be finished or undone.

Cut-over and rollback are one thing: a load whose configuration differs in the version policy alone, so that versions
that run are not touched. Versions not yet loaded come up beside those that serve and are proven by a golden request,
and only then are the others let go. Disk and server are kept equal and read back. Starts no server and shifts no
traffic: routers must send nothing to a version before it is served, nor after it is let go.
"""

import json
from collections.abc import Callable, Iterable, Mapping
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path
from time import perf_counter

from seatrial.optimize.environment import home, now
from seatrial.optimize.errors import IntegrityError, MissingError, SeatrialError
from seatrial.optimize.store import Store

from ...errors import ModelLoadError, ServerError
from ..compiler.config import read_text, with_versions
from ..compiler.rules import broken_versions
from ..control import Control, as_json
from ..repository import journal, version_files, vouching
from ..repository.doubt import Doubt
from ..repository.journal import Entry, Failure, Remedy
from ..repository.placement import placements
from ..repository.placing import choose, chosen
from .drift import drift
from .probe import prove

TRIES = 3
_BEGUN = "the load did not end"
_HELD = (
    "read the log, or allow more time; a model process that died while loading can block further "
    "loads until the server is restarted"
)
STEPS = ("intent", "loaded", "proven", "narrowed", "applied", "disk", "read back", "verified")
Step = Callable[[str], None]
Prove = Callable[[str, str, int, int | None], None]
"""(url, model, new version, another version that serves) -> None, or a ModelLoadError."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Switched:
    """A switch that was made and read back; `loaded` were not running before.

    `seconds` passed until the server obeyed, `total` until the disk and the journal said so too. `drift` names fields
    of config.pbtxt that the running model does not follow: they were changed after it was loaded. `unverified` is what
    was loaded though nothing but its own record vouches for it.
    """

    model: str
    before: tuple[int, ...]
    after: tuple[int, ...]
    loaded: tuple[int, ...]
    seconds: float
    total: float
    drift: tuple[str, ...] = ()
    unverified: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Recovered:
    """Result of recovering a switch that a crash interrupted; `serving` are the versions in force."""

    model: str
    remedy: Remedy
    serving: tuple[int, ...]
    reason: str = ""


def golden_proof(url: str, model: str, version: int, beside: int | None) -> None:
    """The default proof of a version just loaded: `probe.prove`."""
    prove(url, model, version, beside=beside)


def switch(
    control: Control,
    repository: Path,
    model: str,
    versions: tuple[int, ...],
    *,
    prove: Prove = golden_proof,
    tries: int = TRIES,
    at: Step = lambda step: None,
) -> Switched:
    """Serve exactly these placed versions; returns when server and disk both say so.

    A switch that a crash left half-done is finished or undone first. `at` is told each of `STEPS` once it is on disk or
    in force. Nothing changes for the versions that serve until all new ones are loaded and proven.

    Raises:
        MissingError: a version is not placed.
        IntegrityError: a new version is not what was placed (`vouching.check`).
        ConfigError: the model was not placed by seatrial, and the server's owner does not vouch for it.
        ModelLoadError: a new version does not load, fails its proof, or failed `tries` times before; what served
            before serves on, and the journal says so.
        ServerError: no answer; `recover` decides once the server is back.
        ConfigRuleError: no versions.
    """
    began, versions = perf_counter(), tuple(sorted(set(versions)))
    with journal.lock(repository, model):
        _recover(control, repository, model, prove)
        ready = control.ready_versions(model)
        new = tuple(version for version in versions if version not in ready)
        notes = vouch(control, repository, model, new)
        entry = _intent(repository, model, tuple(sorted(ready)), versions, new, tries)
        journal.write(repository, entry)
        at("intent")
        try:
            _apply(control, repository, entry, ready, prove, at)
        except ModelLoadError as error:
            _undo(control, repository, entry, error.what)
            raise
        except ServerError as error:
            if not control.live():
                raise
            reason = f"the server is alive, but did not load {list(new)} in time: {error.what}"
            with suppress(ServerError):  # it may still be busy loading; then the next `recover` undoes it
                _undo(control, repository, entry, reason)
            raise ModelLoadError(reason, where=error.where, next_step=_HELD) from error
        took = perf_counter() - began
        _settle(control, repository, entry, at)
        total = perf_counter() - began
        return Switched(
            model=model,
            before=entry.before,
            after=versions,
            loaded=new,
            seconds=took,
            total=total,
            unverified=tuple(f"{note.where}: {note.seen}" for note in notes),
            drift=drift(json.loads(as_json(_config(repository, model))), control.config(model, versions[-1])),
        )


def recover(
    control: Control | None,
    repository: Path,
    model: str,
    *,
    prove: Prove = golden_proof,
    wait: float = 60.0,
    at: Step = lambda step: None,
) -> Recovered:
    """Finish or undo what a crash left of the model's last switch, by `journal.RECOVERY`; None is no running server.

    May be called at any time and again: a switch that was completed is left alone.

    Raises:
        ServerError: no answer.
        ModelLoadError: the server takes neither the new versions nor the old ones.
    """
    with journal.lock(repository, model, timeout=wait):
        return _recover(control, repository, model, prove, at)


def heal(control: Control, repository: Path, model: str, version: int) -> None:
    """Load one version anew, the others serving on: Triton restarts no model process and takes a plain load for done.

    Letting the version go and naming it again makes a fresh instance. It must not be waited for in between: a version
    whose process died during a request never ends unloading.

    Raises:
        IntegrityError, ConfigError: the version is not what was placed.
        ModelLoadError: it does not load, or the model is not meant to serve that version (any more).
        ServerError: no answer.
    """
    with journal.lock(repository, model):
        wanted = chosen(repository, model)
        if version not in wanted:
            raise ModelLoadError(
                f"version {version} is not listed in config.pbtxt",
                where=model,
                next_step=f"config.pbtxt lists {list(wanted)}; load one of these",
            )
        others = tuple(sorted(control.ready_versions(model) - {version}))
        vouch(control, repository, model, (version,))
        if others:
            control.set_versions(model, others, loaded=True)
            control.set_versions(model, tuple(sorted({*others, version})))
        else:
            control.dismiss(model)
            control.load(model, with_versions(_config(repository, model), (version,)))


def vouch(control: Control, repository: Path, model: str, versions: Iterable[int]) -> tuple[Doubt, ...]:
    """Check versions right before they are loaded; return what only their record or the server's owner vouches for.

    Raises:
        IntegrityError, ConfigError: as `vouching.check`.
    """
    wanted = frozenset(versions)
    if not wanted or control.foreign is None:
        return ()
    return vouching.check(repository, (model,), Store(home() / "store"), foreign=control.foreign, versions=wanted)


def forgive(repository: Path, model: str) -> None:
    """Forget the failed loads of a model, so that the same bytes may be tried again."""
    with journal.lock(repository, model):
        entry = journal.read(repository, model)
        if entry is not None and entry.failures:
            journal.write(repository, replace(entry, failures={}))


def _intent(
    repository: Path, model: str, before: tuple[int, ...], after: tuple[int, ...], new: tuple[int, ...], tries: int
) -> Entry:
    """The checked intent: every new version is what was placed, and its bytes have a try left, which is counted now.

    Counted before it is made, so that a load which takes the server and us down with it counts too.
    """
    known = {placement.version: placement for placement in placements(repository, model)}
    if missing := sorted(set(after) - set(known)):
        raise MissingError(
            f"{model} has no version {missing}", where=str(repository), next_step=f"known versions: {sorted(known)}"
        )
    for broken in broken_versions(after):
        raise broken.error()
    last = journal.read(repository, model)
    digests, failures = (dict(last.digests), dict(last.failures)) if last is not None else ({}, {})
    for version in new:
        digest = version_files.check(known[version].path)
        if digests.setdefault(version, digest) != digest:
            raise IntegrityError(
                f"the files of {model} version {version} changed since it was first loaded",
                where=str(known[version].path),
                next_step="place the artifact again under a new number: a version number always means the same bytes",
            )
        failed = failures.get(digest, Failure(tries=0))
        if failed.tries >= tries:
            raise ModelLoadError(
                (
                    f"loading {model} version {version} failed {failed.tries} times and is no longer tried: "
                    f"{failed.reason}"
                ),
                where=str(known[version].path),
                next_step=f"fix it and place it again, or allow another try: seatrial switch {model} ... --retry",
            )
        failures[digest] = Failure(tries=failed.tries + 1, reason=_BEGUN)
    return Entry(model=model, state="intent", before=before, after=after, at=now(), digests=digests, failures=failures)


def _config(repository: Path, model: str) -> str:
    path = repository / model / "config.pbtxt"
    if not path.is_file():
        raise MissingError(f"{model} has no configuration", where=str(path), next_step="place the model again")
    return read_text(path)


def _apply(control: Control, repository: Path, entry: Entry, ready: frozenset[int], prove: Prove, at: Step) -> None:
    """Bring up what is new beside what serves, prove it, let the rest go."""
    new = [version for version in entry.after if version not in entry.before]
    wide = ready | set(entry.after)
    try:
        vouch(control, repository, entry.model, wide - ready)
    except SeatrialError as error:
        raise ModelLoadError(error.what, where=error.where, next_step=error.next_step) from error
    if not ready:
        control.load(entry.model, with_versions(_config(repository, entry.model), entry.after))
    elif wide != ready:
        control.set_versions(entry.model, tuple(sorted(wide)))
    at("loaded")
    for version in new:
        prove(control.url, entry.model, version, entry.before[-1] if entry.before else None)
    at("proven")
    if not ready or wide != set(entry.after):
        control.set_versions(entry.model, entry.after, loaded=True)
    at("narrowed")


def _settle(control: Control | None, repository: Path, entry: Entry, at: Step) -> None:
    """Write down that the server obeys, bring the disk in line, read both back, and close the entry."""
    applied = replace(entry, state="applied", failures=_succeeded(entry))
    journal.write(repository, applied)
    at("applied")
    choose(repository, entry.model, entry.after)
    at("disk")
    read_back(control, repository, entry.model, entry.after)
    at("read back")
    journal.write(repository, replace(applied, state="verified"))
    at("verified")


def read_back(control: Control | None, repository: Path, model: str, versions: tuple[int, ...]) -> None:
    """Check that disk and server both serve exactly these versions. The server's index is in force: its `/config`
    goes on showing the version policy under which a version was first loaded.

    Raises:
        ModelLoadError: one of them says otherwise.
    """
    said: Mapping[str, frozenset[int]] = {"config.pbtxt": frozenset(chosen(repository, model))} | (
        {"the server": control.ready_versions(model)} if control is not None else {}
    )
    for who, serves in said.items():
        if serves != set(versions):
            raise ModelLoadError(
                f"{who} serves {sorted(serves)} of {model}, not {sorted(versions)}",
                where=str(repository),
                next_step="switch again: another process changed it meanwhile",
            )


def _recover(
    control: Control | None, repository: Path, model: str, prove: Prove, at: Step = lambda step: None
) -> Recovered:
    entry = journal.read(repository, model)
    if entry is None:
        return Recovered(model=model, remedy="nothing", serving=chosen(repository, model))
    if entry.state == "verified":
        return Recovered(model=model, remedy="nothing", serving=entry.after)  # whatever the server says: do not ask
    ready = None if control is None else control.ready_versions(model)
    remedy = journal.RECOVERY[entry.state, journal.serving_of(entry, ready)]
    if remedy == "finish":
        try:
            if control is not None and ready is not None:
                _apply(control, repository, entry, ready, prove, at)
            _settle(control, repository, entry, at)
            return Recovered(model=model, remedy="finish", serving=entry.after)
        except ModelLoadError as error:  # it served before the crash, and does not now
            _undo(control, repository, entry, error.what)
            return Recovered(model=model, remedy="undo", serving=entry.before, reason=error.what)
    # With the server gone too, the load may have taken it down, and counts; else the switcher was ended.
    reason = f"a switch to {list(entry.after)} was interrupted" + (" with the server" if control is None else "")
    _undo(control, repository, entry if control is None else _given_back(entry), reason)
    return Recovered(model=model, remedy="undo", serving=entry.before, reason=reason)


def _undo(control: Control | None, repository: Path, entry: Entry, reason: str) -> None:
    """Serve what served before, on the server and on disk, and remember why the new versions failed.

    Raises:
        SeatrialError: the server does not take the old versions either; the entry stays open, for the next `recover`.
    """
    digests = {entry.digests.get(version) for version in set(entry.after) - set(entry.before)}
    failures = {
        digest: replace(failure, reason=reason) if digest in digests else failure
        for digest, failure in entry.failures.items()
    }
    open_ = replace(entry, state="intent", failures=failures)
    journal.write(repository, open_)
    if control is not None:
        _return(control, repository, entry)
    if entry.before:  # where nothing served, the disk lists what place chose, and stays
        choose(repository, entry.model, entry.before)
    journal.write(repository, replace(open_, state="verified", after=entry.before))


def _return(control: Control, repository: Path, entry: Entry) -> None:
    ready = control.ready_versions(entry.model)
    vouch(control, repository, entry.model, set(entry.before) - ready)
    if not entry.before:
        control.dismiss(entry.model)
    elif not ready:
        control.load(entry.model)
    if entry.before and control.ready_versions(entry.model) != set(entry.before):
        control.set_versions(entry.model, entry.before)


def _given_back(entry: Entry) -> Entry:
    """The entry without the tries that it counted when it began and that nothing was blamed for."""
    begun = {entry.digests.get(version) for version in set(entry.after) - set(entry.before)}
    failures = {
        digest: replace(failure, tries=failure.tries - 1) if digest in begun and failure.reason == _BEGUN else failure
        for digest, failure in entry.failures.items()
    }
    return replace(entry, failures={digest: failure for digest, failure in failures.items() if failure.tries > 0})


def _succeeded(entry: Entry) -> dict[str, Failure]:
    """Failures without those of the bytes that now serve."""
    serving = {entry.digests.get(version) for version in entry.after}
    return {digest: failure for digest, failure in entry.failures.items() if digest not in serving}


def recover_all(control: Control | None, repository: Path, *, wait: float = 60.0) -> tuple[Recovered, ...]:
    """`recover` for every journaled model; one that cannot be recovered does not stop the others.

    A failure is told as an outcome with the remedy "nothing" and its reason. `wait` is seconds for each model's lock.
    """
    outcomes = []
    for model in journal.journaled(repository):
        try:
            outcomes.append(recover(control, repository, model, wait=wait))
        except SeatrialError as error:
            outcomes.append(Recovered(model=model, remedy="nothing", serving=(), reason=error.what))
    return tuple(outcomes)
