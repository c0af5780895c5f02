"""ONNX Runtime's I/O binding: inputs and outputs in buffers of the session's device, allocated once for their shapes.

On a GPU the host's side is pinned (page-locked), so that a copy is one transfer; on the CPU a buffer is an array.
"""

from collections.abc import Mapping
from typing import Any

import numpy as np
import onnxruntime as ort

from ..errors import StageError
from ..samples import Array
from .device import Device


class OrtBound:
    """Buffers of one session for inputs of these shapes. See `engine.Bound`.

    Raises:
        StageError: ONNX Runtime refuses the inputs, or an output is no tensor of numbers.
    """

    def __init__(self, session: Any, inputs: Mapping[str, Array], device: Device) -> None:
        self._session = session
        self._place = (device.kind, device.index)
        self._names = [value.name for value in session.get_outputs()]
        if texts := [name for name, array in inputs.items() if array.dtype.kind not in "biufc"]:
            raise StageError(f"input {texts[0]!r} holds no numbers and cannot be bound", where="I/O binding")
        self._host = {name: host_array(array, device) for name, array in inputs.items()}
        self._inputs = {
            name: ort.OrtValue.ortvalue_from_shape_and_type(array.shape, array.dtype.type, *self._place)
            for name, array in self._host.items()
        }
        self._binding = session.io_binding()
        for name, value in self._inputs.items():
            self._refusing(lambda name=name, value=value: self._binding.bind_ortvalue_input(name, value))
        self.write(inputs)
        for name in self._names:  # allocated by the first run, whose shapes then hold
            self._binding.bind_output(name, *self._place)
        self.run()
        self._outputs = dict(zip(self._names, self._binding.get_outputs(), strict=True))
        for name, value in self._outputs.items():
            if not value.is_tensor():
                raise StageError(f"output {name!r} is no tensor and cannot be bound", where="I/O binding")
            self._binding.bind_ortvalue_output(name, value)

    def write(self, inputs: Mapping[str, Array]) -> None:
        """Copy arrays of the same shapes and types into the input buffers, through the host's own.

        Raises:
            StageError: an input is missing, or of another shape or type.
        """
        for name, held in self._host.items():
            given = inputs.get(name)
            if given is None or given.shape != held.shape or given.dtype != held.dtype:
                said = "nothing" if given is None else f"{given.dtype} {list(given.shape)}"
                raise StageError(f"input {name!r} is bound to {held.dtype} {list(held.shape)}, and was given {said}")
            np.copyto(held, given)
            self._inputs[name].update_inplace(held)

    def run(self) -> None:
        """Infer once on the buffers."""
        self._refusing(lambda: self._session.run_with_iobinding(self._binding))
        self._binding.synchronize_outputs()

    def read(self) -> dict[str, Array]:
        """Copy the output buffers to the host."""
        return {name: np.array(value.numpy()) for name, value in self._outputs.items()}

    def _refusing(self, act: Any) -> None:
        try:
            act()
        except Exception as error:  # ONNX Runtime's exceptions share no base below Exception
            shapes = {name: array.shape for name, array in self._host.items()}
            said = str(error).strip().splitlines() or [type(error).__name__]
            raise StageError(f"ONNX Runtime refused the bound inputs: {said[0]}", where=f"shapes {shapes}") from error


def host_array(array: Array, device: Device) -> Array:
    """Return an array of the same shape and type on the host: pinned where the device is a GPU."""
    if device.kind == "cpu":
        return np.empty_like(array, order="C")
    import torch

    kind = torch.from_numpy(np.empty(0, array.dtype)).dtype
    pinned: Array = torch.empty(array.shape, dtype=kind, pin_memory=True).numpy()
    return pinned
