"""Buffers of a session in torch: memory by tensor name that grows and is kept, so that a call allocates nothing.

Shapes, types and addresses only; knows no engine.
"""

import math
from typing import Any

import numpy as np
import torch

from ..artifact import TensorSpec
from ..errors import MachineError, StageError
from ..samples import Array


def check_device(device: str) -> None:
    """Check that torch can compute on the device.

    Raises:
        MachineError: this torch was built without CUDA, or it finds no such device.
    """
    if torch.device(device).type != "cuda":
        return
    if torch.version.cuda is None:
        raise MachineError(
            f"torch {torch.__version__} is built for the CPU alone, so no GPU buffers can be made",
            where=f"device {device}",
            next_step="install a CUDA build of torch: pip install torch, without the CPU index",
        )
    number = torch.device(device).index or 0
    if number >= torch.cuda.device_count():
        raise MachineError(
            f"torch finds {torch.cuda.device_count()} CUDA devices",
            where=f"device {device}",
            next_step="name a device that nvidia-smi lists, or check the driver",
        )


def checked(spec: TensorSpec, array: Array | None) -> Array:
    """Return an input as one contiguous array of the engine's type: an engine reads bytes and converts nothing.

    Raises:
        StageError: it is missing, or of another type.
    """
    if array is None:
        raise StageError(f"input {spec.name!r} is missing", next_step=f"give {spec.dtype} {list(spec.shape)}")
    if array.dtype != np.dtype(spec.dtype):
        raise StageError(
            f"input {spec.name!r} is {array.dtype}, the engine takes {spec.dtype}",
            next_step=f"convert it: array.astype({spec.dtype!r})",
        )
    return np.ascontiguousarray(array)


class Memory:
    """Bytes on one device by tensor name; each grows to the largest size ever needed and is reused."""

    def __init__(self, device: str, *, pinned: bool = False) -> None:
        self._device, self._pinned = device, pinned
        self._held: dict[str, Any] = {}

    def bytes_of(self, name: str, size: int) -> Any:
        """Return at least `size` bytes of a tensor, never none: an address of zero would be refused."""
        held = self._held.get(name)
        if held is None or held.numel() < size:
            pinned = self._pinned and torch.cuda.is_available()
            held = torch.empty(max(size, 1), dtype=torch.uint8, device=self._device, pin_memory=pinned)
            self._held[name] = held
        return held

    def tensor(self, name: str, shape: tuple[int, ...], dtype: Any) -> Any:
        """Return a tensor's memory as one of that shape and type."""
        return shaped(self.bytes_of(name, math.prod(shape) * dtype.itemsize), shape, dtype)


def shaped(held: Any, shape: tuple[int, ...], dtype: Any) -> Any:
    """Return the first bytes as a tensor of that shape and type."""
    return held[: math.prod(shape) * dtype.itemsize].view(dtype).view(shape)


class Staging:
    """Tensors of a session on its device, filled from arrays and read back through pinned memory."""

    def __init__(self, device: str) -> None:
        self.device = Memory(device)
        self.host = Memory("cpu", pinned=device != "cpu")

    def fill(self, name: str, array: Array, *, on_host: bool) -> Any:
        """Return the array as a tensor: on the device, or in host memory for a shape tensor."""
        source = torch.from_numpy(array)
        staged = self.host.tensor(name, tuple(array.shape), source.dtype)
        staged.copy_(source)
        if on_host:
            return staged
        return self.device.tensor(name, tuple(array.shape), source.dtype).copy_(staged, non_blocking=True)

    def fetch(self, name: str, tensor: Any) -> Any:
        """Begin to copy a result into pinned memory; it is there once the stream has finished."""
        staged = self.host.tensor(name, tuple(tensor.shape), tensor.dtype)
        return staged.copy_(tensor, non_blocking=True)


def growing(base: type, memory: Memory, name: str) -> Any:
    """Return an output allocator of TensorRT (`base` is its ``IOutputAllocator``) for one output of unknown size.

    `dims` is the shape that the engine reported last, None before it ran.
    """

    class Growing(base):  # type: ignore[misc]
        def __init__(self) -> None:
            super().__init__()
            self.dims: tuple[int, ...] | None = None

        def reallocate_output(self, tensor_name: str, memory_: int, size: int, alignment: int) -> int:
            return int(memory.bytes_of(name, size).data_ptr())

        def reallocate_output_async(
            self, tensor_name: str, memory_: int, size: int, alignment: int, stream: int
        ) -> int:
            return self.reallocate_output(tensor_name, memory_, size, alignment)

        def notify_shape(self, tensor_name: str, shape: Any) -> None:
            self.dims = tuple(int(size) for size in shape)

    return Growing()
