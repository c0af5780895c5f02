"""Runs one stage on one ONNX graph in a folder of its own, without a recipe; and ONNX Runtime alone beside it."""

import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime as ort

from seatrial.optimize.artifact import Artifact, File, Provenance, TensorSpec
from seatrial.optimize.environment import environment, now
from seatrial.optimize.recipe.configs import StageConfig
from seatrial.optimize.recipe.kinds import STAGES
from seatrial.optimize.recipe.recipe import Source
from seatrial.optimize.recipe.targets import TARGETS, broken
from seatrial.optimize.samples import Array, Samples, Split
from seatrial.optimize.stages.stage import Context, Made
from seatrial.optimize.store import Store

FILE = "model.onnx"


@dataclass(frozen=True, slots=True, kw_only=True)
class Result:
    """Notes of the stage, and the graph that it made."""

    made: Made
    model: onnx.ModelProto


def run_stage(config: StageConfig, model: onnx.ModelProto, inputs: Mapping[str, Array]) -> Result:
    """Run the stage with these calibration samples.

    Raises:
        SeatrialError: the stage refused.
    """
    with tempfile.TemporaryDirectory(prefix="seatrial-fault") as name:
        folder = Path(name)
        (folder / "float").mkdir()
        onnx.save(model, str(folder / "float" / FILE))
        store = Store(folder / "store")
        parent = store.put(_artifact(model, folder / "float" / FILE), folder / "float")
        work = folder / "work"
        work.mkdir()

        def samples(split: Split) -> Samples:
            return Samples(split=split, inputs=dict(inputs), labels=None)

        context = Context(
            folder=work,
            checkpoints=folder / "checkpoints",
            store=store,
            origin=parent,
            source=Source(onnx=FILE),
            samples=samples,
            reference=lambda text: _missing(text),
            environment=environment(),
            seed=0,
            progress=lambda share, text: None,
        )
        made = STAGES.get(config.kind)(config, parent, context)
        return Result(made=made, model=onnx.load(str(work / FILE)))


def saturates(model: onnx.ModelProto) -> bool:
    """Return whether fused int8 products of this graph may saturate on this processor: 8-bit weights without VNNI."""
    if not broken(TARGETS["x86-vnni"].requires(), environment()):
        return False
    integers = (
        onnx.numpy_helper.to_array(each) for each in model.graph.initializer if each.data_type == onnx.TensorProto.INT8
    )
    return any(np.abs(each.astype(np.int16)).max(initial=0) > 64 for each in integers)


def outputs(model: onnx.ModelProto, inputs: Mapping[str, Array], *, optimize: bool = True) -> dict[str, Array]:
    """Return what ONNX Runtime alone computes."""
    options = ort.SessionOptions()
    options.log_severity_level = 4
    options.intra_op_num_threads = 1
    if not optimize:
        options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_DISABLE_ALL
    session = ort.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])
    names = [value.name for value in session.get_outputs()]
    return dict(zip(names, session.run(names, dict(inputs)), strict=True))


def apart(expected: Array, got: Array) -> float:
    """Greatest difference over the greatest value; infinite where one is finite and the other is not."""
    if expected.shape != got.shape or not np.isfinite(got[np.isfinite(expected)]).all():
        return float("inf")
    finite = np.isfinite(expected)
    difference = np.abs(expected[finite].astype(np.float64) - got[finite]).max(initial=0.0)
    return float(difference / max(np.abs(expected[finite]).max(initial=0.0), 1e-9))


def made_by() -> Provenance:
    """Return the provenance of an artifact that no stage made."""
    return Provenance(stage="source", parent=None, config={}, recipe="", samples=None, seed=0, environment={}, at=now())


def _artifact(model: onnx.ModelProto, path: Path) -> Artifact:
    sides = [
        tuple(
            TensorSpec(
                name=value.name,
                dtype=str(onnx.helper.tensor_dtype_to_np_dtype(value.type.tensor_type.elem_type)),
                shape=tuple(dim.dim_param or dim.dim_value for dim in value.type.tensor_type.shape.dim),
            )
            for value in side
        )
        for side in (model.graph.input, model.graph.output)
    ]
    return Artifact(
        name="fault",
        format="onnx",
        files=(File.of(path),),
        inputs=sides[0],
        outputs=sides[1],
        requires={},
        made_by=made_by(),
    )


def _missing(text: str) -> Any:
    raise AssertionError(f"{text} is not needed")
