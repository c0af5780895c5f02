"""The manifest of a recipe's data: every file that it declares with its digest, one digest over all, and the schema.

A ``.dvc`` file among them is read: what it tracks enters with its MD5 and size, and a tracked file that lies here must
be the one that it names. Nothing is copied; the manifest stands in the provenance of the source.
"""

import hashlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ..errors import ConfigError
from ..plain import read_plain
from ..record import Record
from ..samples import Samples

_DVC_LIMIT = 4 << 20
_CHUNK = 1 << 20


@dataclass(frozen=True, slots=True, kw_only=True)
class DataFile:
    """One file: its path relative to the recipe (POSIX), ``sha256:`` or for what DVC tracks ``md5:``, size in bytes."""

    path: str
    digest: str
    size: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Column:
    """One tensor of a sample: its name, numpy dtype and shape without the axis of samples."""

    name: str
    dtype: str
    shape: tuple[int, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Manifest(Record, schema=1, what="the manifest of the data"):
    """Data of a recipe. `root` is a Merkle root over the files; `rows` those of each split, None for all.

    `loader` names the function with the digest of its code, `packages` installed distributions with their versions.
    """

    loader: str
    code: str
    root: str
    files: tuple[DataFile, ...] = ()
    columns: tuple[Column, ...] = ()
    rows: Mapping[str, int | None] = field(default_factory=dict)
    packages: Mapping[str, str] = field(default_factory=dict)
    seed: int = 0


def data_files(base: Path, digests: Mapping[str, str]) -> tuple[DataFile, ...]:
    """Return the declared files, each with its digest by name, and what ``.dvc`` files among them track.

    Raises:
        ConfigError: a ``.dvc`` file cannot be read, or a tracked file that lies here is another one.
    """
    found = list[DataFile]()
    for name, digest in digests.items():
        path = base / name
        found.append(DataFile(path=name, digest=digest, size=path.stat().st_size))
        if name.endswith(".dvc"):
            found += _tracked(path, Path(name).parent)
    return tuple(found)


def merkle_root(digests: Sequence[str]) -> str:
    """Return ``sha256:`` of a binary tree over the digests in their order; an odd one moves up as it is.

    Source: RFC 6962, section 2.1 (leaves are hashed after a 0 byte, nodes after a 1 byte).
    """
    level = [hashlib.sha256(b"\0" + digest.encode()).digest() for digest in digests] or [hashlib.sha256().digest()]
    while len(level) > 1:
        pairs = [level[at : at + 2] for at in range(0, len(level), 2)]
        level = [hashlib.sha256(b"\1" + b"".join(pair)).digest() if len(pair) == 2 else pair[0] for pair in pairs]
    return f"sha256:{level[0].hex()}"


def columns_of(samples: Samples) -> tuple[Column, ...]:
    """Return the schema of one sample: inputs, then labels and columns where there are any."""
    arrays = {**samples.inputs, **({} if samples.labels is None else {"labels": samples.labels}), **samples.columns}
    return tuple(Column(name=name, dtype=str(each.dtype), shape=tuple(each.shape[1:])) for name, each in arrays.items())


def _tracked(path: Path, folder: Path) -> Iterator[DataFile]:
    """Yield what a ``.dvc`` file tracks."""
    import yaml

    step = "write it again: dvc add"
    try:
        value: Any = yaml.safe_load(read_plain(path, _DVC_LIMIT, links=True))
        outs = [(str(each["path"]), str(each["md5"]), int(each.get("size", 0))) for each in value["outs"]]
    except (OSError, yaml.YAMLError, KeyError, TypeError, ValueError, RecursionError) as error:
        raise ConfigError(f"not a file of DVC: {error}", where=str(path), next_step=step) from error
    for name, md5, size in outs:
        there = path.parent / name
        if there.is_file() and not md5.endswith(".dir") and _md5(there) != md5:
            raise ConfigError(
                f"{name} is not the file that DVC tracks",
                where=str(there),
                next_step="bring back the tracked one: dvc checkout; or track this one: dvc add",
            )
        yield DataFile(path=(folder / name).as_posix(), digest=f"md5:{md5}", size=size)


def _md5(path: Path) -> str:
    """Return the MD5 of a file, which is what DVC writes; it proves nothing against somebody who wants a collision."""
    state = hashlib.md5(usedforsecurity=False)
    with path.open("rb") as stream:
        while chunk := stream.read(_CHUNK):
            state.update(chunk)
    return state.hexdigest()
