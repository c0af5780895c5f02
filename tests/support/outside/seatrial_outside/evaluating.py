"""An engine of another package: ONNX's own reference evaluator."""

from collections.abc import Mapping
from typing import ClassVar

from seatrial.optimize.artifact import Format
from seatrial.optimize.samples import Array
from seatrial.optimize.sessions.engine import Engine, ModelFiles, Opened


class Evaluated:
    """A model in the reference evaluator."""

    def __init__(self, path: str) -> None:
        from onnx.reference import ReferenceEvaluator

        self._model = ReferenceEvaluator(path)

    def run(self, inputs: Mapping[str, Array]) -> dict[str, Array]:
        """Infer once."""
        return dict(zip(self._model.output_names, self._model.run(None, dict(inputs)), strict=True))


class Reference(Engine):
    """ONNX's reference evaluator: slow, and written for reading."""

    name: ClassVar[str] = "reference"
    formats: ClassVar[tuple[Format, ...]] = ("onnx",)

    def open(self, model: ModelFiles, *, device: str, threads: int) -> Opened:
        """Open ``model.onnx``."""
        session = Evaluated(str(model.file("model.onnx")))
        return Opened(session=session, provider="onnx.reference", device="cpu")
