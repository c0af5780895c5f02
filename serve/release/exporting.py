"""An artifact taken out of the store: its files under their own names, its record, and a bill of materials.

The bill is CycloneDX 1.6 with a model card: the model with the digests of its files, the ancestor that it was made
from, the libraries that made it with their versions, and the figures of its release.

Source: CycloneDX 1.6 JSON schema, https://cyclonedx.org/docs/1.6/json/.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any
from urllib.parse import quote
from uuid import NAMESPACE_URL, uuid5

from seatrial.optimize import scratch
from seatrial.optimize.artifact import Artifact, canonical
from seatrial.optimize.errors import ConfigError
from seatrial.optimize.store import Store
from seatrial.optimize.store_folder import disk_errors

from .croissant import dataset
from .record import Release

RECORD, BOM, CROISSANT = "seatrial.json", "bom.cdx.json", "croissant.json"


def export(
    chain: Sequence[Artifact],
    release: Release | None,
    *,
    home: Path,
    to: Path,
    bom: bool = False,
    croissant: bool = False,
) -> tuple[Path, ...]:
    """Write the first artifact of a chain into the new folder `to`; return its files.

    Raises:
        MissingError: the manifest of its data is wanted, and its provenance has none.
        ConfigError: the folder exists, or an artifact's file has the name of the record.
        IntegrityError: a file is damaged in the store; nothing was written.
        MachineError: the disk refused.
    """
    artifact = chain[0]
    if to.exists() or to.is_symlink():
        raise ConfigError("the folder exists already", where=str(to), next_step="name a new one")
    if clash := {RECORD, BOM, CROISSANT} & {file.path for file in artifact.files}:
        raise ConfigError(
            f"the artifact has a file called {clash.pop()}", where=artifact.short, next_step="push it instead"
        )
    with disk_errors(to), scratch.folder(".export", to.absolute().parent) as place:
        made = place / "made"
        made.mkdir()
        Store(home / "store").materialize(artifact, made)
        (made / RECORD).write_bytes(canonical(artifact.to_json() | {"digest": artifact.digest}) + b"\n")
        if croissant:
            (made / CROISSANT).write_bytes(canonical(dataset(chain)) + b"\n")
        if bom:
            (made / BOM).write_bytes(canonical(bill(chain, release)) + b"\n")
        made.rename(to)
    return tuple(sorted(path for path in to.rglob("*") if path.is_file()))


def bill(chain: Sequence[Artifact], release: Release | None) -> dict[str, Any]:
    """Return the CycloneDX 1.6 document; equal for equal content."""
    artifact = chain[0]
    libraries = _libraries(artifact.made_by.environment)
    purls = {name: f"pkg:pypi/{quote(name.lower())}@{quote(version)}" for name, version in libraries.items()}
    return {
        "$schema": "http://cyclonedx.org/schema/bom-1.6.schema.json",
        "bomFormat": "CycloneDX",
        "specVersion": "1.6",
        "serialNumber": f"urn:uuid:{uuid5(NAMESPACE_URL, artifact.digest)}",
        "version": 1,
        "metadata": {"timestamp": artifact.made_by.at, "component": _model(chain, release)},
        "components": [
            {
                "type": "library",
                "bom-ref": purls[name],
                "name": name,
                "version": version,
                "purl": purls[name],
            }
            for name, version in libraries.items()
        ],
        "dependencies": [{"ref": artifact.digest, "dependsOn": [*purls.values()]}],
    }


def _libraries(environment: Mapping[str, Any]) -> dict[str, str]:
    found = environment.get("libraries")
    return {str(name): str(version) for name, version in found.items() if version} if isinstance(found, Mapping) else {}


def _model(chain: Sequence[Artifact], release: Release | None) -> dict[str, Any]:
    artifact = chain[0]
    found: dict[str, Any] = {
        "type": "machine-learning-model",
        "bom-ref": artifact.digest,
        "name": release.name if release else artifact.name,
        "version": str(release.version) if release else artifact.digest.removeprefix("sha256:")[:12],
        "components": [
            {
                "type": "file",
                "bom-ref": f"{artifact.digest}/{file.path}",
                "name": file.path,
                "hashes": [{"alg": "SHA-256", "content": file.digest.removeprefix("sha256:")}],
            }
            for file in artifact.files
        ],
        "modelCard": {
            "modelParameters": {
                "inputs": [{"format": f"{each.name}: {each.dtype} {list(each.shape)}"} for each in artifact.inputs],
                "outputs": [{"format": f"{each.name}: {each.dtype} {list(each.shape)}"} for each in artifact.outputs],
            },
            **({"quantitativeAnalysis": {"performanceMetrics": _metrics(release)}} if release else {}),
        },
        "properties": [
            {"name": f"seatrial:{name}", "value": value}
            for name, value in (
                ("format", artifact.format),
                ("recipe", artifact.made_by.recipe),
                ("samples", artifact.made_by.samples or ""),
                ("seed", str(artifact.made_by.seed)),
                ("commit", str(artifact.made_by.environment.get("commit") or "")),
            )
            if value
        ],
    }
    if len(chain) > 1:
        found["pedigree"] = {
            "ancestors": [
                {
                    "type": "machine-learning-model",
                    "name": each.name,
                    "bom-ref": each.digest,
                    "version": each.made_by.stage,
                }
                for each in chain[1:]
            ],
            "notes": " <- ".join(each.made_by.stage for each in chain),
        }
    return found


def _metrics(release: Release) -> list[dict[str, Any]]:
    """Return the verdict's figures; an interval where it is that of the value."""
    found = list[dict[str, Any]]()
    for each in release.verdict.get("findings", ()):
        if not isinstance(each, Mapping) or each.get("candidate") is None:
            continue
        name = " ".join(str(each[key]) for key in ("metric", "rule") if each.get(key))
        metric = {"type": name, "value": f"{each['candidate']:.6g} {each.get('unit', '')}".strip()}
        if each.get("about"):
            metric["slice"] = str(each["about"])
        found.append(metric)
    return found
