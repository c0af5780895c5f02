"""A stage of another package: writes a text into the metadata of an ONNX file."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import ClassVar

from seatrial.optimize.artifact import Artifact, Format
from seatrial.optimize.recipe.configs import EXACT, StageConfig, Tolerance
from seatrial.optimize.stages.stage import Context, Made, stage

from .words import stamped


@dataclass(frozen=True, slots=True, kw_only=True)
class StampConfig(StageConfig):
    """`text` is written into the file's metadata."""

    takes: ClassVar[Format] = "onnx"
    makes: ClassVar[Format] = "onnx"
    libraries: ClassVar[tuple[str, ...]] = ("onnx",)

    text: str
    parity: Mapping[str, Tolerance] = field(default_factory=lambda: EXACT)


@stage(StampConfig)
def stamp(config: StampConfig, source: Artifact, context: Context) -> Made:
    """Write ``model.onnx`` with the text."""
    import onnx

    model = onnx.load(str(context.store.path(source, "model.onnx")))
    model.metadata_props.add(key="stamp", value=stamped(config.text))
    onnx.save_model(model, str(context.folder / "model.onnx"))
    return Made(format="onnx", files=("model.onnx",), inputs=source.inputs, outputs=source.outputs)
