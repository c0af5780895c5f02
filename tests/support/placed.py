"""A store and a repository with one placed model of each backend, and ways of spoiling what was placed."""

import hashlib
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

from seatrial.optimize.artifact import Artifact, File, TensorSpec
from seatrial.optimize.store import Store
from seatrial.serve.deployment import Deployment
from seatrial.serve.deployment.ensemble import Ensemble, Port, Step
from seatrial.serve.triton.repository.placing import place, place_ensemble

from .made_by import MADE_BY

EVIL = "import os\nos.system('true')\n"


def put(folder: Path) -> None:
    """Write ``store`` and ``models``: the models ``python`` and ``native``, and the ensemble ``both``."""
    store = Store(folder / "store")
    (folder / "made").mkdir()
    (folder / "made" / "model.onnx").write_bytes(b"graph")
    made = Artifact(
        name="m",
        format="onnx",
        files=(File.of(folder / "made" / "model.onnx"),),
        inputs=(TensorSpec(name="x", dtype="float32", shape=("n", 4)),),
        outputs=(TensorSpec(name="y", dtype="float32", shape=("n", 4)),),
        requires={},
        made_by=MADE_BY,
    )
    store.put(made, folder / "made")
    for backend in ("python", "native"):
        deployment = Deployment(schema=1, name=backend, backend=backend, max_batch_size=8)
        place(made, deployment, store=store, repository=folder / "models", elsewhere=True)
    steps = (
        Step(model="python", version=1, inputs={"x": "x"}, outputs={"y": "between"}),
        Step(model="native", version=1, inputs={"x": "between"}, outputs={"y": "y"}),
    )
    ends = {side: (Port(name=side, dtype="float32", shape=(4,)),) for side in ("x", "y")}
    both = Ensemble(schema=1, name="both", max_batch_size=8, steps=steps, inputs=ends["x"], outputs=ends["y"])
    place_ensemble(both, repository=folder / "models")


def record(version: Path, change: Callable[[dict[str, Any]], object]) -> None:
    told = json.loads((version / "placement.json").read_bytes())
    change(told)
    (version / "placement.json").write_text(json.dumps(told))


def digest(path: Path) -> str:
    return f"sha256:{hashlib.sha256(path.read_bytes()).hexdigest()}"


def planted(version: Path, name: str) -> None:
    (version / name).parent.mkdir(parents=True, exist_ok=True)
    (version / name).write_text(EVIL)


def instead(path: Path, make: Callable[[Path], object]) -> None:
    path.unlink()
    make(path)
