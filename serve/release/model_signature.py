"""A signed folder: a bundle of OpenSSF Model Signing 1.0, whoever made it, held against the files that it names.

Every file must be there with its digest, and none more; a link is no file. Of the ways in which a bundle may digest
its files, whole files by SHA-256 are read ("files"), which is the default of ``model_signing sign``.

Source: model_signing 1.1, in-toto Statement v1, DSSE 1.0.
"""

import hashlib
import json
import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any

from seatrial.optimize.artifact import is_digest
from seatrial.optimize.errors import ConfigError, IntegrityError
from seatrial.optimize.plain import digest_plain

from . import on_cryptography as keys
from .approval import BUNDLE, PAYLOAD

LIMIT = 64 << 20  # bytes of a bundle
_PREDICATE = "https://model_signing/signature/v1.0"
_STEP = "fetch model and bundle again from who signed them"


@dataclass(frozen=True, slots=True, kw_only=True)
class Signed:
    """Content of a signed bundle: a name, the digest of each file by its path, and paths that do not count."""

    name: str
    files: Mapping[str, str]
    ignored: tuple[str, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class FileFault:
    """One file that is not what was signed: changed, missing, not signed, or no file."""

    path: str
    what: str


def read_signed(data: bytes, key: keys.PublicKey, where: str) -> Signed:
    """Return what the bundle signs, once its signature was verified.

    Raises:
        IntegrityError: it is no bundle, it was changed, or another key signed it.
        ConfigError: it digests its files in a way that is not read here.
    """
    try:
        value = json.loads(data)
        if value["mediaType"] != BUNDLE:
            raise ValueError(f"its media type is {str(value['mediaType'])[:80]!r}")
        payload = keys.opened(value["dsseEnvelope"], key, PAYLOAD, where)
        return _statement(json.loads(payload), where)
    except (ValueError, KeyError, TypeError, RecursionError) as error:
        raise IntegrityError(f"not a signed model: {error}", where=where, next_step=_STEP) from error


def _statement(value: Any, where: str) -> Signed:
    predicate = value["predicate"]
    serialization = predicate["serialization"]
    if value["predicateType"] != _PREDICATE:
        raise ValueError(f"it states {str(value['predicateType'])[:80]!r}")
    method, algorithm = serialization["method"], serialization["hash_type"]
    if (method, algorithm) != ("files", "sha256"):
        raise ConfigError(
            f"it digests its files by {str(method)[:40]} and {str(algorithm)[:40]}",
            where=where,
            next_step="only whole files by SHA-256 are read here; check it with: model_signing verify key",
        )
    files = {_name(each["name"]): f"sha256:{each['digest']}" for each in predicate["resources"]}
    if len(files) < len(predicate["resources"]) or not all(map(is_digest, files.values())):
        raise ValueError("a file is named twice, or its digest is none")
    root = hashlib.sha256(b"".join(bytes.fromhex(each["digest"]) for each in predicate["resources"])).hexdigest()
    (subject,) = value["subject"]
    if subject["digest"]["sha256"] != root:
        raise ValueError("its digest of the whole is not that of its files")
    ignored = tuple(str(each) for each in serialization.get("ignore_paths", ()))
    return Signed(name=str(subject["name"]), files=files, ignored=ignored)


def _name(path: str) -> str:
    parts = PurePosixPath(path)
    if parts.is_absolute() or ".." in parts.parts or not parts.parts:
        raise ValueError(f"the path {path[:80]!r} leaves the folder")
    return parts.as_posix()


def compared(signed: Signed, folder: Path, *, besides: Sequence[Path] = ()) -> tuple[FileFault, ...]:
    """Return what of the folder differs from what was signed; files `besides` do not count, nor do ignored paths.

    Raises:
        ConfigError: there is no such folder.
    """
    if not folder.is_dir():
        raise ConfigError(
            "there is no such folder", where=str(folder), next_step="name the folder with the model's files"
        )
    spared = {path.resolve() for path in besides}
    there = {name: path for name, path in _files(folder, signed.ignored) if path.resolve() not in spared}
    found = [FileFault(path=name, what="it is missing") for name in signed.files if name not in there]
    for name, path in there.items():
        if name not in signed.files:
            found.append(FileFault(path=name, what="it was not signed"))
            continue
        try:
            if digest_plain(path) != signed.files[name]:
                found.append(FileFault(path=name, what="it was changed"))
        except OSError as error:
            found.append(FileFault(path=name, what=f"it cannot be read: {error.strerror or error}"))
    return tuple(sorted(found, key=lambda fault: fault.path))


def _files(folder: Path, ignored: Sequence[str]) -> Iterator[tuple[str, Path]]:
    """Yield everything in the folder that is no folder; links to folders too, which are not followed."""
    for place, folders, names in os.walk(folder):
        here = Path(place)
        links = [name for name in folders if (here / name).is_symlink()]
        for name in (*names, *links):
            path = (here / name).relative_to(folder)
            if not any(Path(each) in (path, *path.parents) for each in ignored):
                yield path.as_posix(), here / name
