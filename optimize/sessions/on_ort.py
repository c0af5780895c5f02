"""ONNX Runtime: opens an ONNX file and runs it; maps its exceptions to ours. Decides nothing about models."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar

import onnxruntime as ort

from .. import experimental
from ..artifact import Format, TensorSpec
from ..errors import StageError
from ..samples import Array
from .device import HOST, Device
from .engine import Bound, Engine, ModelFiles, Opened, Provider
from .on_ort_binding import OrtBound
from .on_ort_opening import inference_session
from .on_ort_providers import CPU, hold, left_to_cpu, names_of, refusal
from .rows import in_runs

ort.set_default_logger_severity(4)  # failures are raised; other log lines are not for users

GPU_PROVIDERS = {"CUDAExecutionProvider", "TensorrtExecutionProvider"}
_DTYPES = {
    "tensor(float)": "float32",
    "tensor(float16)": "float16",
    "tensor(double)": "float64",
    "tensor(int8)": "int8",
    "tensor(uint8)": "uint8",
    "tensor(int16)": "int16",
    "tensor(uint16)": "uint16",
    "tensor(int32)": "int32",
    "tensor(uint32)": "uint32",
    "tensor(int64)": "int64",
    "tensor(uint64)": "uint64",
    "tensor(bool)": "bool",
    "tensor(string)": "object",
}


class OrtSession:
    """An ONNX file open in ONNX Runtime with `threads` intra-op threads and no spinning.

    `providers` are tried in order, the first must be got; `device` is where bound buffers lie.

    Raises:
        StageError: ONNX Runtime cannot open the file.
        MachineError: it opened the file with another provider; says what is missing.
    """

    def __init__(
        self,
        path: Path,
        *,
        threads: int = 1,
        providers: Sequence[Provider] = (CPU,),
        device: Device = HOST,
        optimize: bool = True,
    ) -> None:
        if set(names_of(providers)) & GPU_PROVIDERS:
            experimental.used(experimental.GPU)
        options = ort.SessionOptions()
        options.intra_op_num_threads = threads
        options.inter_op_num_threads = 1
        options.add_session_config_entry("session.intra_op.allow_spinning", "0")
        if names_of(providers)[0] != CPU:  # which nodes it leaves to the CPU
            options.add_session_config_entry("session.record_ep_graph_assignment_info", "1")
        if not optimize:
            options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_DISABLE_ALL
        try:
            self._session = inference_session(str(path), options, providers)
        except Exception as error:  # ONNX Runtime's exceptions share no base below Exception
            if path.exists() and (refused := refusal(names_of(providers)[0], device)) is not None:
                raise refused from error
            raise StageError(
                f"ONNX Runtime cannot open the model: {_first_line(error)}", where=str(path), next_step="check the file"
            ) from error
        hold(self._session, providers, device)
        self._device = device
        self.inputs = tuple(spec_of(value) for value in self._session.get_inputs())
        self.outputs = tuple(spec_of(value) for value in self._session.get_outputs())
        self.provider = str(self._session.get_providers()[0])
        self.on_cpu = left_to_cpu(self._session)

    def bind(self, inputs: Mapping[str, Array]) -> Bound:
        """Bind buffers on the session's device for inputs of these shapes, and for the outputs that they give."""
        return OrtBound(self._session, inputs, self._device)

    def run(self, inputs: Mapping[str, Array]) -> dict[str, Array]:
        """Infer on the named arrays: once, or in as many runs as a model needs that does not batch (`rows`)."""
        return dict(in_runs(self.inputs, inputs, self._run))

    def _run(self, inputs: Mapping[str, Array]) -> dict[str, Array]:
        try:
            values = self._session.run(None, dict(inputs))
        except Exception as error:  # see above
            shapes = {name: array.shape for name, array in inputs.items()}
            raise StageError(
                f"ONNX Runtime refused the inputs: {_first_line(error)}", where=f"shapes {shapes}"
            ) from error
        return {spec.name: value for spec, value in zip(self.outputs, values, strict=True)}


class OrtCpu(Engine):
    """ONNX Runtime on the processor."""

    name: ClassVar[str] = "onnxruntime-cpu"
    formats: ClassVar[tuple[Format, ...]] = ("onnx",)
    provider: ClassVar[str] = CPU

    def graph_providers(self, device: Device) -> tuple[Provider, ...]:
        """Return the CPU's."""
        return (CPU,)

    def open(self, model: ModelFiles, *, device: str, threads: int) -> Opened:
        """Open ``model.onnx``."""
        session = OrtSession(model.file("model.onnx"), threads=threads, optimize=not model.as_written)
        return Opened(session=session, provider=session.provider, device="cpu")


def spec_of(value: Any) -> TensorSpec:
    """Return an input or output of a session as one of ours, every free axis with a name."""
    named = enumerate(value.shape)
    shape = tuple(dim if isinstance(dim, int) else _named(dim, f"{value.name}.{axis}") for axis, dim in named)
    return TensorSpec(name=value.name, dtype=_DTYPES.get(value.type, value.type), shape=shape)


def _named(dim: str | None, own: str) -> str:
    """The axis's name where it has one: exporters write ``?`` for several axes that are not the same."""
    return dim if dim and dim != "?" else own


def _first_line(error: Exception) -> str:
    return str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
