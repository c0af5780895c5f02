"""Artifacts without bytes for deployments of every kind: tensors and file names are all that compiling looks at."""

from collections.abc import Mapping
from pathlib import Path

from seatrial.optimize.artifact import Artifact, File, TensorSpec
from tests.support.made_by import MADE_BY

DEPLOYMENTS = Path(__file__).resolve().parents[2] / "serve" / "deployments"


def spec(name: str, *shape: int | str, dtype: str = "float32") -> TensorSpec:
    """A tensor."""
    return TensorSpec(name=name, dtype=dtype, shape=shape)


def artifact(
    inputs: tuple[TensorSpec, ...], outputs: tuple[TensorSpec, ...], files: tuple[str, ...] = ("model.onnx",)
) -> Artifact:
    """An artifact of those tensors and files."""
    return Artifact(
        name="a",
        format="tensorrt" if files[0].endswith(".plan") else "onnx",
        files=tuple(File(path=name, digest="sha256:" + "0" * 64, size=1) for name in files),
        inputs=inputs,
        outputs=outputs,
        requires={},
        made_by=MADE_BY,
    )


SCENES = artifact((spec("image", "n", 3, 64, 64),), (spec("scores", "n", 10),))
IMAGES = artifact((spec("images", "n", 3, "height", "width"),), (spec("boxes", "n", "count", 6),))
PLANS = ("model_sm80.plan", "model_sm90.plan")
ENGINE = artifact(SCENES.inputs, SCENES.outputs, PLANS)
TRACKER = artifact(
    (spec("x", "n", 4), spec("START", "n", 1), spec("READY", "n", 1, dtype="bool"), spec("memory_in", "n", 8)),
    (spec("y", "n", 2), spec("memory_out", "n", 8)),
)
# Every example deployment with an artifact that fits it.
EXAMPLES: Mapping[str, Artifact] = {
    "scenes.toml": SCENES,
    "scenes-trt-provider.toml": SCENES,
    "scenes-engine.toml": ENGINE,
    "detector-cuda.toml": IMAGES,
    "tracker.toml": TRACKER,
}
