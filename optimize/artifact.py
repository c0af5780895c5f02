"""The artifact: what a stage makes and everything above hands on.

An artifact owns its identity (files, tensors, hardware contract) and its history (`Provenance`, a link to the parent).
It does not own bytes: those lie in the store under their digests. It does not own figures either: quality and speed
depend on a machine and are kept by whoever measured them.
"""

import hashlib
import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from functools import cached_property
from pathlib import Path, PurePosixPath
from typing import Any, Literal

from .errors import ConfigError, IntegrityError

Format = Literal["torch", "onnx", "tensorrt"]
FORMATS: tuple[Format, ...] = ("torch", "onnx", "tensorrt")
SCHEMA = 1
_CHUNK = 1 << 20


def digest_bytes(data: bytes) -> str:
    """``sha256:<64 hex>`` of the bytes, the spelling that OCI uses."""
    return "sha256:" + hashlib.sha256(data).hexdigest()


def digest_file(path: Path) -> str:
    """``sha256:<64 hex>`` of a file, read in chunks so that size does not matter."""
    state = hashlib.sha256()
    with path.open("rb") as stream:
        while chunk := stream.read(_CHUNK):
            state.update(chunk)
    return "sha256:" + state.hexdigest()


def canonical(value: Any) -> bytes:
    """JSON with sorted keys and no spaces: equal values give equal bytes, so that they can be digested."""
    return json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=True, allow_nan=False).encode()


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
            raise ConfigError(f"an artifact's file may not leave the artifact: {self.path!r}")

    @classmethod
    def of(cls, path: Path, name: str | None = None) -> "File":
        """The record of a file on disk, under `name` (default: its own name)."""
        return cls(path=name or path.name, digest=digest_file(path), size=path.stat().st_size)


@dataclass(frozen=True, slots=True, kw_only=True)
class Provenance:
    """How an artifact came to be; with the parent's digest it is one link of the chain back to the source.

    `config` is the stage's full configuration, `environment` what the machine was (`environment.Environment`), `at` an
    ISO-8601 UTC time. `notes` are facts that the stage wants to tell (channels removed, ranges used), for people.
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
class Artifact:
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
        """The content's ``sha256:...``; equal for equal content, whoever made it."""
        content = self.to_json()
        del content["made_by"]
        return digest_bytes(canonical(content))

    @property
    def planned(self) -> bool:
        """Whether this is only the plan of an engine: TensorRT was not at hand, so nothing can open it yet."""
        return self.format == "tensorrt" and not any(file.path.endswith(".plan") for file in self.files)

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

    def to_json(self) -> dict[str, Any]:
        """The artifact as JSON values (`from_json` reads it back)."""
        return {
            "schema": SCHEMA,
            "name": self.name,
            "format": self.format,
            "files": [asdict(file) for file in self.files],
            "inputs": [asdict(spec) | {"shape": list(spec.shape)} for spec in self.inputs],
            "outputs": [asdict(spec) | {"shape": list(spec.shape)} for spec in self.outputs],
            "requires": dict(self.requires),
            "made_by": asdict(self.made_by),
        }

    @classmethod
    def from_json(cls, value: Mapping[str, Any]) -> "Artifact":
        """Read what `to_json` wrote.

        Raises:
            IntegrityError: another schema, or fields that are missing or unknown.
        """
        if value.get("schema") != SCHEMA:
            raise IntegrityError(
                f"an artifact record of schema {value.get('schema')!r}; this version reads {SCHEMA}",
                next_step="use the version of seatrial that wrote it, or build it again",
            )
        try:
            return cls(
                name=value["name"],
                format=value["format"],
                files=tuple(File(**file) for file in value["files"]),
                inputs=tuple(_spec(spec) for spec in value["inputs"]),
                outputs=tuple(_spec(spec) for spec in value["outputs"]),
                requires=value["requires"],
                made_by=Provenance(**value["made_by"]),
            )
        except (KeyError, TypeError) as error:
            raise IntegrityError(
                f"an artifact record that cannot be read: {error}", next_step="build it again"
            ) from error


def _spec(value: Mapping[str, Any]) -> TensorSpec:
    return TensorSpec(name=value["name"], dtype=value["dtype"], shape=tuple(value["shape"]))
