"""ONNX Runtime inside the Python backend, on the CPU or on a GPU.

Copied beside model.py into each placed version and run inside the server's stub process.

Host arrays go through an ordinary run. A tensor that already lies on a GPU goes through I/O binding, where it lies.
Outputs come to the host, since that is where the server sends them from, unless `outputs = "device"` leaves them for
the next model of an ensemble. With `cuda_graph` each batch size has its own buffers on the GPU and one captured graph.
"""

import contextlib
import ctypes
import os
import re
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from .python_session import Array, Opening, Session, Unusable, plain

# ONNX Runtime's exceptions have no common root of their own.
_REFUSALS: tuple[str, ...] = ("EPFail", "EngineError", "Fail", "InvalidArgument", "InvalidGraph", "InvalidProtobuf")
_REFUSALS += ("ModelLoaded", "NoModel", "NoSuchFile", "NotImplemented", "RuntimeException")
_GRAPH = {"all": "ORT_ENABLE_ALL", "extended": "ORT_ENABLE_EXTENDED", "basic": "ORT_ENABLE_BASIC"}
_GRAPH |= {"off": "ORT_DISABLE_ALL"}
_ARENA = {"next-power-of-two": "kNextPowerOfTwo", "same-as-requested": "kSameAsRequested"}
_CUDA, _CPU = "CUDAExecutionProvider", "CPUExecutionProvider"
_MISSING = re.compile(r"(lib[\w.+-]+\.so[\w.]*): cannot open")
_INSTALL = "pip install 'onnxruntime-gpu[cuda,cudnn]'"
_NO_GRAPH = "-1"  # of the run option gpu_graph_id: neither capture nor replay


class OnnxRuntime(Session):
    """One ONNX file, loaded on the CPU, or on one GPU with the CPU for what has no kernel there."""

    def __init__(self, opening: Opening) -> None:
        """Load the file.

        Raises:
            Unusable: onnxruntime or the provider is missing here, or the model is refused.
        """
        super().__init__()
        gpu = opening.options["kind"] == "onnx-cuda"
        runtime, self.refusals = _imported(gpu)
        options = runtime.SessionOptions()
        options.intra_op_num_threads = opening.threads
        options.inter_op_num_threads = 1
        options.add_session_config_entry("session.intra_op.allow_spinning", "0")  # instances share the cores
        options.log_severity_level = 3
        level = _GRAPH[opening.options.get("graph", "all")]
        options.graph_optimization_level = getattr(runtime.GraphOptimizationLevel, level)
        providers: list[Any] = [_CPU]
        if gpu:
            _check_provider(runtime)
            providers.insert(0, (_CUDA, cuda_options(opening.options, opening.device)))
        try:
            self._session = runtime.InferenceSession(opening.path, options, providers=providers)
        except self.refusals as error:
            raise Unusable(f"{opening.file} cannot be loaded: {plain(error)}") from error
        if gpu and _CUDA not in self._session.get_providers():  # falls back to the CPU with a warning only
            raise Unusable(f"{_CUDA} cannot be used here: {_reason(runtime)}; the server needs {_INSTALL}")
        self._runtime = runtime
        self._device = ("cuda", int(opening.device or 0)) if gpu else ("cpu", 0)
        self.stays = opening.options.get("outputs", "host") == "device"
        ends = self._session.get_inputs()
        self.inputs = [each.name for each in ends]
        self.outputs = [each.name for each in self._session.get_outputs()]
        # ONNX Runtime tells no input of unknown rank from a scalar; taken in, a model has none of those.
        self.scalars = {each.name for each in ends if not each.shape}
        self.text = {each.name for each in ends if each.type == "tensor(string)"}
        graph = opening.options.get("cuda_graph", False)
        self._graphs = Graphs(runtime, self._session, self._device) if graph else None

    def on_device(self, tensor: Any) -> Any:
        """Return a tensor that offers DLPack as one of ONNX Runtime's, where it lies; no byte is copied."""
        return self._runtime.OrtValue.from_dlpack(tensor)

    def infer(self, names: Sequence[str], feed: Mapping[str, Any]) -> list[Any]:
        """Run once: an ordinary run of host arrays, I/O binding of tensors on a device, or a captured graph."""
        on_host = all(isinstance(each, np.ndarray) for each in feed.values())
        if self._graphs is not None and on_host:
            return self._graphs.run(names, feed)
        if on_host and not self.stays:
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
            binding.bind_output(name, *(self._device if self.stays else ("cpu", 0)))
        self._session.run_with_iobinding(binding)
        if self.stays:
            return [_as_torch(value) for value in binding.get_outputs()]
        bound: list[Array] = binding.copy_outputs_to_cpu()
        return bound

    def caused_by_input(self, error: Exception) -> bool:
        """Return whether ONNX Runtime calls the inputs invalid, or a text is not UTF-8."""
        return type(error).__name__ == "InvalidArgument" or super().caused_by_input(error)


class Graphs:
    """Captured CUDA graphs, one for each set of input shapes: fixed buffers, filled, replayed and read.

    Proven on buffers in the host's memory, where ONNX Runtime runs the same calls and captures nothing.
    """

    def __init__(self, runtime: Any, session: Any, device: tuple[str, int]) -> None:
        self._runtime, self._session, self._device = runtime, session, device
        self._held: dict[Any, tuple[Any, dict[str, Any], dict[str, Any], Any]] = {}

    def run(self, names: Sequence[str], feed: Mapping[str, Array]) -> list[Array]:
        """Copy the arrays into this shape's buffers, replay, and return copies of the outputs named."""
        key = tuple((name, array.shape, array.dtype.str) for name, array in sorted(feed.items()))
        if key not in self._held:
            self._held[key] = self._prepared(feed, len(self._held))
        binding, inputs, outputs, options = self._held[key]
        for name, array in feed.items():
            inputs[name].update_inplace(np.ascontiguousarray(array))
        self._session.run_with_iobinding(binding, options)
        found: list[Array] = [np.array(outputs[name].numpy()) for name in names]
        return found

    def _prepared(self, feed: Mapping[str, Array], number: int) -> tuple[Any, dict[str, Any], dict[str, Any], Any]:
        """Make buffers for these shapes; a first run without a graph says how large the outputs are."""
        new = self._runtime.OrtValue.ortvalue_from_numpy
        inputs = {name: new(np.ascontiguousarray(array), *self._device) for name, array in feed.items()}
        names = [each.name for each in self._session.get_outputs()]
        first = self._session.io_binding()
        for name, value in inputs.items():
            first.bind_ortvalue_input(name, value)
        for name in names:
            first.bind_output(name, *self._device)
        self._session.run_with_iobinding(first, self._options(_NO_GRAPH))
        outputs = dict(zip(names, first.get_outputs(), strict=True))
        binding = self._session.io_binding()
        for name, value in inputs.items():
            binding.bind_ortvalue_input(name, value)
        for name, value in outputs.items():
            binding.bind_ortvalue_output(name, value)
        return binding, inputs, outputs, self._options(str(number))

    def _options(self, graph: str) -> Any:
        options = self._runtime.RunOptions()
        options.add_run_config_entry("gpu_graph_id", graph)
        return options


def cuda_options(options: Mapping[str, Any], device: str | None) -> dict[str, str]:
    """Return the options of ONNX Runtime's CUDA provider for an engine's, on the GPU of that number."""
    found = {
        "device_id": device or "0",
        "cudnn_conv_algo_search": options.get("conv_search", "heuristic").upper(),
        "arena_extend_strategy": _ARENA[options.get("arena", "same-as-requested")],
        "do_copy_in_default_stream": str(int(options.get("copy_in_default_stream", True))),
    }
    if options.get("memory_bytes") is not None:
        found["gpu_mem_limit"] = str(options["memory_bytes"])
    if options.get("cuda_graph"):
        found["enable_cuda_graph"] = "1"
    return found


def _imported(gpu: bool) -> tuple[Any, tuple[type[Exception], ...]]:
    """ONNX Runtime and its exceptions; for a GPU its CUDA libraries are loaded first, which it does not find itself."""
    if gpu:
        with contextlib.suppress(ImportError):
            import torch  # noqa: F401
    try:
        import onnxruntime
        from onnxruntime.capi import onnxruntime_pybind11_state as state
    except ImportError as error:
        raise Unusable(
            f"the server's Python cannot import onnxruntime ({plain(error)}); put the environment that has it "
            "first on the server's PATH, or install it there: pip install onnxruntime-gpu"
        ) from error
    if gpu and hasattr(onnxruntime, "preload_dlls"):
        onnxruntime.preload_dlls()
    known = (getattr(state, name) for name in _REFUSALS if hasattr(state, name))
    return onnxruntime, (ValueError, RuntimeError, MemoryError, *known)


def _check_provider(runtime: Any) -> None:
    """Refuse a wheel without CUDA, before it warns and opens the model on the CPU."""
    if _CUDA not in runtime.get_available_providers():
        raise Unusable(
            f"{_CUDA} is not part of the server's onnxruntime wheel, which has {runtime.get_available_providers()}; "
            f"install one that has it there: {_INSTALL}"
        )


def _reason(runtime: Any) -> str:
    """Return what the CUDA provider lacks: a library by name, or a GPU."""
    folder = os.path.join(os.path.dirname(runtime.__file__), "capi")
    for library in ("libcuda.so.1", os.path.join(folder, "libonnxruntime_providers_cuda.so")):
        try:
            ctypes.CDLL(library)
        except OSError as error:
            found = _MISSING.search(str(error))
            if found:
                driver = " (of the NVIDIA driver)" if found[1].startswith("libcuda.so") else ""
                return f"{found[1]}{driver} is missing"
    return "its libraries are there, but it was refused; see the server's log"


def _as_torch(value: Any) -> Any:
    """An ONNX Runtime tensor as one that can be cut by rows where it lies."""
    import torch.utils.dlpack

    return torch.utils.dlpack.from_dlpack(value)
