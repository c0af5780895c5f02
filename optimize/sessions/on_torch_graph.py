"""A module as a CUDA graph: its kernels are captured once for each set of shapes and replayed from static buffers.

Replaying launches all kernels at once, which pays where launching them one by one takes longer than running them: small
batches. Experimental (`optimize.experimental.GPU`): capture has never run on a GPU; `Captured` takes what captures, and
runs on the CPU in tests.
"""

from collections.abc import Callable, Mapping
from typing import Any, ClassVar

import numpy as np
import torch

from ..artifact import Format, TensorSpec
from ..errors import StageError
from ..experimental import GPU, Experimental
from ..samples import Array
from .device import Device, device_of
from .engine import Bound, Engine, Missing, ModelFiles, Opened
from .on_calls import named, unservable
from .on_torch import call, module_of, placed, torch_missing

WARM_UP = 3  # runs before a capture, in which cuDNN and cuBLAS choose and allocate (PyTorch's CUDA graphs notes)
SHAPES = 16  # captures that a session keeps; each holds memory of its own
Replay = Callable[[], None]
Outputs = dict[str, torch.Tensor]
Capture = Callable[[Callable[[], Outputs], Device], tuple[Outputs, Replay]]
"""Runs a call on a device and returns its static outputs, and what computes them again from the same static inputs."""


def captured(run: Callable[[], Outputs], device: Device) -> tuple[Outputs, Replay]:
    """Capture a call in a CUDA graph, after runs on a stream of its own."""
    with torch.cuda.device(device.index):
        stream: Any = torch.cuda.Stream()  # type: ignore[no-untyped-call]
        stream.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(stream):
            for _ in range(WARM_UP):
                run()
        torch.cuda.current_stream().wait_stream(stream)
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph):
            outputs = run()

    def replay() -> None:
        with torch.cuda.device(device.index):
            graph.replay()
            torch.cuda.current_stream().synchronize()

    return outputs, replay


class Captured:
    """Static buffers of one set of shapes, and the graph between them. See `engine.Bound`."""

    def __init__(
        self,
        act: Callable[[Mapping[str, torch.Tensor]], Outputs],
        inputs: Mapping[str, Array],
        device: Device,
        capture: Capture,
    ) -> None:
        place, pinned = torch.device(str(device)), device.kind == "cuda"
        self._host = {name: _empty(array, pinned=pinned) for name, array in inputs.items()}
        self._inputs = {name: tensor.to(place, copy=True) for name, tensor in self._host.items()}
        self.write(inputs)
        self._outputs, self._replay = capture(lambda: act(self._inputs), device)

    def write(self, inputs: Mapping[str, Array]) -> None:
        """Copy arrays of the same shapes and types into the input buffers, through pinned memory.

        Raises:
            StageError: an input is missing, or of another shape or type.
        """
        with torch.inference_mode():
            self._write(inputs)

    def _write(self, inputs: Mapping[str, Array]) -> None:
        for name, held in self._host.items():
            given = inputs.get(name)
            tensor = None if given is None else torch.from_numpy(np.ascontiguousarray(given))
            if tensor is None or tensor.shape != held.shape or tensor.dtype != held.dtype:
                said = "nothing" if tensor is None else f"{tensor.dtype} {list(tensor.shape)}"
                raise StageError(f"input {name!r} is captured as {held.dtype} {list(held.shape)}, and was given {said}")
            held.copy_(tensor)
            self._inputs[name].copy_(held, non_blocking=True)

    def run(self) -> None:
        """Replay the graph."""
        self._replay()

    def read(self) -> dict[str, Array]:
        """Copy the output buffers to the host."""
        return {name: np.array(value.detach().cpu().numpy()) for name, value in self._outputs.items()}


class GraphSession:
    """A module in evaluation mode whose calls are captured, one graph for each set of shapes, the oldest given up."""

    def __init__(
        self,
        module: torch.nn.Module,
        inputs: tuple[TensorSpec, ...],
        outputs: tuple[TensorSpec, ...],
        *,
        device: Device,
        capture: Capture = captured,
    ) -> None:
        self._module = module.eval().to(torch.device(str(device)))
        self._names = tuple(spec.name for spec in inputs)
        self._outputs = tuple(spec.name for spec in outputs)
        self.device = placed(self._module, device)
        self._capture = capture
        self._graphs: dict[tuple[Any, ...], Captured] = {}

    def run(self, inputs: Mapping[str, Array]) -> dict[str, Array]:
        """Infer once: copy in, replay, copy out; captures first where the shapes are new."""
        known = self._graphs.get(key := self._key(inputs))
        if known is None:
            while len(self._graphs) >= SHAPES:
                del self._graphs[next(iter(self._graphs))]
            known = self._graphs[key] = self._captured(inputs)
        else:
            known.write(inputs)
        known.run()
        return known.read()

    def bind(self, inputs: Mapping[str, Array]) -> Bound:
        """Capture a graph of its own for inputs of these shapes."""
        self._key(inputs)
        found = self._captured(inputs)
        found.run()
        return found

    def _key(self, inputs: Mapping[str, Array]) -> tuple[Any, ...]:
        if absent := [name for name in self._names if name not in inputs]:
            raise StageError(f"the inputs lack {', '.join(absent)}", where="engine torch-cuda-graph")
        return tuple((inputs[name].shape, inputs[name].dtype.str) for name in self._names)

    def _captured(self, inputs: Mapping[str, Array]) -> Captured:
        try:
            with torch.inference_mode():
                return Captured(self._call, {name: inputs[name] for name in self._names}, self.device, self._capture)
        except (RuntimeError, TypeError, ValueError, KeyError, IndexError, AttributeError) as error:
            shapes = {name: array.shape for name, array in inputs.items()}
            raise StageError(
                f"the module cannot be captured as a CUDA graph: {error}",
                where=f"shapes {shapes}",
                next_step="use engine torch: a graph holds no branches on values and no work on the host",
            ) from error

    def _call(self, tensors: Mapping[str, torch.Tensor]) -> Outputs:
        with torch.inference_mode():
            found = named(call(self._module, tensors), self._outputs)
        for name, value in found.items():
            if why := unservable(name, value):
                raise ValueError(why)
        return found


class TorchCudaGraph(Engine):
    """PyTorch through CUDA graphs."""

    name: ClassVar[str] = "torch-cuda-graph"
    formats: ClassVar[tuple[Format, ...]] = ("torch",)
    device: ClassVar[str] = "cuda"
    part: ClassVar[Experimental | None] = GPU

    def missing(self, device: Device) -> Missing | None:
        """Return what torch lacks to run on that GPU."""
        return torch_missing(device)

    def open(self, model: ModelFiles, *, device: str, threads: int) -> Opened:
        """Rebuild the module and move it to the device; the first run of each shape captures."""
        session = GraphSession(module_of(model), model.inputs, model.outputs, device=device_of(device))
        return Opened(session=session, provider="cuda-graph", device=str(session.device))


def _empty(array: Array, *, pinned: bool) -> torch.Tensor:
    kind = torch.from_numpy(np.empty(0, array.dtype)).dtype
    return torch.empty(array.shape, dtype=kind, pin_memory=pinned)
