"""ONNX Runtime inside the python flavour: opens the session as the configuration says, runs it, words its refusals.

Copied beside model.py into each placed version and run inside the server's stub process, so it imports nothing of ours.
Knows tensors by name; knows nothing of requests, batches or Triton.

Host arrays go through an ordinary run. A tensor that already lies on a GPU goes through I/O binding, where it lies; the
answers come to the host either way, since that is where the server sends them from.
"""

import os
import re
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

Array = np.ndarray[Any, np.dtype[Any]]

# ONNX Runtime's exceptions have no common root of their own.
_REFUSALS: tuple[str, ...] = ("EPFail", "EngineError", "Fail", "InvalidArgument", "InvalidGraph", "InvalidProtobuf")
_REFUSALS += ("ModelLoaded", "NoModel", "NoSuchFile", "NotImplemented", "RuntimeException")
_PATH = re.compile(r"(?:[\w.+-]+)?(?:/[\w.+-]+){2,}/?")


class Unusable(Exception):
    """The session cannot be opened; the text may be shown to a client."""


class Session:
    """One model, loaded. `refusals` are the exceptions with which a run says no."""

    def __init__(self, folder: str, parameters: Mapping[str, str], *, device: str | None = None) -> None:
        """Load ``parameters["model_file"]`` in `folder` on the providers named; `device` is a GPU's number.

        Raises:
            Unusable: onnxruntime or the first provider is not to be had, or the model is refused.
        """
        try:
            import onnxruntime
            from onnxruntime.capi import onnxruntime_pybind11_state as state
        except ImportError as error:
            raise Unusable(
                f"the server's Python cannot import onnxruntime ({plain(error)}); put the environment that has it "
                "first on the server's PATH"
            ) from error
        known = (getattr(state, name) for name in _REFUSALS if hasattr(state, name))
        self.refusals: tuple[type[Exception], ...] = (ValueError, RuntimeError, MemoryError, *known)
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = int(parameters["threads"])
        options.inter_op_num_threads = 1
        options.add_session_config_entry("session.intra_op.allow_spinning", "0")  # instances share the cores
        options.log_severity_level = 3
        names = parameters["providers"].split(",")
        numbered = {"CUDAExecutionProvider": {"device_id": device}} if device is not None else {}
        providers = [(name, numbered[name]) if name in numbered else name for name in names]
        path = os.path.join(folder, parameters["model_file"])
        try:
            self._session = onnxruntime.InferenceSession(path, options, providers=providers)
        except self.refusals as error:
            raise Unusable(f"{parameters['model_file']} cannot be loaded: {plain(error)}") from error
        if names[0] not in self._session.get_providers():  # ONNX Runtime falls back to the CPU with a warning only
            raise Unusable(f"{names[0]} is not to be had here; there are {self._session.get_providers()}")
        self._from_dlpack = onnxruntime.OrtValue.from_dlpack
        # ONNX Runtime tells no input of unknown rank from a scalar; taken in, a model has none of those.
        self._scalars = {each.name for each in self._session.get_inputs() if not each.shape}
        self._text = {each.name for each in self._session.get_inputs() if each.type == "tensor(string)"}

    @property
    def inputs(self) -> list[str]:
        """Names of the model's inputs."""
        return [each.name for each in self._session.get_inputs()]

    @property
    def outputs(self) -> list[str]:
        """Names of the model's outputs."""
        return [each.name for each in self._session.get_outputs()]

    def on_device(self, tensor: Any) -> Any:
        """A tensor that offers DLPack as one of ONNX Runtime's, where it lies; no byte is copied."""
        return self._from_dlpack(tensor)

    def run(self, names: Sequence[str], parts: Mapping[str, Sequence[Any]]) -> list[Array]:
        """Join the parts of each input along the first axis, run, and return the outputs named, on the host.

        Raises:
            refusals: what this session refuses a run with.
        """
        feed = {name: self._joined(name, arrays) for name, arrays in parts.items()}
        if all(isinstance(each, np.ndarray) for each in feed.values()):
            results: list[Array] = self._session.run(names, feed)
            return results
        # On a GPU this path has never run; tests run it with DLPack tensors in the host's memory.
        binding = self._session.io_binding()
        for name, given in feed.items():
            if isinstance(given, np.ndarray):
                binding.bind_cpu_input(name, given)
            else:
                binding.bind_ortvalue_input(name, given)
        for name in names:
            binding.bind_output(name, "cpu")
        self._session.run_with_iobinding(binding)
        bound: list[Array] = binding.copy_outputs_to_cpu()
        return bound

    def _joined(self, name: str, parts: Sequence[Any]) -> Any:
        """One tensor of several; a single one is passed on as it is, and tensors on a device meet on the host."""
        if name in self._text:  # the server hands on bytes, ONNX Runtime takes text
            parts = [_decoded(part) for part in parts]
        if name in self._scalars and len(parts) == 1 and isinstance(parts[0], np.ndarray) and parts[0].size == 1:
            return parts[0].reshape(())  # the server has none: it is [1] outside
        if len(parts) == 1:
            return parts[0]
        return np.concatenate([part if isinstance(part, np.ndarray) else part.numpy() for part in parts])


def shape(tensor: Any) -> tuple[int, ...]:
    """The shape of a host array or of a tensor on a device."""
    return tensor.shape if isinstance(tensor, np.ndarray) else tuple(tensor.shape())


def plain(error: Exception) -> str:
    """The error's first line without file paths, which are none of a client's business."""
    lines = str(error).strip().splitlines() or [type(error).__name__]
    return _PATH.sub("...", lines[0])[:500]


def _decoded(array: Array) -> Array:
    """Text of UTF-8 bytes; a `ValueError` where they are none."""
    flat = [each.decode() if isinstance(each, bytes) else str(each) for each in array.ravel()]
    return np.array(flat, dtype=object).reshape(array.shape)
