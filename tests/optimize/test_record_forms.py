"""Stored forms of the records of optimize: what an earlier version wrote is read, and is written as it was."""

import json
from math import inf
from pathlib import Path
from typing import Any

import pytest

from seatrial.optimize.artifact import canonical
from seatrial.optimize.environment import Environment
from seatrial.optimize.errors import IntegrityError
from seatrial.optimize.graphs.coverage import Coverage, Island, Layer
from seatrial.optimize.inspection import Damage, Inspection
from seatrial.optimize.parity.agreement import Agreement
from seatrial.optimize.reading import decode
from seatrial.optimize.recipe.configs import DistillConfig, Features, Shapes, Tolerance
from seatrial.optimize.record import as_json
from seatrial.optimize.sessions.on_torch import Architecture
from seatrial.optimize.tensorrt.plan import EnginePlan
from seatrial.optimize.user_code import Reference

GOLDEN = Path(__file__).parents[1] / "golden" / "records"
LAYER = Layer(name="a", kind="Conv", precision="int8", macs=12)
READ: dict[str, Any] = {
    "engine-plan": EnginePlan(
        model="sha256:" + "a" * 64,
        network=("STRONGLY_TYPED",),
        set=("REFIT",),
        clear=("TF32",),
        profiles=({"x": Shapes(min=(1, 3), opt=(4, 3), max=(8, 3))},),
        memory_pools={"WORKSPACE": 1 << 28},
        builder_optimization_level=3,
        hardware_compatibility_level="NONE",
        profiling_verbosity="DETAILED",
        timing_cache=True,
    ),
    "coverage": Coverage(
        layers=(LAYER,),
        islands=(Island(layer=LAYER, reason="no kernel"),),
        unseen=("b (Loop)",),
        engine="onnxruntime",
        machine="x86_64",
        shapes={"x": (1, 3)},
    ),
    "coverage-on-a-device": Coverage(
        layers=(LAYER,), islands=(), unseen=(), engine="onnxruntime", machine="x86_64", device="cuda:1"
    ),
    "parity": Agreement(
        output="y",
        batch=4,
        lengths={"n": 7},
        relative_error=0.25,
        snr=12.0,
        tolerance=Tolerance(relative_error=0.1),
        broken=("relative_error",),
        kind="float",
        rows=4,
        judged=("relative_error", "cosine"),
    ),
    "parity-lost": Agreement(
        output="y", batch=4, relative_error=inf, snr=-inf, spread_error=inf, tolerance=Tolerance(cosine=0.9)
    ),
    "architecture": Architecture(
        factory="source.py:net", arguments={"width": 4, "layers": [1, 2]}, sizes={"conv": {"out_channels": 3}}
    ),
}
WRITTEN: dict[str, Any] = {
    "inspection": Inspection(
        counts={"blobs": 2},
        damage=(Damage(part="blob", what="w", where="/x", next_step="n"),),
        repaired=("r",),
        remarks=("m",),
    ),
    "environment": Environment(
        python="3.11",
        system="Linux",
        architecture="x86_64",
        cpu="x",
        cpu_flags=("avx2",),
        cores=2,
        memory_bytes=5,
        gpus=("g",),
        libraries={"numpy": "2"},
        commit="c",
    ),
}


def form(name: str) -> Any:
    """Return what today's earlier version wrote."""
    return json.loads((GOLDEN / f"{name}.json").read_text())


@pytest.mark.parametrize("name", [*READ, *WRITTEN])
def test_a_record_is_written_as_it_was(name: str) -> None:
    value = (READ | WRITTEN)[name]
    written = value.to_json() if hasattr(value, "to_json") else as_json(value)
    assert written == form(name)  # equal, and plain JSON values
    canonical(written)


@pytest.mark.parametrize("name", READ)
def test_a_record_of_an_earlier_version_is_read(name: str) -> None:
    kind = type(READ[name])
    read = getattr(kind, "from_json", lambda value: decode(kind, value, where=""))
    assert read(form(name)) == READ[name]


@pytest.mark.parametrize("name", ["engine-plan", "architecture"])
def test_a_damaged_record_is_refused(name: str) -> None:
    kind, stored = type(READ[name]), form(name)
    first = next(key for key in stored if key not in ("schema", "trtexec"))
    for value in (stored | {"schema": 2}, stored | {"extra": 1}, stored | {first: [3]}):
        with pytest.raises(IntegrityError):
            kind.from_json(value)
    with pytest.raises(IntegrityError, match=first):
        kind.from_json({key: value for key, value in stored.items() if key != first})


def test_the_job_of_workers_is_read_as_it_was_written(tmp_path: Path) -> None:
    pytest.importorskip("torch")
    from seatrial.optimize.stages.workers import Job

    job = Job(
        config=DistillConfig(kind="distill", student="x", features=(Features(student="blocks.*", teacher="blocks.*"),)),
        student=Reference(text="f.py:net", name="net", file=tmp_path / "f.py", module=None),
        inputs=("b", "a"),
        split="calibration",
        teacher="sha256:" + "a" * 64,
        store=tmp_path,
        seed=7,
        checkpoint=None,
    )
    job.write(tmp_path / "job.json")
    assert Job.read(tmp_path / "job.json") == job


def test_a_fingerprint_stays() -> None:
    assert WRITTEN["environment"].fingerprint == form("fingerprint")
