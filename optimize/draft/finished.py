"""Finished files: an ONNX file given in place of an artifact is stored as one."""

from pathlib import Path

import numpy as np

from .. import scratch
from ..artifact import Artifact, File, Provenance
from ..environment import environment, home, now
from ..errors import ConfigError, MissingError
from ..record import as_json
from ..samples import Array
from ..store import Store
from .draft import slug
from .model import Input

SUFFIX = ".onnx"
_TRIED = "tried on"  # key of the note about the random samples that a file was tried on


def named(reference: str, store: Store) -> Artifact:
    """Return the artifact of a tag or digest, or the one that an ONNX file becomes.

    Raises:
        MissingError: no such artifact, or no such file.
        SourceError, ConfigError: as `sealed`.
    """
    if not reference.endswith(SUFFIX):
        return store.get(reference)
    path = Path(reference)
    if not path.is_file():
        raise MissingError(
            f"no such file: {reference}", where=str(path.absolute()), next_step="check the path, or name an artifact"
        )
    return sealed(path, store)


def sealed(path: Path, store: Store) -> Artifact:
    """Keep an ONNX file as an artifact, tried on random samples; the same bytes are the same artifact.

    Raises:
        SourceError: it is not ONNX, or of a kind that cannot be served.
        ConfigError: no guess at its inputs runs.
    """
    from ..intake import on_onnx as intake
    from . import on_onnx as looking

    with scratch.folder("source", home() / "work") as folder:
        try:
            seen = looking.seen(path, folder)
        except ConfigError as error:
            error.next_step = (
                f"run: seatrial init {path} with --input NAME=SHAPE[:DTYPE] for each input; then build its recipe and "
                "name the artifact"
            )
            raise
        intake.declare(folder / intake.FILE, seen.tensors)
        artifact = Artifact(
            name=slug(path.stem),
            format="onnx",
            files=tuple(File.of(folder / name, name) for name in seen.written.files),
            inputs=seen.tensors.inputs,
            outputs=seen.tensors.outputs,
            requires={},
            made_by=Provenance(
                stage="source",
                parent=None,
                config={"onnx": path.name},
                recipe="",
                samples=None,
                seed=0,
                environment=environment().to_json(),
                at=now(),
                notes={
                    "changes": list(seen.written.changes),
                    _TRIED: as_json(seen.inputs),
                },
            ),
        )
        return store.put(artifact, folder)


def tried_on(artifact: Artifact, rows: int, seed: int) -> dict[str, Array] | None:
    """Return `rows` random samples, [rows, ...], as a finished file was tried on; None for other artifacts."""
    noted = artifact.made_by.notes.get(_TRIED)
    if not noted:
        return None
    random = np.random.default_rng(seed)
    inputs = [Input(**each | {"shape": tuple(each["shape"])}) for each in noted]
    return {each.name: each.sample(random, rows) for each in inputs}
