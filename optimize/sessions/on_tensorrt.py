"""TensorRT 10.16 and 11.x: runs an engine that `on_tensorrt_builder` built.

Experimental (`optimize.experimental.TENSORRT`), since no builder library was at hand. Written from the documentation
and from the names in both versions' binding wheels; tests hold every call against those names. What differs between
versions is asked with ``hasattr``, never by number.
"""

import math
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any, ClassVar

import torch

from .. import experimental
from ..artifact import Format, TensorSpec
from ..errors import StageError
from ..samples import Array
from ..tensorrt.plan import ENGINE, MODEL, PLAN, EnginePlan
from .device import Device
from .engine import Engine, Missing, ModelFiles, Opened
from .on_buffers import Memory, Staging, check_device, checked, growing, shaped
from .on_tensorrt_builder import at_hand, deserialized, library, refit
from .on_torch import torch_missing


class EngineSession:
    """An engine behind the session protocol, on one CUDA stream of its own.

    `file` finds an artifact's file by name. A stripped engine gets its weights back from the ONNX file; weight
    streaming takes the budget that TensorRT proposes. Memory on the device and pinned memory beside it are allocated
    when a larger shape comes, and not by later calls. Shape tensors stay in host memory, where TensorRT reads them; an
    output whose size depends on the data is allocated while the engine runs.
    """

    def __init__(
        self,
        file: Callable[[str], Path],
        inputs: tuple[TensorSpec, ...],
        outputs: tuple[TensorSpec, ...],
        *,
        device: str = "cuda",
        trt: Any = None,
    ) -> None:
        experimental.used(experimental.TENSORRT)
        trt = trt or library()
        check_device(device)
        logger = trt.Logger(trt.Logger.WARNING)
        plan = EnginePlan.read(file(PLAN))
        self._trt = trt
        self._engine = deserialized(trt, logger, file(ENGINE).read_bytes(), plan)
        if "STRIP_PLAN" in plan.set:
            refit(trt, logger, self._engine, file(MODEL))
        if "WEIGHT_STREAMING" in plan.set:
            self._engine.weight_streaming_budget_v2 = self._engine.get_weight_streaming_automatic_budget()
        self._context = self._engine.create_execution_context()
        self._stream: Any = torch.cuda.Stream(device) if device != "cpu" else None  # type: ignore[no-untyped-call]
        self._device = device
        self.inputs, self.outputs = inputs, outputs
        self.on_host = {
            spec.name
            for spec in (*inputs, *outputs)
            if self._engine.get_tensor_location(spec.name) == trt.TensorLocation.HOST
        }
        self.buffers = EngineBuffers(self, device)

    def run(self, inputs: Mapping[str, Array]) -> dict[str, Array]:
        """Infer once on the named arrays, under the first profile that holds their shapes.

        Raises:
            StageError: an input is missing, of another type, or outside of every profile; or the engine failed.
        """
        self.buffers.write(inputs)
        self.buffers.run()
        return self.buffers.read()

    def bind(self, inputs: Mapping[str, Array]) -> "EngineBuffers":
        """Return buffers of their own for inputs of these shapes, filled, after one run; raises as `run`."""
        buffers = EngineBuffers(self, self._device)
        buffers.write(inputs)
        buffers.run()
        return buffers

    def working(self) -> AbstractContextManager[Any]:
        """The session's stream as torch's current one."""
        return torch.cuda.stream(self._stream)

    def wait(self) -> None:
        """Wait until the stream has done what was queued."""
        if self._stream:
            self._stream.synchronize()

    def execute(
        self, arrays: Mapping[str, Array], given: Mapping[str, Any], sink: Callable[[Any, TensorSpec], None]
    ) -> None:
        """Queue one inference on the tensors in `given`; `sink` sets where the context writes an output.

        Raises:
            StageError: the engine refuses the shapes, or failed.
        """
        handle = self._stream.cuda_stream if self._stream else 0
        self._choose(arrays, handle)
        for name, tensor in given.items():
            if not self._context.set_input_shape(name, tuple(arrays[name].shape)):
                raise StageError(f"the engine refused shape {tuple(arrays[name].shape)} of {name!r}")
            self._context.set_tensor_address(name, tensor.data_ptr())
        for spec in self.outputs:
            sink(self._context, spec)
        if not self._context.execute_async_v3(handle):
            shapes = {name: tuple(array.shape) for name, array in arrays.items()}
            raise StageError("the engine failed to run", where=f"shapes {shapes}")

    def allocator(self, memory: Memory, name: str) -> Any:
        """Return an allocator for an output whose size is not known before the engine runs."""
        return growing(self._trt.IOutputAllocator, memory, name)

    def _choose(self, arrays: Mapping[str, Array], handle: int) -> None:
        """Switch to the first profile that holds these shapes, and the values of shape tensors.

        Raises:
            StageError: none does.
        """
        for number in range(self._engine.num_optimization_profiles):
            if all(self._holds(number, name, array) for name, array in arrays.items()):
                if number != self._context.active_optimization_profile:
                    self._context.set_optimization_profile_async(number, handle)
                return
        shapes = {name: tuple(array.shape) for name, array in arrays.items()}
        raise StageError(
            f"no optimization profile covers the shapes {shapes}",
            next_step="widen batch or profiles in the compile stage",
        )

    def _holds(self, number: int, name: str, array: Array) -> bool:
        """Return True if a profile holds an input: its shape or, of a shape tensor, its values."""
        if name in self.on_host:
            found = self._engine.get_tensor_profile_values(number, name)  # the number first, unlike the shapes
            values = tuple(int(value) for value in array.reshape(-1))
            return not found or within(values, tuple(found[0]), tuple(found[2]))
        low, _, high = self._engine.get_tensor_profile_shape(name, number)
        return within(tuple(array.shape), tuple(low), tuple(high))


class EngineBuffers:
    """Tensors of one session that are kept between calls. See `EngineSession` for what lies where."""

    def __init__(self, session: EngineSession, device: str) -> None:
        self._session = session
        self.staging = Staging(device)
        self._arrays: dict[str, Array] = {}
        self._given: dict[str, Any] = {}
        self._sinks: dict[str, Any] = {}
        self._allocators: dict[str, Any] = {}

    def write(self, inputs: Mapping[str, Array]) -> None:
        """Copy the inputs to where the engine reads them.

        Raises:
            StageError: one is missing, or of another type.
        """
        session = self._session
        self._arrays = {spec.name: checked(spec, inputs.get(spec.name)) for spec in session.inputs}
        with session.working():
            self._given = {
                name: self.staging.fill(name, array, on_host=name in session.on_host)
                for name, array in self._arrays.items()
            }
        session.wait()

    def run(self) -> None:
        """Infer once; raises as `EngineSession.execute`."""
        with self._session.working():
            self._session.execute(self._arrays, self._given, self._sink)
        self._session.wait()

    def read(self) -> dict[str, Array]:
        """Copy the outputs to arrays of their own.

        Raises:
            StageError: the engine did not report the shape of an output.
        """
        with self._session.working():
            found = {spec.name: self._output(spec) for spec in self._session.outputs}
            staged = {
                name: tensor if name in self._session.on_host else self.staging.fetch(name, tensor)
                for name, tensor in found.items()
            }
        self._session.wait()
        return {name: tensor.numpy().copy() for name, tensor in staged.items()}

    def _memory(self, name: str) -> Memory:
        return self.staging.host if name in self._session.on_host else self.staging.device

    def _sink(self, context: Any, spec: TensorSpec) -> None:
        """Give the context memory for an output, or an allocator where its size is not known yet."""
        shape = tuple(int(size) for size in context.get_tensor_shape(spec.name))
        if any(size < 0 for size in shape):
            self._sinks[spec.name] = None
            if spec.name not in self._allocators:
                self._allocators[spec.name] = self._session.allocator(self._memory(spec.name), spec.name)
            context.set_output_allocator(spec.name, self._allocators[spec.name])
            return
        tensor = self._memory(spec.name).tensor(spec.name, shape, getattr(torch, spec.dtype))
        context.set_tensor_address(spec.name, tensor.data_ptr())
        self._sinks[spec.name] = tensor

    def _output(self, spec: TensorSpec) -> Any:
        """The output where the engine wrote it, once it has run."""
        sink = self._sinks[spec.name]
        if sink is not None:
            return sink
        dims = self._allocators[spec.name].dims
        if dims is None:
            raise StageError(
                f"the engine did not report the shape of output {spec.name!r}",
                next_step="export the model with outputs whose shapes follow from those of the inputs",
            )
        dtype = getattr(torch, spec.dtype)
        return shaped(self._memory(spec.name).bytes_of(spec.name, math.prod(dims) * dtype.itemsize), dims, dtype)


class TensorRT(Engine):
    """TensorRT on a GPU."""

    name: ClassVar[str] = "tensorrt"
    formats: ClassVar[tuple[Format, ...]] = ("tensorrt",)
    device: ClassVar[str] = "cuda"
    install: ClassVar[str] = "pip install 'seatrial[tensorrt]'"
    part: ClassVar[experimental.Experimental | None] = experimental.TENSORRT

    def missing(self, device: Device) -> Missing | None:
        """Return what it lacks: TensorRT itself, a torch for CUDA (which holds the buffers), the driver, the device."""
        lacking = torch_missing(device)
        if at_hand():
            return lacking
        what, step = "TensorRT is not installed", self.install
        if lacking is None:
            return Missing(what=what, next_step=step)
        return Missing(what=f"{what}; {lacking.what}", next_step=f"{step}; then {lacking.next_step}")

    def open(self, model: ModelFiles, *, device: str, threads: int) -> Opened:
        """Open the engine of a plan that was built.

        Raises:
            MachineError: TensorRT is not installed, or its libraries or the driver are missing.
        """
        session = EngineSession(model.file, model.inputs, model.outputs, device=device)
        return Opened(session=session, provider="TensorRT", device=device)


def within(shape: tuple[int, ...], low: tuple[int, ...], high: tuple[int, ...]) -> bool:
    """Return True if every axis lies in its range, both ends included."""
    return len(shape) == len(low) == len(high) and all(
        least <= dim <= most for least, dim, most in zip(low, shape, high, strict=True)
    )
