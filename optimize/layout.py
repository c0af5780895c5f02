"""Documents of the store's OCI image layout: writing, and reading with full validation.

Pure. `read_index` and `read_manifest` raise ValueError with the reason; the reader from disk adds where and what to
do. The index carries a digest over its own entries, so that a changed tag is found as a changed blob is.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, TypeGuard

from .artifact import Artifact, canonical, digest_bytes, is_digest
from .plain import parse_json

MANIFEST = "application/vnd.oci.image.manifest.v1+json"
INDEX = "application/vnd.oci.image.index.v1+json"
ARTIFACT = "application/vnd.seatrial.artifact.v1"
CONFIG = "application/vnd.seatrial.artifact.config.v1+json"
LAYER = "application/octet-stream"
TITLE = "org.opencontainers.image.title"
TAG = "org.opencontainers.image.ref.name"
DIGEST = "dev.seatrial.artifact.digest"
SEAL = "dev.seatrial.index.digest"

LAYOUT = canonical({"imageLayoutVersion": "1.0.0"})
RECORD_LIMIT = 16 << 20  # bytes of a manifest or config; ours have some thousand
INDEX_LIMIT = 128 << 20  # bytes of an index; an entry has some three hundred


@dataclass(frozen=True, slots=True, kw_only=True)
class IndexEntry:
    """One line of the index: the manifest (`digest`, `size`) of an artifact, under a tag or under none."""

    artifact: str
    digest: str
    size: int
    tag: str | None = None

    def to_json(self) -> dict[str, Any]:
        """The OCI descriptor."""
        annotations = {DIGEST: self.artifact} | ({} if self.tag is None else {TAG: self.tag})
        return {
            "mediaType": MANIFEST,
            "artifactType": ARTIFACT,
            "digest": self.digest,
            "size": self.size,
            "annotations": annotations,
        }


@dataclass(frozen=True, slots=True, kw_only=True)
class StoreIndex:
    """The index: our entries, oldest first, and what other tools put in (kept as it is).

    `sealed` says that it carries the digest over its entries; one that an earlier version wrote does not.
    """

    entries: tuple[IndexEntry, ...] = ()
    others: tuple[Mapping[str, Any], ...] = ()
    sealed: bool = True

    def entry(self, artifact: str) -> IndexEntry | None:
        """The first entry of that artifact, or None."""
        return next((entry for entry in self.entries if entry.artifact == artifact), None)

    @property
    def artifacts(self) -> tuple[str, ...]:
        """Digests of the artifacts, oldest first."""
        return tuple(dict.fromkeys(entry.artifact for entry in self.entries))

    def tags(self, artifact: str | None = None) -> tuple[str, ...]:
        """The tags, of one artifact or of all."""
        wanted = (entry for entry in self.entries if artifact in (None, entry.artifact))
        return tuple(sorted(entry.tag for entry in wanted if entry.tag is not None))

    def holding(self, entry: IndexEntry) -> "StoreIndex":
        """With that artifact under that manifest; its tags stay and point there too."""
        moved = tuple(
            replace(entry, tag=each.tag) if each.artifact == entry.artifact else each for each in self.entries
        )
        known = any(each.artifact == entry.artifact and each.tag is None for each in self.entries)
        return replace(self, entries=moved if known else (*moved, replace(entry, tag=None)))

    def tagged(self, artifact: str, tag: str) -> "StoreIndex":
        """With the tag on that artifact, and on no other."""
        if any(each.artifact == artifact and each.tag == tag for each in self.entries):
            return self
        untagged = {each.artifact for each in self.entries if each.tag is None}
        others = tuple(
            replace(each, tag=None) if each.tag == tag else each
            for each in self.entries
            if each.tag != tag or each.artifact not in untagged
        )
        found = next(each for each in self.entries if each.artifact == artifact)
        return replace(self, entries=(*others, replace(found, tag=tag)))

    def without(self, artifacts: Sequence[str]) -> "StoreIndex":
        """Without those artifacts and their tags."""
        return replace(self, entries=tuple(each for each in self.entries if each.artifact not in artifacts))

    def to_bytes(self) -> bytes:
        """The file `index.json`, sealed."""
        ours = [entry.to_json() for entry in self.entries]
        return canonical(
            {
                "schemaVersion": 2,
                "mediaType": INDEX,
                "manifests": [*ours, *self.others],
                "annotations": {SEAL: digest_bytes(canonical(ours))},
            }
        )


def read_index(data: bytes) -> StoreIndex:
    """The index that `to_bytes` or an earlier version wrote, or another tool added to.

    Raises:
        ValueError: it is not one, or its entries are not those that its digest is over.
    """
    value = parse_json(data)
    if not isinstance(value, dict) or value.get("schemaVersion") != 2 or value.get("mediaType", INDEX) != INDEX:
        raise ValueError("not an OCI image index")
    manifests, annotations = value.get("manifests"), value.get("annotations", {})
    if not isinstance(manifests, list) or not all(isinstance(each, dict) for each in manifests):
        raise ValueError("its manifests are not a list of descriptors")
    ours = [each for each in manifests if DIGEST in _mapping(each.get("annotations", {}))]
    seal = _mapping(annotations).get(SEAL)
    if seal is not None and seal != digest_bytes(canonical(ours)):
        raise ValueError("its entries differ from those that were written")
    entries = tuple(read_entry(each) for each in ours)
    tags = [entry.tag for entry in entries if entry.tag is not None]
    if len(set(tags)) < len(tags):
        raise ValueError("a tag occurs twice")
    others = tuple(each for each in manifests if DIGEST not in each.get("annotations", {}))
    canonical(list(others))  # a text that cannot be written again is not read either
    return StoreIndex(entries=entries, others=others, sealed=seal is not None)


def read_entry(value: Any) -> IndexEntry:
    """One descriptor of ours.

    Raises:
        ValueError: it is none.
    """
    notes = _mapping(_mapping(value).get("annotations"))
    digest, size, artifact, tag = value.get("digest"), value.get("size"), notes.get(DIGEST), notes.get(TAG)
    if not is_digest(digest) or not is_digest(artifact):
        raise ValueError(f"{str(artifact)[:80]!r} at {str(digest)[:80]!r} is not a pair of digests")
    if type(size) is not int or not 0 < size <= RECORD_LIMIT:
        raise ValueError(f"{str(size)[:40]} is not the size of a manifest")
    if tag is not None and not is_tag(tag):
        raise ValueError(f"{str(tag)[:80]!r} is not a tag")
    return IndexEntry(artifact=artifact, digest=digest, size=size, tag=tag)


def is_tag(value: object) -> TypeGuard[str]:
    """Return whether a value may be a tag: text that can be shown, and that is no digest and no short form of one."""
    return (
        isinstance(value, str)
        and value.isprintable()
        and bool(value)
        and "@" not in value
        and not value.startswith("sha256:")
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class StoreManifest:
    """References in a manifest: the artifact, the blob of its record, and its files' blobs."""

    artifact: str
    config: str
    layers: tuple[tuple[str, str, int], ...]


def manifest_bytes(artifact: Artifact) -> tuple[bytes, bytes]:
    """An artifact's record and its manifest, which follows from the record."""
    config = canonical(artifact.to_json())
    manifest = {
        "schemaVersion": 2,
        "mediaType": MANIFEST,
        "artifactType": ARTIFACT,
        "config": {"mediaType": CONFIG, "digest": digest_bytes(config), "size": len(config)},
        "layers": [
            {"mediaType": LAYER, "digest": file.digest, "size": file.size, "annotations": {TITLE: file.path}}
            for file in artifact.files
        ],
        "annotations": {DIGEST: artifact.digest, TITLE: artifact.name},
    }
    return config, canonical(manifest)


def read_manifest(data: bytes) -> StoreManifest:
    """Return what `manifest_bytes` made.

    Raises:
        ValueError: it is no manifest of ours.
    """
    value = _mapping(parse_json(data))
    if value.get("artifactType") != ARTIFACT:
        raise ValueError("not the manifest of an artifact")
    artifact, config = _mapping(value.get("annotations")).get(DIGEST), _mapping(value.get("config")).get("digest")
    layers = value.get("layers")
    if not is_digest(artifact) or not is_digest(config):
        raise ValueError("it contains invalid digests")
    if not isinstance(layers, list):
        raise ValueError("its layers are not a list")  # noqa: TRY004  every reason is a ValueError here
    return StoreManifest(artifact=artifact, config=config, layers=tuple(_layer(each) for each in layers))


def _layer(value: Any) -> tuple[str, str, int]:
    title = _mapping(_mapping(value).get("annotations")).get(TITLE)
    digest, size = value.get("digest"), value.get("size")
    if not isinstance(title, str) or not is_digest(digest) or type(size) is not int:
        raise ValueError("a layer is not a file of an artifact")
    return title, digest, size


def read_record(data: bytes, artifact: str | None = None) -> Artifact:
    """The artifact of a record (an OCI config).

    Raises:
        ValueError: it is none, or another artifact's.
        IntegrityError: another schema, or fields that are missing or of another type.
    """
    value = parse_json(data)
    canonical(value)  # infinite numbers are refused where they are read
    found = Artifact.from_json(value)
    if artifact is not None and found.digest != artifact:
        raise ValueError(f"it is the record of {found.digest[:19]}, not of {artifact[:19]}")
    return found


def _mapping(value: Any) -> Mapping[str, Any]:
    if not isinstance(value, dict):
        raise ValueError(f"{str(value)[:40]!r} is not an object")  # noqa: TRY004  every reason is a ValueError here
    return value
