"""The artifact: what a stage makes and everything above hands on.

An artifact owns its identity (files, tensors, hardware contract) and its history (`Provenance`, a link to the parent).
It does not own bytes: those lie in the store under their digests. It does not own figures either: quality and speed
depend on a machine and are stored with the measurement.
"""

import hashlib
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path, PurePosixPath
from typing import Any, Literal, TypeGuard

from .errors import ConfigError, IntegrityError
from .record import Record
from .record import canonical as canonical

Format = Literal["torch", "onnx", "tensorrt", "torch-export"]
FORMATS: tuple[Format, ...] = ("torch", "onnx", "tensorrt", "torch-export")
_CHUNK = 1 << 20
_DIGEST = re.compile(r"sha256:[0-9a-f]{64}")


def digest_bytes(data: bytes) -> str:
    """Return ``sha256:<64 hex>`` of the bytes, the format that OCI uses."""
    return "sha256:" + hashlib.sha256(data).hexdigest()


def digest_file(path: Path) -> str:
    """``sha256:<64 hex>`` of a file, read in chunks so that size does not matter."""
    state = hashlib.sha256()
    with path.open("rb") as stream:
        while chunk := stream.read(_CHUNK):
            state.update(chunk)
    return "sha256:" + state.hexdigest()


def is_digest(value: object) -> TypeGuard[str]:
    """Return whether a value is a digest as `digest_bytes` formats it, and so may become part of a path."""
    return isinstance(value, str) and _DIGEST.fullmatch(value) is not None


def checked_digest(value: object) -> str:
    """Return the value if it is a digest.

    Raises:
        TypeError: it is not a digest.
    """
    if not is_digest(value):
        raise TypeError(f"{str(value)[:80]!r} is not a digest")
    return value


@dataclass(frozen=True, slots=True, kw_only=True)
class TensorSpec:
    """One input or output: numpy dtype name, and a shape whose strings are symbolic (``"batch"``)."""

    name: str
    dtype: str
    shape: tuple[int | str, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class File:
    """One file of an artifact: its path inside the artifact (POSIX, relative), its digest and its size in bytes."""

    path: str
    digest: str
    size: int

    def __post_init__(self) -> None:
        parts = PurePosixPath(self.path)
        if parts.is_absolute() or ".." in parts.parts or not parts.parts:
            raise ConfigError(f"the path of an artifact's file must stay inside the artifact: {self.path!r}")

    @classmethod
    def of(cls, path: Path, name: str | None = None) -> "File":
        """The record of a file on disk, under `name` (default: its own name)."""
        return cls(path=name or path.name, digest=digest_file(path), size=path.stat().st_size)


@dataclass(frozen=True, slots=True, kw_only=True)
class Provenance:
    """Provenance of an artifact; with the parent's digest it is one link of the chain back to the source.

    `config` is the stage's full configuration, `environment` the machine (`environment.Environment`), `at` an ISO-8601
    UTC time. `notes` are facts from the stage for display (channels removed, ranges used).
    """

    stage: str
    parent: str | None
    config: Mapping[str, Any]
    recipe: str
    samples: str | None
    seed: int
    environment: Mapping[str, Any]
    at: str
    notes: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True)
class Artifact(Record, schema=1, what="the artifact record", next_step="build it again"):
    """A model in one format, by content.

    `digest` covers what the model is: name, format, files, tensors and `requires` (the hardware contract, for instance
    ``{"cpu_flags_any": ["avx512_vnni", ...]}``). It does not cover `made_by`, so that building the same recipe twice
    gives the same digest although clock and machine differ.
    """

    name: str
    format: Format
    files: tuple[File, ...]
    inputs: tuple[TensorSpec, ...]
    outputs: tuple[TensorSpec, ...]
    requires: Mapping[str, Any]
    made_by: Provenance

    @cached_property
    def digest(self) -> str:
        """The content's ``sha256:...``; equal for equal content."""
        content = self.to_json()
        del content["made_by"]
        return digest_bytes(canonical(content))

    @property
    def planned(self) -> bool:
        """True for the plan of an engine that has not been built, so that no session can open the artifact yet."""
        return self.format == "tensorrt" and not any(file.path.endswith(".plan") for file in self.files)

    @property
    def batches(self) -> bool:
        """Return whether a run takes any number of samples: every tensor begins with the same free axis."""
        firsts = {spec.shape[0] if spec.shape else None for spec in (*self.inputs, *self.outputs)}
        return len(firsts) == 1 and isinstance(next(iter(firsts)), str)

    @property
    def size(self) -> int:
        """Bytes of all files together."""
        return sum(file.size for file in self.files)

    def file(self, path: str) -> File:
        """The file record of that path.

        Raises:
            IntegrityError: the artifact has no such file.
        """
        for file in self.files:
            if file.path == path:
                return file
        raise IntegrityError(
            f"artifact {self.short} has no file {path!r}",
            where=f"it holds {[file.path for file in self.files]}",
            next_step="build it again; it was made by another version or by hand",
        )

    @property
    def short(self) -> str:
        """Name and the first twelve digits of the digest, for people."""
        return f"{self.name}@{self.digest.removeprefix('sha256:')[:12]}"

    def check(self) -> None:
        """Refuse names and digests that may not become part of a path or a line, and files that cannot be."""
        made = self.made_by
        for name in (self.name, made.stage, *(file.path for file in self.files)):
            if not name or not name.isprintable():
                raise ValueError(f"{name[:40]!r} is not a name")
        for digest in (*(file.digest for file in self.files), *(() if made.parent is None else (made.parent,))):
            checked_digest(digest)
        if len({file.path for file in self.files}) < len(self.files) or any(file.size < 0 for file in self.files):
            raise ValueError("a file is listed twice, or has a negative size")
