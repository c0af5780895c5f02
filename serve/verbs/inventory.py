"""Verbs of what is there: list it, remove what nothing uses, compare two, and take one out as files."""

from collections.abc import Iterable, Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from seatrial.optimize.environment import home
from seatrial.optimize.errors import ConfigError
from seatrial.optimize.tables import table
from seatrial.optimize.terminal import Json, emit, led, out
from seatrial.optimize.units import format_value

from ..errors import InUseError
from .options import DEFAULT_REPOSITORY, DEFAULT_ROLES, Repository

if TYPE_CHECKING:
    from ..release.inventory import Item

Named = Annotated[str, typer.Argument(help="A release (NAME@VERSION), a tag or a digest.")]


def list_(
    what: Annotated[Literal["artifacts", "releases", "runs"], typer.Argument(help="artifacts, releases or runs.")] = (
        "artifacts"
    ),
    repository: Repository = DEFAULT_REPOSITORY,
    json_: Json = False,
) -> None:
    """List artifacts with their size and who uses them, releases, or runs, oldest first."""
    if what == "artifacts":
        _list_artifacts(_items(repository), json_=json_)
    elif what == "releases":
        _list_releases(json_=json_)
    else:
        _list_runs(json_=json_)


def gc(
    artifacts: Annotated[
        list[str] | None, typer.Argument(help="Tags or digests to remove; without one, all that nothing uses.")
    ] = None,
    older_than: Annotated[str, typer.Option(help="Spare what is younger: 30d, 12h, 0d.")] = "30d",
    go: Annotated[bool, typer.Option("--go", help="Remove it; without this, only show what would go.")] = False,
    repository: Repository = DEFAULT_REPOSITORY,
    json_: Json = False,
) -> None:
    """Show which artifacts nothing uses, and what their removal would free; with --go, remove them.

    A release's artifact, the base that it was compared with, what is placed, what has a tag, and every ancestor of
    these stay for good. Artifacts that are named are refused while anything uses them (exit code 2, with who does).
    They can be built again from their recipe.
    """
    from seatrial.optimize.store import Store
    from seatrial.optimize.store_gc import collect

    from ..release.inventory import age, unused

    try:
        before = datetime.now(UTC) - age(older_than)
    except ValueError as error:
        raise ConfigError(str(error), where="--older-than", next_step="write days or hours, as in 30d") from error
    items, store = _items(repository), Store(home() / "store")
    if artifacts:
        chosen = tuple(_free(each, store.get(each).digest, items) for each in artifacts)
    else:
        chosen = unused(items, before=before)
    done = collect(store, {each.digest for each in chosen}, go=go)
    if json_:
        emit({"removed": go, "artifacts": chosen, "blobs": done.blobs, "bytes": done.size})
        return
    if chosen:
        out.print(_table(chosen))
    said = "removed" if go else "would go"
    out.print(f"{len(chosen)} artifacts {said}, {format_value(done.size, 'B')} in {done.blobs} blobs")
    if (chosen or done.blobs) and not go:
        out.print(led("yellow", "nothing was removed: ", "add --go"))


def diff(first: Named, second: Named, json_: Json = False) -> None:
    """Compare two releases or artifacts: files, tensors, stages, data, seed, packages, machine, and verdicts.

    Exit codes: 0 whether they differ or not, 2 one of them is unknown.
    """
    from ..release.difference import between
    from ..release.holding import chain_of

    one, two = chain_of(home(), first), chain_of(home(), second)
    releases = (one[0], two[0]) if one[0] is not None and two[0] is not None else None
    found = between(one[1], two[1], releases)
    if json_:
        emit({"first": one[1][0].digest, "second": two[1][0].digest, "differences": found})
    elif not found:
        out.print(f"{first} and {second} do not differ")
    else:
        rows = [(each.part, each.name, each.first, each.second) for each in found]
        out.print(table(("part", "value", first, second), rows, left=("part", "value", first, second)))


def export(
    reference: Named,
    to: Annotated[Path, typer.Argument(help="A new folder.")],
    bom: Annotated[bool, typer.Option("--bom", help="Write a CycloneDX 1.6 ML-BOM beside the files.")] = False,
    croissant: Annotated[
        bool, typer.Option("--croissant", help="Write the manifest of its data as Croissant 1.0 (JSON-LD).")
    ] = False,
    json_: Json = False,
) -> None:
    """Write an artifact's files into a new folder, each checked against its digest, with its record beside them."""
    from ..release.exporting import export as exporting
    from ..release.holding import chain_of

    release, chain = chain_of(home(), reference)
    written = exporting(chain, release, home=home(), to=to, bom=bom, croissant=croissant)
    if json_:
        emit({"artifact": chain[0].digest, "files": [str(each) for each in written]})
        return
    for each in written:
        out.print(str(each), soft_wrap=True)


def _items(repository: Path) -> "tuple[Item, ...]":
    """Return what the store holds, with its users in this repository and in those that the file of roles names."""
    from ..release.holding import items
    from ..release.roles import load_roles

    known = {repository.resolve(): repository}
    if DEFAULT_ROLES.exists():
        for each in load_roles(DEFAULT_ROLES).environments.values():
            for path in each.repositories:
                known.setdefault((DEFAULT_ROLES.parent / path).resolve(), DEFAULT_ROLES.parent / path)
    return items(home(), _placed(known.values()))


def _placed(repositories: Iterable[Path]) -> Iterator[tuple[str, str]]:
    """Yield the digest of each placed version, and where it is placed."""
    from ..triton.repository.placement import models, placements

    for repository in repositories:
        for model in models(repository):
            for each in placements(repository, model):
                yield each.digest, f"placed as {model} version {each.version} in {repository}"


def _free(name: str, digest: str, items: "tuple[Item, ...]") -> "Item":
    """Return the artifact if nothing but its own tags uses it."""
    item = next(each for each in items if each.digest == digest)
    users = [each for each in item.used_by if not each.startswith("tag ")]
    if users:
        raise InUseError(
            f"{name} is in use: {'; '.join(users)}",
            where=digest,
            next_step="a release's artifact stays for good; what was placed goes by seatrial retire",
        )
    return item


def _table(items: "tuple[Item, ...]") -> object:
    rows = [
        (
            f"{each.name}@{each.digest.removeprefix('sha256:')[:12]}",
            each.format,
            format_value(each.size, "B"),
            each.at[:10],
            "; ".join(each.used_by) or "nothing",
        )
        for each in items
    ]
    return table(
        ("artifact", "format", "size", "made", "used by"), rows, left=("artifact", "format", "made", "used by")
    )


def _list_artifacts(items: "tuple[Item, ...]", *, json_: bool) -> None:
    if json_:
        emit({"artifacts": items})
    elif items:
        out.print(_table(items))
    else:
        out.print(led("yellow", "empty: ", "nothing was built yet"))


def _list_releases(*, json_: bool) -> None:
    from ..release.holding import releases

    found = [each for all_ in releases(home()).values() for each in all_]
    if json_:
        emit({"releases": found})
        return
    if not found:
        out.print(led("yellow", "empty: ", "nothing was registered yet"))
        return
    rows = [(each.label, each.digest[:19], each.at[:19], each.run) for each in found]
    out.print(table(("release", "artifact", "at", "run"), rows, left=("release", "artifact", "at", "run")))


def _list_runs(*, json_: bool) -> None:
    from ..release.holding import releases

    of = {str(Path(each.run).absolute()): each.label for all_ in releases(home()).values() for each in all_}
    folders = sorted(path for path in (home() / "runs").glob("*") if path.is_dir())
    found = [
        {
            "run": str(path),
            "size": sum(each.lstat().st_size for each in path.rglob("*") if not each.is_dir()),
            "release": of.get(str(path.absolute()), ""),
        }
        for path in folders
    ]
    if json_:
        emit({"runs": found})
        return
    if not found:
        out.print(led("yellow", "empty: ", "nothing was measured yet"))
        return
    rows = [(str(each["run"]), format_value(int(str(each["size"])), "B"), str(each["release"])) for each in found]
    out.print(table(("run", "size", "release"), rows, left=("run", "release")))
