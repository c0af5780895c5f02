"""Placing artifacts into a Triton model repository, so that a reader sees all of a version or nothing.

Writes the repository; talks to no server. A version's directory is staged beside the repository on the same filesystem,
fsynced and renamed into place; it is never edited afterwards, and its number is never used again (Triton's caches and
people's logs take a number for an identity). The highest number ever used is kept in a file, ``.seatrial.json``, at the
repository's top. The stage lies in ``.seatrial/placing/`` beside the repository and not in it, because a Triton in its
default mode takes every directory in its repository for a model and refuses to start over one that is none.
"""

import os
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from uuid import uuid4

from seatrial.optimize.artifact import Artifact, canonical, digest_bytes, digest_file
from seatrial.optimize.environment import environment, now
from seatrial.optimize.errors import IntegrityError, MachineError, MissingError
from seatrial.optimize.locking import locked
from seatrial.optimize.recipe import targets
from seatrial.optimize.store import Store

from ...deployment import Backend, Deployment
from ...deployment.ensemble import Ensemble
from ...errors import PlacementError
from .. import engines, plain
from ..backend import PLACED_CODE
from ..compiler.config import check, parse, read_text, render, with_versions, without_cache
from ..compiler.ensembles import members, render_ensemble
from . import journal
from .alike import check_alike
from .placement import JOURNAL, RECORD, Placement, PlacementRecord, UsedNumbers, placements, stored, version_directories
from .version_files import digests

_CONFIG = "config.pbtxt"
_LOCK_SECONDS = 60.0
_NO_BYTECODE = b"A file of this name keeps Python from writing bytecode here; Triton would load this version again.\n"


def place(
    artifact: Artifact,
    deployment: Deployment,
    *,
    store: Store,
    repository: Path,
    version: int | None = None,
    backend: Backend | None = None,
    elsewhere: bool = False,
) -> Placement:
    """Put an artifact into the repository as a version of the deployment's model, and list it in config.pbtxt.

    A model that was ever switched has a journal; there config.pbtxt goes on listing what is served, and `switch` brings
    the new version in.

    The same artifact in the same backend and engine is placed once: a second call brings config.pbtxt up to date and
    returns the version that is there. Versions that the configuration serves stay served. A kill at any moment leaves a
    repository that loads; what it left half-made is swept away by the next call. `elsewhere` says that the server runs
    on another machine, so that neither the artifact's contract nor the engine's needs are held against this one.

    Raises:
        ContractError: this machine breaks what the artifact requires of its hardware, or lacks what its engine needs.
        ConfigRuleError: artifact and deployment do not go together.
        PlacementError: the version is taken or was used before, or the model there is of another kind.
        IntegrityError: the store's bytes are damaged, or the model's journal of switches is.
        MachineError: the disk refused, or another process is placing.
    """
    deployment = deployment.with_backend(backend)
    check(deployment, artifact)
    engine = engines.served_in(artifact, deployment, store)
    if not elsewhere:
        _check_machine(artifact, deployment, engine)
    with _workshop(repository) as shop:
        placed = placements(shop.repository, deployment.name)
        _check_owner(shop, deployment.name, deployment.backend, placed)
        wanted = (artifact.digest, deployment.backend, engine)
        there = [each for each in placed if (each.digest, each.backend, each.engine) == wanted]
        there = [each for each in there if version in (None, each.version)]
        number = there[-1].version if there else shop.next_version(deployment.name, version)
        model = shop.repository / deployment.name
        served = _served(model, placed)
        # Once a model was switched, what it serves is the switch's to say: no load or restart may change it.
        switched = bool(served) and journal.read(shop.repository, deployment.name) is not None
        text = render(deployment, artifact, versions=tuple(sorted(served if switched else {*served, number})))
        if served:
            check_alike(model / _CONFIG, text, deployment.name)
        if there:
            _check_bytes(there[-1], artifact)
            shop.replace(model / _CONFIG, text.encode())
            return there[-1]
        placement = Placement(
            name=deployment.name,
            version=number,
            digest=artifact.digest,
            backend=deployment.backend,
            path=model / str(number),
            engine=engine,
        )
        shop.put(placement, partial(_fill, store, artifact, deployment.backend), text, artifact.short)
        return placement


def _check_machine(artifact: Artifact, deployment: Deployment, engine: engines.Options | None) -> None:
    """Refuse what this machine cannot run: the artifact's contract, and in the Python backend its engine."""
    name = "onnxruntime-cuda" if deployment.instances.kind == "gpu" else engines.in_process(engine)
    targets.check(artifact.requires, environment(), artifact.short, name)
    if deployment.backend == "python":
        engines.check(engine, artifact.short)


def _fill(store: Store, artifact: Artifact, backend: Backend | None, version: Path) -> None:
    """The files of a version: the artifact's, and in the Python backend the code that serves it."""
    store.materialize(artifact, version)
    if backend == "python":
        for name, source in PLACED_CODE.items():
            shutil.copyfile(source, version / name)
        (version / "__pycache__").write_bytes(_NO_BYTECODE)


def place_ensemble(ensemble: Ensemble, *, repository: Path) -> Placement:
    """Write an ensemble over models of the repository as the one version of its name that is served.

    Triton itself runs it, so it counts as native; its version directory holds our record alone, and its digest is that
    of its configuration. The same ensemble is placed once, so going back to an earlier one is placing that again.

    Raises:
        ConfigRuleError: a step is not there or does not fit.
        PlacementError: a model of that name is there and is not ours.
        MachineError: the disk refused, or another process is placing.
    """
    with _workshop(repository) as shop:
        placed = placements(shop.repository, ensemble.name)
        _check_owner(shop, ensemble.name, "native", placed)
        known = members(ensemble, shop.repository)
        digest = digest_bytes(render_ensemble(ensemble, *known, version=1).encode())
        there = [each for each in placed if each.digest == digest]
        number = there[-1].version if there else shop.next_version(ensemble.name, None)
        text = render_ensemble(ensemble, *known, version=number)
        model = shop.repository / ensemble.name
        if there:
            shop.replace(model / _CONFIG, text.encode())
            return there[-1]
        placement = Placement(
            name=ensemble.name, version=number, digest=digest, backend="native", path=model / str(number)
        )
        shop.put(placement, lambda version: None, text, ensemble.name)
        return placement


def choose(repository: Path, name: str, versions: tuple[int, ...]) -> None:
    """Let config.pbtxt serve exactly these placed versions from the next load on.

    Raises:
        MissingError: one of them is not placed.
        ConfigRuleError: no versions, or the configuration on disk is damaged.
        MachineError: the disk refused.
    """
    with _workshop(repository) as shop:
        known = [placement.version for placement in placements(shop.repository, name)]
        missing = sorted(set(versions) - set(known))
        if missing:
            raise MissingError(
                f"{name} has no version {missing}", where=str(repository), next_step=f"known versions: {known}"
            )
        config = shop.repository / name / _CONFIG
        shop.replace(config, with_versions(read_text(config), versions).encode())


def uncache(repository: Path, name: str) -> None:
    """Let config.pbtxt ask for no response cache from the next load on.

    Raises:
        ConfigRuleError: the configuration on disk is damaged.
        MachineError: the disk refused.
    """
    with _workshop(repository) as shop:
        config = shop.repository / name / _CONFIG
        shop.replace(config, without_cache(read_text(config)).encode())


def chosen(repository: Path, name: str) -> tuple[int, ...]:
    """The versions that config.pbtxt on disk serves, lowest first; none where there is no such model.

    Raises:
        ConfigRuleError: the configuration on disk is damaged.
    """
    config = repository / name / _CONFIG
    if not config.is_file():
        return ()
    return tuple(sorted(parse(read_text(config)).version_policy.specific.versions))


def retire(repository: Path, name: str, version: int) -> None:
    """Take a version out of the repository; its number stays used.

    Raises:
        MissingError: no such version of ours.
        PlacementError: config.pbtxt still serves it; `choose` others and load first.
    """
    with _workshop(repository) as shop:
        placed = placements(shop.repository, name)
        found = [placement for placement in placed if placement.version == version]
        if not found:
            known = [placement.version for placement in placed]
            raise MissingError(
                f"{name} has no version {version}", where=str(repository), next_step=f"known versions: {known}"
            )
        if version in _served(shop.repository / name, placed):
            raise PlacementError(
                f"{name} version {version} is being served",
                where=str(found[0].path),
                next_step="serve other versions first: list them in config.pbtxt and load them",
            )
        entry = journal.read(shop.repository, name)
        if entry is not None and entry.state != "verified" and version in {*entry.before, *entry.after}:
            raise PlacementError(
                f"a switch of {name} that includes version {version} is not completed",
                where=str(journal.journal_path(shop.repository, name)),
                next_step="finish or undo it first: seatrial switch, or seatrial supervise",
            )
        os.rename(found[0].path, shop.stage / str(version))


@dataclass(frozen=True, slots=True, kw_only=True)
class _Workshop:
    """The locked place beside the repository where things are made before they are renamed into it."""

    repository: Path
    stage: Path

    def next_version(self, name: str, wanted: int | None) -> int:
        """The wanted number, or the next one; never one that was used."""
        on_disk = [int(path.name) for path in version_directories(self.repository, name)]
        highest = max([self.journal().get(name, 0), *on_disk])
        if wanted is not None and wanted <= highest:
            raise PlacementError(
                f"version {wanted} of {name} cannot be placed: numbers up to {highest} were already used",
                where=str(self.repository / name),
                next_step=f"omit the version, or use {highest + 1} or more",
            )
        return highest + 1 if wanted is None else wanted

    def journal(self) -> dict[str, int]:
        """Highest version ever used, by model."""
        try:
            return dict(stored(UsedNumbers, self.repository / JOURNAL).highest)
        except FileNotFoundError:
            return {}

    def put(self, placement: Placement, fill: Callable[[Path], None], config: str, artifact: str) -> None:
        """Stage the version, note its number, rename it in, then let config.pbtxt name it: in that order.

        `fill` writes the version's files; `artifact` names for people what it holds.
        """
        made = self.stage / placement.name
        version = made / str(placement.version)
        version.mkdir(parents=True)
        fill(version)
        record = PlacementRecord(
            name=placement.name,
            version=placement.version,
            digest=placement.digest,
            backend=placement.backend,
            artifact=artifact,
            at=now(),
            files=digests(version),
            engine=placement.engine,
        )
        (version / RECORD).write_bytes(canonical(record.to_json()))
        model = self.repository / placement.name
        (made / _CONFIG).write_text(config)
        for path in (made, *made.rglob("*")):
            plain.close_to_others(path)
        _fsync(made)
        highest = self.journal() | {placement.name: placement.version}
        self.replace(self.repository / JOURNAL, canonical(UsedNumbers(highest=highest).to_json()))
        if not model.exists():
            os.rename(made, model)
        else:
            os.rename(version, placement.path)
            _fsync_one(model)
            os.replace(made / _CONFIG, model / _CONFIG)
            _fsync_one(model)
        _fsync_one(self.repository)

    def replace(self, target: Path, data: bytes) -> None:
        """Write a file of the repository by rename; one that is the same already is left alone, with its time."""
        if target.is_file() and target.read_bytes() == data:
            return
        staged = self.stage / f"{uuid4().hex}.file"
        staged.write_bytes(data)
        plain.close_to_others(staged)
        _fsync_one(staged)
        os.replace(staged, target)
        _fsync_one(target.parent)


@contextmanager
def _workshop(repository: Path) -> Iterator[_Workshop]:
    """Lock, sweep what a killed call left, hand out an empty stage, and clear it away again."""
    repository = repository.absolute()
    workbench = repository.parent / ".seatrial" / "placing" / repository.name
    busy = MachineError(
        f"another process has been placing for {_LOCK_SECONDS:.0f} seconds",
        where=str(workbench / "lock"),
        next_step="wait for that process, or end it",
    )
    try:
        if not repository.exists():
            repository.mkdir(parents=True, exist_ok=True)
            plain.close_to_others(repository)
        workbench.mkdir(parents=True, exist_ok=True)
        if workbench.stat().st_dev != repository.stat().st_dev:
            raise MachineError(
                "the repository is a separate filesystem, so files cannot be renamed into it",
                where=str(repository),
                next_step="mount its parent, and use a folder in there as the repository",
            )
        with locked(workbench / "lock", seconds=_LOCK_SECONDS, busy=busy):
            for left in workbench.iterdir():
                if left.is_dir():
                    shutil.rmtree(left)
            stage = workbench / uuid4().hex
            stage.mkdir()
            try:
                yield _Workshop(repository=repository, stage=stage)
            finally:
                shutil.rmtree(stage, ignore_errors=True)
    except OSError as error:
        raise MachineError(
            f"cannot write the model repository: {error.strerror or error}",
            where=str(error.filename or repository),
            next_step="free space there, or give a folder that this user can write",
        ) from error


def _served(model: Path, placed: tuple[Placement, ...]) -> set[int]:
    """Versions that the configuration on disk lists and that are there."""
    if not placed or not (model / _CONFIG).is_file():
        return set()
    listed = parse(read_text(model / _CONFIG)).version_policy.specific.versions
    return {placement.version for placement in placed} & set(listed)


def _check_bytes(placement: Placement, artifact: Artifact) -> None:
    """A version that is there already counts only if its bytes are still the artifact's."""
    for file in artifact.files:
        path = placement.path / file.path
        if not path.is_file() or digest_file(path) != file.digest:
            raise IntegrityError(
                f"the files of {placement.name} version {placement.version} differ from what was placed",
                where=str(path),
                next_step="move that version's directory away and place the artifact again, under a new number",
            )


def _check_owner(shop: _Workshop, name: str, backend: Backend, placed: tuple[Placement, ...]) -> None:
    """One model directory is ours alone, and of one backend: all its versions share one configuration."""
    model = shop.repository / name
    foreign = {path.name for path in version_directories(shop.repository, name)}
    foreign -= {str(placement.version) for placement in placed}
    if foreign or (not placed and (model / _CONFIG).exists() and name not in shop.journal()):
        raise PlacementError(
            f"the model {name!r} in this repository was not placed by seatrial",
            where=str(model),
            next_step="give the deployment another name, or move that model away",
        )
    others = {placement.backend for placement in placed} - {backend}
    if others:
        raise PlacementError(
            f'{name} is placed there with backend = "{others.pop()}", and all versions share one configuration',
            where=str(model),
            next_step=f'use another repository or another name for backend = "{backend}"',
        )


def _fsync(folder: Path) -> None:
    """Everything under a folder to disk, the deepest first."""
    for root, _, files in os.walk(folder, topdown=False):
        for file in files:
            _fsync_one(Path(root) / file)
        _fsync_one(Path(root))


def _fsync_one(path: Path) -> None:
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
