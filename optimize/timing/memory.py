"""Memory: the peak that opening and running an artifact adds to a process, measured in fresh processes of its own.

High-water mark of the resident set (``VmHWM``, set back just before) over the resident set before opening, once the
engine's library is imported and the batch is loaded: what one more copy of the model costs a server that has both. The
measuring process is `memory_probe`; which artifact is better is not judged here.
"""

import json
import os
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from statistics import median

from .. import guarding, scratch
from ..artifact import Artifact, canonical, digest_bytes
from ..environment import environment
from ..reading import decode
from ..record import as_json
from ..samples import Samples
from ..sessions.choice import OWN, EngineChoice
from ..sessions.device import device_of
from ..store import Store

PROCESSES = 3
BATCH_FILE = "batch.safetensors"
_SECONDS = 300  # a process that takes longer is given up
_ROOT = Path(__file__).parents[3]


@dataclass(frozen=True, slots=True, kw_only=True)
class Memory:
    """Median peak in bytes over fresh processes, the least and the most of them, and the batch that was run."""

    bytes: int
    low: int
    high: int
    batch: int
    processes: int


def memory_of(
    artifact: Artifact,
    store: Store,
    samples: Callable[[], Samples],
    digest: str,
    *,
    batch: int,
    choice: EngineChoice = OWN,
) -> Memory | None:
    """Return the memory that opening and running the artifact on one thread adds, as this machine measured it once.

    `digest` is of the samples. None where it is unknown: the system keeps no high-water mark, the artifact does not
    run here, or its memory is not the process's (an engine on a GPU).
    """
    key = _key(artifact, digest, batch, choice)
    if (known := recall(artifact, store, digest, batch=batch, choice=choice)) is not None:
        return known
    place = choice.of(artifact.format).device or choice.engine_for(artifact.format).device
    if artifact.planned or device_of(place).kind != "cpu":
        return None
    with scratch.folder("memory", store.root.parent / "work") as folder:
        rows = samples().take(batch)
        _write_batch(folder / BATCH_FILE, rows)
        measured: list[int] = []
        for _ in range(PROCESSES):
            if (peak := _peak(artifact, store, folder, choice.of(artifact.format).engine)) is None:
                return None
            measured.append(peak)
    found = Memory(
        bytes=int(median(measured)), low=min(measured), high=max(measured), batch=len(rows), processes=PROCESSES
    )
    store.remember("memory", key, as_json(found))
    return found


def recall(artifact: Artifact, store: Store, digest: str, *, batch: int, choice: EngineChoice = OWN) -> Memory | None:
    """Return what this machine measured before, or None."""
    return store.recall_as("memory", _key(artifact, digest, batch, choice), lambda note: decode(Memory, note, where=""))


def _key(artifact: Artifact, digest: str, batch: int, choice: EngineChoice) -> str:
    note = {
        "schema": 1,
        "artifact": artifact.digest,
        "samples": digest,
        "batch": batch,
        "engine": choice.of(artifact.format).engine or "onnxruntime",
    }
    return digest_bytes(canonical(note | {"machine": environment().fingerprint}))


def _write_batch(path: Path, rows: Samples) -> None:
    from safetensors.numpy import save_file

    save_file(dict(rows.inputs), path)


def _peak(artifact: Artifact, store: Store, folder: Path, engine: str) -> int | None:
    """Return the bytes that one fresh process grew by, or None where it could not measure them."""
    command = [
        sys.executable,
        "-m",
        "seatrial.optimize.timing.memory_probe",
        str(store.root),
        artifact.digest,
        str(folder),
        engine,
    ]
    paths = [str(_ROOT), os.environ.get("PYTHONPATH", "")]
    surroundings = os.environ | {"PYTHONPATH": os.pathsep.join(filter(None, paths))}
    try:
        code, said = guarding.run(command, environment=surroundings, seconds=_SECONDS)
        return int(json.loads(said.strip().splitlines()[-1])["bytes"]) if code == 0 else None
    except (OSError, subprocess.SubprocessError, IndexError, KeyError, ValueError, TypeError):
        return None
