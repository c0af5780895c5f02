"""OpenVINO: opens the same ONNX file as ONNX Runtime does and runs it on the CPU; maps its exceptions to ours.

Floats stay float32 unless another precision is asked for: left alone, OpenVINO computes in bfloat16 where the processor
can, and a comparison with a float32 engine would not be one. Int8 Q/DQ graphs run in int8 as they are. Where weights
alone are integers, under a DequantizeLinear, products run in int8 too: OpenVINO rounds their activations at run time,
row by row in groups of `_GROUP` values. It decides nothing about models, and needs ``seatrial[openvino]``.
"""

from collections.abc import Mapping
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar, Literal

import numpy as np

from ..artifact import Format, TensorSpec
from ..errors import StageError
from ..samples import Array
from .engine import Engine, ModelFiles, Opened

if TYPE_CHECKING:
    import openvino

Precision = Literal["f32", "bf16"]
_GROUP = 128  # OpenVINO's own 32 took 0.55 of float time on MiniLM at 8 x 64, 128 takes 0.41, and keeps as much


class OpenVinoSession:
    """An ONNX file compiled by OpenVINO for the CPU with `threads` threads and one stream, lowest latency first."""

    def __init__(self, path: Path, *, threads: int = 1, precision: Precision = "f32") -> None:
        options = {
            "INFERENCE_PRECISION_HINT": precision,
            "DYNAMIC_QUANTIZATION_GROUP_SIZE": _GROUP,
            "INFERENCE_NUM_THREADS": threads,
            "NUM_STREAMS": 1,
            "PERFORMANCE_HINT": "LATENCY",
        }
        import openvino

        try:
            core = openvino.Core()
            self._model = core.compile_model(core.read_model(str(path)), "CPU", options)
        except Exception as error:  # OpenVINO raises bare RuntimeError and its own types, which share no base
            raise StageError(
                f"OpenVINO cannot open the model: {_first_line(error)}", where=str(path), next_step="use onnxruntime"
            ) from error
        self.inputs = tuple(_spec(port) for port in self._model.inputs)
        self.outputs = tuple(_spec(port) for port in self._model.outputs)
        self._request = self._model.create_infer_request()

    def run(self, inputs: Mapping[str, Array]) -> dict[str, Array]:
        """Infer once on the named arrays; the answers are copies, so that the next run leaves them alone."""
        self._check(inputs)
        try:
            self._request.infer(dict(inputs))
        except Exception as error:  # see above
            shapes = {name: array.shape for name, array in inputs.items()}
            raise StageError(f"OpenVINO refused the inputs: {_first_line(error)}", where=f"shapes {shapes}") from error
        values = (self._request.get_output_tensor(place).data for place in range(len(self.outputs)))
        return {spec.name: np.array(value) for spec, value in zip(self.outputs, values, strict=True)}

    def _check(self, inputs: Mapping[str, Array]) -> None:
        """Hold the arrays against the model's inputs, since OpenVINO computes on some that do not fit."""
        for spec in self.inputs:
            array = inputs.get(spec.name)
            fits = array is not None and array.dtype == spec.dtype and array.ndim == len(spec.shape)
            if (
                array is None
                or not fits
                or any(a != b for a, b in zip(array.shape, spec.shape, strict=True) if isinstance(b, int))
            ):
                given = None if array is None else (str(array.dtype), array.shape)
                raise StageError(f"OpenVINO refused the inputs: {spec.name!r} is {given}", where=f"it takes {spec}")


class OpenVino(Engine):
    """OpenVINO on the processor, floats as the file says."""

    name: ClassVar[str] = "openvino"
    formats: ClassVar[tuple[Format, ...]] = ("onnx",)
    install: ClassVar[str] = "pip install 'seatrial[openvino]'"
    precision: ClassVar[Precision] = "f32"

    def available(self) -> str | None:
        """Return that it is not installed, where it is not."""
        return None if find_spec("openvino") is not None else "OpenVINO is not installed"

    def load(self) -> None:
        """Import OpenVINO."""
        import openvino  # noqa: F401

    def open(self, model: ModelFiles, *, device: str, threads: int) -> Opened:
        """Open ``model.onnx``."""
        session = OpenVinoSession(model.file("model.onnx"), threads=threads, precision=self.precision)
        return Opened(session=session, provider="CPU", device="cpu")


class OpenVinoBf16(OpenVino):
    """The same, computing in bfloat16."""

    name: ClassVar[str] = "openvino-bf16"
    rounds: ClassVar[bool] = True
    precision: ClassVar[Precision] = "bf16"


def _spec(port: "openvino.ConstOutput") -> TensorSpec:
    shape = tuple(dim.get_length() if dim.is_static else f"dim_{axis}" for axis, dim in enumerate(port.partial_shape))
    return TensorSpec(name=port.any_name, dtype=np.dtype(port.element_type.to_dtype()).name, shape=shape)


def _first_line(error: Exception) -> str:
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return next((line for line in lines if not line.startswith(("Exception from", "Check "))), type(error).__name__)
