"""A release as an OCI artifact in the form of CNCF ModelPack: manifest, layers, and their paths.

Pure. Weights of the released artifact are layers under their own names, so that any tool that reads ModelPack finds
them. What seatrial needs beside them lies under ``seatrial/``: records of the artifact and its ancestors, the
ancestors' files, the chain of release records up to this one, approvals, and the gate's run as a tar.

Source of the media types: CNCF ModelPack specification v0.0 (``application/vnd.cncf.model.*.v1``).
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import PurePosixPath
from typing import Any, Final

from seatrial.optimize.artifact import Artifact, canonical, is_digest
from seatrial.optimize.layout import MANIFEST
from seatrial.optimize.plain import parse_json

from ..record import Release

TYPE: Final = "application/vnd.cncf.model.manifest.v1+json"
CONFIG: Final = "application/vnd.cncf.model.config.v1+json"
WEIGHT: Final = "application/vnd.cncf.model.weight.v1.raw"
DOC: Final = "application/vnd.cncf.model.doc.v1.raw"
DOC_TAR: Final = "application/vnd.cncf.model.doc.v1.tar"
PATH: Final = "org.cncf.model.filepath"
RELEASE: Final = "dev.seatrial.release"
OWN: Final = "seatrial"
RUN: Final = f"{OWN}/run.tar"
MANIFEST_LIMIT = 4 << 20  # bytes; registries refuse larger ones
RECORD_LIMIT = 64 << 20  # bytes of one record or approval
RUN_LIMIT = 4 << 30  # bytes of a run's tar
MOST_LAYERS = 4096


@dataclass(frozen=True, slots=True, kw_only=True)
class Layer:
    """One blob of a release: its media type, its path inside the release, its digest and its size in bytes."""

    media: str
    path: str
    digest: str
    size: int

    def to_json(self) -> dict[str, Any]:
        """Return the OCI descriptor."""
        return {
            "mediaType": self.media,
            "digest": self.digest,
            "size": self.size,
            "annotations": {PATH: self.path, "org.opencontainers.image.title": self.path},
        }


@dataclass(frozen=True, slots=True, kw_only=True)
class Package:
    """The manifest of a release: its label, the ModelPack config, and its layers."""

    label: str
    config: Layer
    layers: tuple[Layer, ...]

    def under(self, folder: str) -> tuple[Layer, ...]:
        """Return the layers under ``seatrial/<folder>/``, in the manifest's order."""
        return tuple(each for each in self.layers if each.path.startswith(f"{OWN}/{folder}/"))

    def at(self, path: str) -> Layer | None:
        """Return the layer of that path, or None."""
        return next((each for each in self.layers if each.path == path), None)


def artifact_path(index: int) -> str:
    """Return the path of an artifact's record: 0 is the released one, 1 its parent, and so on."""
    return f"{OWN}/artifacts/{index}.json"


def file_path(index: int, name: str) -> str:
    """Return the path of an artifact's file: the released one's own name, an ancestor's under a folder of its own."""
    return name if index == 0 and not name.startswith(f"{OWN}/") else f"{OWN}/files/{index}/{name}"


def release_path(version: int) -> str:
    """Return the path of a release record."""
    return f"{OWN}/releases/{version}.json"


def approval_path(version: int, name: str) -> str:
    """Return the path of an approval."""
    return f"{OWN}/approvals/{version}/{name}"


def config_bytes(artifact: Artifact, release: Release) -> bytes:
    """Return the ModelPack config, which other tools show."""
    return canonical(
        {
            "descriptor": {
                "name": release.name,
                "version": str(release.version),
                "createdAt": release.at,
                "title": artifact.short,
            },
            "config": {"format": artifact.format},
            "modelfs": {"type": "layers", "diffIds": [file.digest for file in artifact.files]},
        }
    )


def manifest_bytes(release: Release, config: Layer, layers: Sequence[Layer]) -> bytes:
    """Return the manifest; equal for equal content."""
    return canonical(
        {
            "schemaVersion": 2,
            "mediaType": MANIFEST,
            "artifactType": TYPE,
            "config": {"mediaType": CONFIG, "digest": config.digest, "size": config.size},
            "layers": [each.to_json() for each in layers],
            "annotations": {RELEASE: release.label, "org.opencontainers.image.created": release.at},
        }
    )


def read_package(data: bytes) -> Package:
    """Return what `manifest_bytes` made, whoever keeps it.

    Raises:
        ValueError: it is no manifest of a release, or a path, digest or size in it may not be used.
    """
    value = parse_json(data)
    if not isinstance(value, dict) or value.get("schemaVersion") != 2 or value.get("artifactType") != TYPE:
        kind = value.get("artifactType") if isinstance(value, dict) else None
        raise ValueError(f"its type is {str(kind)[:80]!r}, a model in the form of ModelPack has {TYPE!r}")
    label = _mapping(value.get("annotations")).get(RELEASE)
    if not isinstance(label, str):
        raise ValueError(f"it has no annotation {RELEASE}: it was not pushed by seatrial")  # noqa: TRY004
    layers = value.get("layers")
    if not isinstance(layers, list) or not 0 < len(layers) <= MOST_LAYERS:
        raise ValueError("its layers are invalid")
    config = _layer({**_mapping(value.get("config")), "annotations": {PATH: "config"}})
    found = tuple(_layer(each) for each in layers)
    if len({each.path for each in found}) < len(found):
        raise ValueError("a path occurs twice")
    return Package(label=label, config=config, layers=found)


def _layer(value: Any) -> Layer:
    """Return a layer whose path stays inside a folder.

    Raises:
        ValueError: it is none.
    """
    given = _mapping(value)
    path, digest, size = _mapping(given.get("annotations")).get(PATH), given.get("digest"), given.get("size")
    if not isinstance(path, str) or not path.isprintable() or not is_digest(digest):
        raise ValueError("a layer has no path or no digest")
    parts = PurePosixPath(path)
    if parts.is_absolute() or ".." in parts.parts or not parts.parts:
        raise ValueError(f"the path {path[:80]!r} leaves the release")
    if type(size) is not int or size < 0:
        raise ValueError(f"{str(size)[:40]} is not the size of {path[:80]!r}")
    return Layer(media=str(given.get("mediaType")), path=path, digest=digest, size=size)


def _mapping(value: Any) -> Mapping[str, Any]:
    return value if isinstance(value, Mapping) else {}
