"""A model repository on disk: what lies there that Triton would run, follow or serve, and should not.

Reads only, follows no link, loads no model. What seatrial placed is compared with the store's digests.
"""

import os
import re
import stat
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from optimize.artifact import digest_file
from optimize.errors import IntegrityError, SeatrialError
from optimize.store import Store

from ..triton.compiler.config import parse
from ..triton.flavour import PLACED_CODE
from ..triton.repository.placement import RECORD, Placement, placements, version_directories
from ..triton.repository.version_files import recorded
from .finding import Finding
from .rules import breach

_CODE = re.compile(r".*\.(py|pyc|pyd|so(\.\d+)*|sh)")
_PICKLES = (".pkl", ".pickle", ".joblib", ".pt", ".pth", ".ckpt")
_SECRETS = re.compile(
    r".*\.(pem|key|p12|pfx)|id_(rsa|ed25519|ecdsa)|\.env|(.*[._-])?(passwords?|secrets?|credentials)(\.\w+)?", re.I
)
_NEVER_LOADED = ("symlink", "outside", "changed")
_BESIDE = {RECORD, "__pycache__"}
_PICKLE_PROTOCOLS = tuple(bytes([0x80, protocol]) for protocol in range(2, 6))


def audit(repository: Path, store: Store | None) -> Iterator[Finding]:
    """Everything found in a repository."""
    yield from _within(repository, repository)
    for model in sorted(path for path in repository.iterdir() if path.is_dir() and not path.is_symlink()):
        yield from _model(model, store)


def check(repository: Path, names: Sequence[str], store: Store | None) -> None:
    """Refuse to load models whose bytes are not the placed ones, or that lead out of their directory.

    A model that is not there is the server's to complain of, and one that somebody else made is theirs to vouch for.

    Raises:
        IntegrityError: a link, a path outside, or bytes that differ from the artifact; the first one found.
    """
    for name in (each for each in names if (repository / each).is_dir()):
        found = [*_within(repository / name, repository), *_model(repository / name, store)]
        for finding in (each for each in found if each.rule in _NEVER_LOADED):
            raise IntegrityError(
                f"{name} must not be loaded: {finding.seen}", where=finding.where, next_step=finding.mend
            )


def _model(model: Path, store: Store | None) -> Iterator[Finding]:
    """One model's configuration, versions, and the code that lies beside them."""
    versions = [path for path in version_directories(model.parent, model.name) if not path.is_symlink()]
    if versions or (model / "config.pbtxt").exists():
        yield from _configuration(model)
    try:
        placed = {each.path: each for each in placements(model.parent, model.name)}
    except IntegrityError as error:
        yield breach("changed", error.where, error.what)
        placed = {}
    for version in versions:
        yield from _version(version, placed.get(version), store)
    for path in sorted(model.rglob("*")):
        inside = any(path.is_relative_to(version) for version in versions)
        if not inside and path.is_file() and not path.is_symlink() and _CODE.fullmatch(path.name):
            yield breach("foreign-code", str(path), f"code beside the versions: {path.name}")


def _within(folder: Path, repository: Path) -> Iterator[Finding]:
    """Every file and directory by itself, no link followed."""
    yield from _file(folder, repository)
    for root, folders, files in os.walk(folder, followlinks=False):
        for name in sorted([*folders, *files]):
            yield from _file(Path(root) / name, repository)


def _file(path: Path, repository: Path) -> Iterator[Finding]:
    if path.is_symlink():
        inside = path.resolve().is_relative_to(repository.resolve())
        yield breach("symlink", str(path), f"a link to {os.readlink(path)}")
        if not inside:
            yield breach("outside", str(path), f"it leads to {path.resolve()}")
        return
    mode = path.stat().st_mode
    if mode & stat.S_IWOTH:
        yield breach("world-writable", str(path), f"mode {stat.S_IMODE(mode):o}")
    if not stat.S_ISREG(mode):
        return
    if path.suffix.lower() in _PICKLES or _is_pickle(path):
        yield breach("pickle", str(path), "a pickle, by its name or its first bytes")
    if _SECRETS.fullmatch(path.name):
        yield breach("secret-file", str(path), "a key or password, by its name")


def _is_pickle(path: Path) -> bool:
    with path.open("rb") as stream:
        head = stream.read(2)
        return head in _PICKLE_PROTOCOLS and _ends_in_stop(stream, path.stat().st_size)


def _ends_in_stop(stream: Any, size: int) -> bool:
    """Every pickle ends with the opcode STOP, a full stop; two first bytes alone would accuse other formats."""
    stream.seek(size - 1)
    return bool(stream.read(1) == b".")


def _version(folder: Path, placed: Placement | None, store: Store | None) -> Iterator[Finding]:
    ours = set(_own_code().values())
    code = [path for path in sorted(folder.rglob("*")) if path.is_file() and _CODE.fullmatch(path.name)]
    expected: dict[str, str] = {}
    if placed is None:
        yield breach("unverified", str(folder), "no record of a placement")
    else:
        if placed.flavour == "python":
            expected |= _own_code() | _recorded_code(folder)
        try:
            artifact = store.get(placed.digest) if store is not None else None
            expected |= {file.path: file.digest for file in artifact.files} if artifact else {}
        except SeatrialError:
            artifact = None
        if artifact is None:
            yield breach("unverified", str(folder), f"the store does not hold {placed.digest[:19]}")
        else:
            yield from _unexpected(folder, expected)
    yield from _compared(folder, expected)
    for path in code:
        if str(path.relative_to(folder)) not in expected and digest_file(path) not in ours:
            yield breach("foreign-code", str(path), f"code that seatrial did not place: {path.name}")


def _own_code() -> dict[str, str]:
    """Digests of the code that placing puts into a version of the python flavour, by its name there."""
    return {name: digest_file(source) for name, source in PLACED_CODE.items()}


def _recorded_code(version: Path) -> dict[str, str]:
    """The same as it was when the version was placed, perhaps by an earlier release: that is what may run there."""
    told = recorded(version) or {}
    return {name: told[name] for name in PLACED_CODE if name in told}


def _compared(folder: Path, expected: dict[str, str]) -> Iterator[Finding]:
    for name, digest in expected.items():
        path = folder / name
        if not path.is_file():
            yield breach("changed", str(path), "the file is missing")
        elif (found := digest_file(path)) != digest:
            yield breach("changed", str(path), f"{found[:19]} instead of {digest[:19]}")


def _unexpected(folder: Path, expected: dict[str, str]) -> Iterator[Finding]:
    """A file more than the artifact has; code is told of elsewhere."""
    for path in sorted(folder.rglob("*")):
        name = str(path.relative_to(folder))
        if path.is_file() and name not in expected and name not in _BESIDE and not _CODE.fullmatch(path.name):
            yield breach("changed", str(path), "a file that the artifact does not have")


def _configuration(model: Path) -> Iterator[Finding]:
    path = model / "config.pbtxt"
    try:
        config = parse(path.read_text())
    except (SeatrialError, OSError, UnicodeDecodeError) as error:
        yield breach("configuration", str(path), str(error).splitlines()[0])
        return
    yield from configuration(config, str(path))


def configuration(config: Any, where: str) -> Iterator[Finding]:
    """What a ModelConfig says that it should not; `where` names it in findings."""
    parameters = {key: value.string_value for key, value in config.parameters.items()}
    named = [config.default_model_filename, parameters.get("model_file", ""), *config.cc_model_filenames.values()]
    for name in named:
        if name.startswith("/") or ".." in Path(name).parts:
            yield breach("outside", where, f"it names {name}")
    if environment := parameters.get("EXECUTION_ENV_PATH"):
        yield breach("execution-environment", where, f"EXECUTION_ENV_PATH = {environment}")
    free = [tensor.name for tensor in config.input if -1 in tensor.dims]
    if free:
        yield breach("unbounded-dims", where, f"free axes in {', '.join(free)}")
    if config.response_cache.enable:
        yield breach("unsafe-cache" if free else "cache", where, "response_cache is on")
    policy = config.dynamic_batching.default_queue_policy
    if not policy.max_queue_size or not policy.default_timeout_microseconds:
        yield breach("unbounded-queue", where, "no max_queue_size and timeout")
