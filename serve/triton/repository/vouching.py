"""May this be loaded? The one check of a model's directory before each load, for every caller.

Reads the disk and the store; loads nothing and changes nothing. Call it right before the load: between the two, only
every user who can write the repository can change anything, and files that others may write, own or name are refused
here.

A model that seatrial placed is held to the code that its releases shipped and to the artifact's bytes. A model that
of other origin is refused unless the caller names it as one that is theirs to vouch for; then only links, special
files, rights and paths that lead outside are held against it.
"""

import re
from collections.abc import Collection, Iterator, Sequence
from pathlib import Path
from typing import Any

from seatrial.optimize.environment import home
from seatrial.optimize.errors import ConfigError, IntegrityError
from seatrial.optimize.store import Store

from ...errors import ConfigRuleError
from ...triton_releases import DEFAULT
from .. import plain
from ..compiler.config import parse
from ..lint import costing_the_server
from ..server import Server
from . import configured, contents, entries
from .doubt import Doubt
from .placement import Placement, is_recorded, placements, used_numbers, version_directories

Configuration = tuple[Any, Doubt | None]
"""A ModelConfig, or the reason why it cannot be read; neither where there is none."""
REFUSALS = (IntegrityError, ConfigError)
"""The errors of a load refused by `check`."""
_CONFIG = "config.pbtxt"
_THEIRS = frozenset({"symlink", "outside", "special-file", "world-writable", "set-id", "odd-name", "unreadable"})
"""Rules that prevent a load even if the owner vouches for the model."""
_LINE = re.compile(r"\s+")


def check(
    repository: Path,
    names: Sequence[str],
    store: Store | None,
    *,
    foreign: Collection[str] = (),
    versions: Collection[int] | None = None,
) -> tuple[Doubt, ...]:
    """Refuse to load models that differ from what was placed; return unverified parts that are loaded nevertheless.

    `foreign` names models that the caller vouches for: what would be refused there is returned as well. The models of
    an ensemble's steps are checked with it. `versions` are the only ones whose files are compared, where the caller
    knows which ones it loads. A model that is not there is left to the server.

    Raises:
        IntegrityError: the first thing that is not what was placed; names it, and the next step.
        ConfigError: a model that seatrial did not place, and that `foreign` does not name; a foreign one that
            would cost the server; or no model's name.
    """
    notes: list[Doubt] = []
    for name, configuration in closure(repository, names).items():
        theirs = name in foreign
        if not theirs and not is_ours(repository, name):
            raise ConfigError(
                f"{entries.shown(name)} was not placed by seatrial, so its code is not trusted",
                where=entries.shown(repository / name),
                next_step=(
                    f"inspect it, then vouch for it: seatrial up --allow-foreign {entries.shown(name)}; or place "
                    "it with seatrial place"
                ),
            )
        own = versions if name in names else None
        for doubt in _doubts(repository, name, configuration, store, own):
            if doubt.refused and (not theirs or doubt.rule in _THEIRS):
                raise doubt.error(entries.shown(name))
            if doubt.refused or doubt.rule == "unverified":
                notes.append(doubt)
        if theirs:
            _spare_the_server(repository / name)
    return tuple(notes)


def _spare_the_server(model: Path) -> None:
    """Refuse a foreign model that would end the server, or hang in it.

    Raises:
        ConfigError: the first such rule.
    """
    for found in costing_the_server(model, release=DEFAULT):
        field = f"{found.field}: " if found.field else ""
        raise ConfigError(
            f"{entries.shown(model.name)} must not be loaded: {field}{found.rule}",
            where=entries.shown(model.parent / found.file),
            next_step=found.fix,
        )


def before_load(server: Server, names: Sequence[str], *, versions: Collection[int] | None = None) -> None:
    """Check models right before a server loads them, by what its owner vouches for.

    Raises:
        IntegrityError, ConfigError: as `check`.
    """
    if server.foreign is not None:
        check(server.repository, names, Store(home() / "store"), foreign=server.foreign, versions=versions)


def inside(
    repository: Path,
    name: str,
    configuration: Configuration,
    store: Store | None,
    versions: Collection[int] | None = None,
) -> Iterator[Doubt]:
    """Yield what is wrong with a model's names, configuration and versions; the entries by themselves are not seen."""
    model = repository / name
    if not entries.NAME.fullmatch(name):
        yield Doubt(rule="odd-name", where=entries.shown(model), seen=f"invalid model name {entries.shown(name)!r}")
    yield from entries.beside(model)
    yield from _versions(repository, name, configuration, store, versions)


def closure(repository: Path, names: Sequence[str]) -> dict[str, Configuration]:
    """Return the models and those of their ensembles' steps, as far as they are there: Triton loads those as well."""
    waiting, found = list(names), dict[str, Configuration]()
    while waiting:
        name = waiting.pop(0)
        if not name or "/" in name or name in (".", ".."):
            raise ConfigError(
                f"invalid model name {entries.shown(name)!r}",
                where=entries.shown(repository),
                next_step="name a directory of the repository",
            )
        if name in found or not (repository / name).is_dir():
            continue
        found[name] = config, _ = read(repository / name)
        waiting += [step.model_name for step in config.ensemble_scheduling.step] if config is not None else []
    return found


def is_ours(repository: Path, name: str) -> bool:
    """Return whether seatrial placed a version of that model: one has a record, or a number was counted for it."""
    recorded = any(is_recorded(path) for path in version_directories(repository, name))
    return recorded or name in used_numbers(repository)


def placed(
    repository: Path, names: Sequence[str], foreign: Collection[str] = ()
) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Return those of the models that seatrial placed or that `foreign` names, and the others."""
    ours = tuple(name for name in names if name in foreign or is_ours(repository, name))
    return ours, tuple(name for name in names if name not in ours)


def read(model: Path) -> Configuration:
    """Return a model's configuration, or the doubt that keeps it from being read; neither where there is none."""
    path = model / _CONFIG
    if not entries.is_there(path):
        return None, None
    try:
        return parse(plain.config_text(path)), None
    except ConfigRuleError as error:
        seen = error.what
    except (OSError, ValueError, RecursionError) as error:
        seen = f"config.pbtxt cannot be read: {getattr(error, 'strerror', None) or error}"
    return None, Doubt(rule="configuration", where=entries.shown(path), seen=_LINE.sub(" ", entries.shown(seen))[:300])


def _doubts(
    repository: Path,
    name: str,
    configuration: Configuration,
    store: Store | None,
    versions: Collection[int] | None,
) -> Iterator[Doubt]:
    """Yield everything that is wrong with one model's directory, the certain and cheap first."""
    yield from entries.shared(repository)
    yield from entries.doubts(repository / name, repository)
    if not (repository / name).is_symlink():
        yield from inside(repository, name, configuration, store, versions)


def _versions(
    repository: Path,
    name: str,
    configuration: Configuration,
    store: Store | None,
    wanted: Collection[int] | None,
) -> Iterator[Doubt]:
    """Yield what is wrong with configuration and versions, by whether seatrial placed the model."""
    model, (config, unread) = repository / name, configuration
    directories = [path for path in version_directories(repository, name) if not path.is_symlink()]
    if unread is not None:
        yield unread
    elif config is not None:
        yield from configured.doubts(config, entries.shown(model / _CONFIG))
    if not is_ours(repository, name):
        for path in directories:
            yield Doubt(
                rule="unverified", where=entries.shown(path), seen="there is no record of a placement", refused=False
            )
        return
    yield from entries.strays(model)
    if config is None and unread is None:
        yield Doubt(rule="configuration", where=entries.shown(model / _CONFIG), seen="config.pbtxt is missing")
    known: dict[str, Placement] = {}
    try:
        known = {each.path.name: each for each in placements(repository, name)}
    except IntegrityError as error:
        yield Doubt(rule="changed", where=entries.shown(error.where), seen=error.what)
        return
    for path in sorted(directories, key=lambda each: int(each.name)):
        if path.name not in known:
            seen = f"version {path.name} has no record of a placement, among versions that seatrial placed"
            yield Doubt(rule="unrecorded", where=entries.shown(path), seen=seen)
        elif wanted is None or int(path.name) in wanted:
            yield from contents.doubts(known[path.name], store)
            yield from _configuration(config, known[path.name], store)


def _configuration(config: Any, placement: Placement, store: Store | None) -> Iterator[Doubt]:
    if config is None:
        return
    files, _ = contents.artifact_files(placement, store)
    where = entries.shown(placement.path.parent / _CONFIG)
    yield from configured.unlike_ours(config, placement.backend, None if files is None else frozenset(files), where)
