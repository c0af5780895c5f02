"""A model repository on disk: what lies there that Triton would run, follow or serve, and should not.

Reads only, follows no link, loads no model. What keeps a model from loading is `serve.triton.repository.vouching`'s to
say, and stands here as well; an audit adds what is risky and is loaded all the same.
"""

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from seatrial.optimize.breach import Breach
from seatrial.optimize.plain import is_plain
from seatrial.optimize.store import Store

from ..triton import plain
from ..triton.repository import configured, entries, vouching
from ..triton.repository.contents import BYTECODE
from ..triton.repository.doubt import Doubt
from ..triton.repository.placement import version_directories
from .rules import breach

_PICKLES = (".pkl", ".pickle", ".joblib", ".pt", ".pth", ".ckpt")
_SECRETS = re.compile(
    r".*\.(pem|key|p12|pfx)|id_(rsa|ed25519|ecdsa)|\.env|(.*[._-])?(passwords?|secrets?|credentials)(\.\w+)?", re.I
)
_PICKLE_PROTOCOLS = tuple(bytes([0x80, protocol]) for protocol in range(2, 6))
_CONFIG = "config.pbtxt"


def audit(repository: Path, store: Store | None) -> Iterator[Breach]:
    """Yield everything found in a repository."""
    yield from _told(entries.doubts(repository, repository))
    for path in sorted(entries.walk(repository)):
        if is_plain(path):
            yield from _file(path)
    for model in sorted(path for path in repository.iterdir() if path.is_dir() and not path.is_symlink()):
        if any(path.name == _CONFIG or entries.is_version(path.name) for path in _listed(model)):
            yield from _model(model, store)
        else:
            yield from _told(entries.beside(model))


def configuration(config: Any, where: str) -> Iterator[Breach]:
    """Yield what a ModelConfig says that it should not; `where` names it in findings."""
    yield from _told(configured.doubts(config, where))
    yield from _risks(config, where)


def _told(doubts: Iterator[Doubt]) -> Iterator[Breach]:
    return (breach(each.rule, each.where, each.seen) for each in doubts)


def _listed(folder: Path) -> list[Path]:
    try:
        return list(folder.iterdir())
    except OSError:
        return []  # reported as unreadable


def _model(model: Path, store: Store | None) -> Iterator[Breach]:
    """Yield one model's names, versions and configuration, and the code of a foreign model."""
    config, unread = vouching.read(model)
    yield from _told(vouching.inside(model.parent, model.name, (config, unread), store))
    where = entries.shown(model / _CONFIG)
    if config is None and not entries.is_there(model / _CONFIG) and not vouching.is_ours(model.parent, model.name):
        yield breach("configuration", where, "config.pbtxt is missing")
    if config is not None:
        yield from _risks(config, where)
        for step in config.ensemble_scheduling.step:
            if not (model.parent / step.model_name).is_dir():
                yield breach("missing-step", where, f"a step names {step.model_name!r}, which does not exist")
    if not vouching.is_ours(model.parent, model.name):
        for version in version_directories(model.parent, model.name):
            yield from _code(version)


def _code(version: Path) -> Iterator[Breach]:
    """Yield the code of a version that was not placed."""
    if version.is_symlink():
        return
    for path in sorted(entries.walk(version)):
        if path.name == BYTECODE and path.is_dir():
            yield breach("bytecode", entries.shown(path), "a folder of bytecode")
        elif entries.CODE.fullmatch(path.name) and path.is_file() and not path.is_symlink():
            yield breach(
                "foreign-code", entries.shown(path), f"code that seatrial did not place: {entries.shown(path.name)}"
            )


def _file(path: Path) -> Iterator[Breach]:
    if path.suffix.lower() in _PICKLES or _is_pickle(path):
        yield breach("pickle", entries.shown(path), "a pickle, by its name or its first bytes")
    if _SECRETS.fullmatch(path.name):
        yield breach("secret-file", entries.shown(path), "a key or password, judged by its name")


def _is_pickle(path: Path) -> bool:
    """Return whether it begins with a pickle's protocol and ends with the opcode STOP, a full stop.

    Two first bytes alone would accuse other formats.
    """
    try:
        return plain.ends(path) in {(head, b".") for head in _PICKLE_PROTOCOLS}
    except OSError:
        return False


def _risks(config: Any, where: str) -> Iterator[Breach]:
    """Yield what is risky and loaded all the same."""
    for agent in config.model_repository_agents.agents:
        yield breach("agent", where, f"model_repository_agents names {agent.name!r}")
    free = [tensor.name for tensor in config.input if -1 in tensor.dims]
    if free:
        yield breach("unbounded-dims", where, f"variable axes in {', '.join(free)}")
    if config.response_cache.enable:
        yield breach("unsafe-cache" if free else "cache", where, "response_cache is on")
    policy = config.dynamic_batching.default_queue_policy
    if not policy.max_queue_size or not policy.default_timeout_microseconds:
        yield breach("unbounded-queue", where, "no max_queue_size and timeout")
