"""Verbs of the end and of the whole: retire a version, and list every model with its owner and state."""

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from seatrial.optimize.environment import home, now
from seatrial.optimize.errors import MissingError, SeatrialError
from seatrial.optimize.names import checked
from seatrial.optimize.tables import table
from seatrial.optimize.terminal import Json, emit, led, out

from ..errors import InUseError
from .options import DEFAULT_REPOSITORY, Repository

if TYPE_CHECKING:
    from ..release.catalogue import Line, PlacedVersion
    from ..release.record import Release
    from ..release.trail import Entry


def retire(
    model: Annotated[str, typer.Argument(help="A placed model.")],
    version: Annotated[int, typer.Argument(min=1, help="The version to take out of the repository.")],
    reason: Annotated[str, typer.Option(help="The reason, kept in the trail.")] = "",
    replacement: Annotated[str, typer.Option(help="What is to be used instead: a model or NAME@VERSION.")] = "",
    without_return: Annotated[
        bool, typer.Option("--without-return", help="Retire what the last rollout would go back to, too.")
    ] = False,
    repository: Repository = DEFAULT_REPOSITORY,
    json_: Json = False,
) -> None:
    """Take a placed version out of the repository, and leave a tombstone; its artifact and release stay for good.

    Refused while anything uses it: a server or a configuration that serves it, routes of an edge, a lane or fallback,
    an ensemble, a rollout that is not over or would go back to it (exit code 2, with who uses it). Drain and unload it
    first with routes and switch. It can be placed again from the store at any time.
    """
    from ..release.entering import enter
    from ..release.tombstone import Tombstone, bury
    from ..triton.repository.placement import placements
    from ..triton.repository.placing import retire as retiring

    checked(model, "model name", where="MODEL")
    placed = {each.version: each for each in placements(repository, model)}
    buried = Tombstone.of(home(), model, version)
    if version not in placed:
        if buried is None:
            raise MissingError(
                f"{model} has no version {version}",
                where=str(repository),
                next_step=f"placed versions: {sorted(placed)}" if placed else "place the model first",
            )
    else:
        _check_unused(model, version, repository, without_return=without_return)
        config = (repository / model / "config.pbtxt").read_text(errors="replace")
        buried = buried or Tombstone(
            model=model,
            version=version,
            digest=placed[version].digest,
            at=now(),
            reason=reason,
            replacement=replacement,
            config=config,
        )
        bury(home(), buried)  # before it goes: a kill in between leaves both, and the next call goes on
        retiring(repository, model, version)
    left = len([each for each in placed if each != version])
    if not _entered(buried.digest, model, version):
        details = {"version": version, "left": left, "reason": buried.reason, "replacement": buried.replacement}
        enter("retired", model=model, subject=buried.digest, details=details)
    if json_:
        emit({"retired": buried, "left": left})
    else:
        out.print(
            f"{model} version {version} is retired; {left} versions are left. Its artifact is {buried.digest[:19]}"
        )


def catalogue(
    orphans: Annotated[
        bool, typer.Option("--orphans", help="Show what is served or placed without a release or owner; exit 1 if any.")
    ] = False,
    backstage: Annotated[
        Path | None, typer.Option(help="Write a catalog-info.yaml for Backstage with every model.")
    ] = None,
    repository: Repository = DEFAULT_REPOSITORY,
    json_: Json = False,
) -> None:
    """List every model with its owner, state, newest release and the share of traffic of each version."""
    from ..release import catalogue as cataloguing

    releases, placed, entries = _releases(), [*_placed(repository)], _entries()
    lines = cataloguing.catalogue(_criteria(), releases, placed, entries)
    if backstage is not None:
        _write_backstage(backstage, lines)
    if orphans:
        found = cataloguing.orphans(lines, releases, placed)
        if json_:
            emit({"orphans": found})
        elif found:
            rows = [(each.model, each.what, each.next_step) for each in found]
            out.print(table(("model", "what", "next step"), rows, left=("model", "what", "next step")))
        else:
            out.print("everything that is placed is a release with an owner")
        raise typer.Exit(1 if found else 0)
    if json_:
        emit({"models": lines})
        return
    if not lines:
        out.print(led("yellow", "empty: ", "no model has criteria, a release or a placed version yet"))
        return
    head = ("model", "owner", "state", "release", "placed", "serving", "open KPIs")
    listed = [
        (
            each.name,
            each.owner,
            each.state,
            each.release,
            " ".join(map(str, each.placed)),
            ", ".join(f"{version}: {share:.1%}" for version, share in each.serving),
            ", ".join(each.open),
        )
        for each in lines
    ]
    out.print(table(head, listed, left=head))


def _check_unused(model: str, version: int, repository: Path, *, without_return: bool) -> None:
    users = [*_users(model, version, repository, without_return=without_return)]
    if users:
        raise InUseError(
            f"{model} version {version} is in use: {'; '.join(users)}",
            where=str(repository / model / str(version)),
            next_step="move its traffic away (seatrial routes, seatrial switch), then retire it",
        )


def _users(model: str, version: int, repository: Path, *, without_return: bool) -> Iterator[str]:
    """Yield what uses a version."""
    from ..triton.control import Control
    from ..triton.repository.placement import models
    from ..triton.repository.placing import chosen
    from ..triton.repository.vouching import closure
    from ..triton.running import on_pytriton

    if version in chosen(repository, model):
        yield "config.pbtxt serves it"
    server = on_pytriton.status()
    if server is not None and server.repository.resolve() == repository.resolve():
        with Control.to(server) as control:
            if version in control.ready_versions(model):
                yield "the running server has it loaded"
    yield from _edges(model, version)
    last = len(chosen(repository, model)) <= 1 and version in chosen(repository, model)
    for other in models(repository):
        if other != model and last and model in closure(repository, [other]):
            yield f"the ensemble {other} needs the model"
    yield from _rollouts(model, version, without_return=without_return)


def _edges(model: str, version: int) -> Iterator[str]:
    from ..traffic.envoy import on_envoy
    from ..traffic.envoy.files import on_disk
    from ..traffic.envoy.proxy import read_edge

    for name in on_envoy.names():
        folder = on_envoy.folder_of(name)
        edge = read_edge(folder)
        for each in edge.models:
            variants = [lane.variant for lane in each.lanes if lane.variant is not None]
            variants += [each.fallback] if each.fallback is not None else []
            if any((variant.model, variant.version) == (model, version) for variant in variants):
                yield f"a lane or fallback of the edge {name} names it"
            if each.name == model and version in on_disk(folder).of(each).versions:
                yield f"routes of the edge {name} name it"


def _rollouts(model: str, version: int, *, without_return: bool) -> Iterator[str]:
    from ..traffic.rollout.machine import Phase
    from ..traffic.rollout.records import Records

    records = Records(home() / "rollouts", model)
    if not records.exists():
        return
    last = records.load()
    if not last.ended and version in (last.stable, last.candidate):
        yield f"a rollout from {last.stable} to {last.candidate} is not over"
    elif last.phase is Phase.PROMOTED and version == last.stable and not without_return:
        yield f"the rollout to {last.candidate} would go back to it (--without-return)"


def _entered(digest: str, model: str, version: int) -> bool:
    return any(
        each.event == "retired" and each.subject == digest and each.details.get("version") == version
        for each in _entries()
        if each.model == model
    )


def _entries() -> "list[Entry]":
    from ..release.trail_file import TrailFile

    return [*TrailFile(home() / "trail").entries()]


def _releases() -> "Mapping[str, Sequence[Release]]":
    from ..release.registry import Registry

    registry = Registry(home() / "releases")
    return {name: registry.releases(name) for name in registry.folder.names()}


def _criteria() -> "Mapping[str, Any]":
    from ..release.assessing import CRITERIA
    from ..release.criteria import load_criteria

    found = [load_criteria(path) for path in sorted(CRITERIA.glob("*.toml")) if path.stem != "example"]
    return {each.name: each for each in found}


def _placed(repository: Path) -> "Iterator[PlacedVersion]":
    """Yield what lies in a repository, with the share of live requests that the trail knows."""
    from datetime import UTC, datetime

    from ..release.catalogue import PlacedVersion
    from ..release.trail_file import TrailFile
    from ..triton.repository.placement import models, placements

    trail = TrailFile(home() / "trail")
    for name in models(repository):
        try:
            known = placements(repository, name)
        except SeatrialError:
            known = ()
        served = trail.served(name, datetime.now(UTC))
        shares = {each.version: each.share for each in served.shares} if served else {}
        for each in known:
            yield PlacedVersion(model=name, version=each.version, digest=each.digest, served=shares.get(each.version))
        if not known:
            yield PlacedVersion(model=name, version=0, digest="", ours=False)


def _write_backstage(path: Path, lines: "Sequence[Line]") -> None:
    import yaml

    from seatrial.optimize.store import write_atomically

    from ..release.catalogue import backstage

    write_atomically(path, yaml.safe_dump_all([backstage(each) for each in lines], sort_keys=False).encode())
