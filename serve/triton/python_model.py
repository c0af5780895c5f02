"""The generic model.py of the python flavour: ONNX Runtime behind Triton's python backend.

This file is copied into each placed version and runs inside the server's stub process, so it imports nothing of ours:
the standard library, numpy, onnxruntime and Triton's own module only. Triton hands `execute` the requests that it chose
for one batch but does not join them; without the stacking done here, dynamic batching gains nothing. It must not decide
anything that the configuration decides (names, batch size, threads, providers).
"""

import json
import os
import re
from typing import Any

import numpy as np
import triton_python_backend_utils as pb_utils

Array = np.ndarray[Any, np.dtype[Any]]
Request = tuple[int, dict[str, Array], tuple[str, ...]]  # its place in the batch, its inputs, the outputs it asked for

# ONNX Runtime's exceptions have no common root of their own.
_REFUSALS: tuple[str, ...] = (
    "EPFail",
    "EngineError",
    "Fail",
    "InvalidArgument",
    "InvalidGraph",
    "InvalidProtobuf",
    "ModelLoaded",
)
_REFUSALS += ("NoModel", "NoSuchFile", "NotImplemented", "RuntimeException")
_PATH = re.compile(r"(?:[\w.+-]+)?(?:/[\w.+-]+){2,}/?")


class TritonPythonModel:
    """One instance of one version of one model."""

    def initialize(self, args: dict[str, str]) -> None:
        """Load the session; a failure here is the reason that Triton reports for the load."""
        config = json.loads(args["model_config"])
        self.batching: bool = config["max_batch_size"] > 0
        self.inputs = [tensor["name"] for tensor in config["input"]]
        self.outputs = [tensor["name"] for tensor in config["output"]]
        self.session, self.refusals = _session(args, config)
        for side, wanted, held in (
            ("inputs", self.inputs, [each.name for each in self.session.get_inputs()]),
            ("outputs", self.outputs, [each.name for each in self.session.get_outputs()]),
        ):
            if set(wanted) - set(held) or (side == "inputs" and set(held) - set(wanted)):
                raise pb_utils.TritonModelException(f"the model's {side} are {held}, the configuration names {wanted}")

    def execute(self, requests: list[Any]) -> list[Any]:
        """One response per request, in order; what fails, fails alone."""
        responses: list[Any] = [None] * len(requests)
        groups: dict[tuple[Any, ...], list[Request]] = {}
        for place, request in enumerate(requests):
            arrays = {name: pb_utils.get_input_tensor_by_name(request, name).as_numpy() for name in self.inputs}
            asked = set(request.requested_output_names())
            wanted = tuple(name for name in self.outputs if name in asked)
            alike = tuple(array.shape[1:] for array in arrays.values()) if self.batching else (place,)
            groups.setdefault(alike, []).append((place, arrays, wanted))
        for group in groups.values():
            self._answer(group, responses)
        return responses

    def _answer(self, group: list[Request], responses: list[Any]) -> None:
        """Run requests of one shape together; if that fails, each by itself, so that one bad input harms no other."""
        try:
            for (place, _, _), tensors in zip(group, self._run(group), strict=True):
                responses[place] = pb_utils.InferenceResponse(output_tensors=tensors)
        except self.refusals as error:
            if len(group) > 1:
                for request in group:
                    self._answer([request], responses)
                return
            pb_utils.Logger.log_error(f"request failed: {error}")
            responses[group[0][0]] = pb_utils.InferenceResponse(output_tensors=[], error=_triton_error(error))

    def _run(self, group: list[Request]) -> list[list[Any]]:
        """Output tensors for each request of the group: views into one run's outputs, never copies."""
        names = [name for name in self.outputs if any(name in wanted for _, _, wanted in group)]
        if len(group) == 1:
            feed = group[0][1]
        else:
            feed = {name: np.concatenate([arrays[name] for _, arrays, _ in group]) for name in self.inputs}
        results = dict(zip(names, self.session.run(names, feed), strict=True)) if names else {}
        if not self.batching:
            return [[pb_utils.Tensor(name, results[name]) for name in group[0][2]]]
        rows = [next(iter(arrays.values())).shape[0] for _, arrays, _ in group]
        for name, array in results.items():
            if array.ndim == 0 or array.shape[0] != sum(rows):
                raise ValueError(f"output {name} has shape {list(array.shape)} for a batch of {sum(rows)}")
        stops = np.cumsum(rows)
        return [
            [pb_utils.Tensor(name, results[name][stop - count : stop]) for name in wanted]
            for (_, _, wanted), count, stop in zip(group, rows, stops, strict=True)
        ]

    def finalize(self) -> None:
        """Give the session back before the process ends."""
        del self.session


def _session(args: dict[str, str], config: dict[str, Any]) -> tuple[Any, tuple[type[Exception], ...]]:
    """The session, and the exceptions with which it refuses a run."""
    parameters = {name: value["string_value"] for name, value in config["parameters"].items()}
    try:
        import onnxruntime
        from onnxruntime.capi import onnxruntime_pybind11_state as state
    except ImportError as error:
        raise pb_utils.TritonModelException(
            f"the server's Python cannot import onnxruntime ({_plain(error)}); put the environment that has it first "
            "on the server's PATH"
        ) from error
    known = (getattr(state, name) for name in _REFUSALS if hasattr(state, name))
    refusals: tuple[type[Exception], ...] = (ValueError, RuntimeError, MemoryError, *known)
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = int(parameters["threads"])
    options.inter_op_num_threads = 1
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")  # instances share the cores
    options.log_severity_level = 3
    path = os.path.join(args["model_repository"], args["model_version"], parameters["model_file"])
    providers: list[Any] = parameters["providers"].split(",")
    if args["model_instance_kind"] == "GPU":
        device = {"device_id": args["model_instance_device_id"]}
        providers = [(name, device) if name == "CUDAExecutionProvider" else name for name in providers]
    try:
        session = onnxruntime.InferenceSession(path, options, providers=providers)
    except refusals as error:
        raise pb_utils.TritonModelException(f"{parameters['model_file']} cannot be loaded: {_plain(error)}") from error
    first = parameters["providers"].split(",")[0]
    if first not in session.get_providers():  # ONNX Runtime falls back to the CPU with a warning only
        raise pb_utils.TritonModelException(f"{first} is not to be had here; there are {session.get_providers()}")
    return session, refusals


def _triton_error(error: Exception) -> Any:
    refused = type(error).__name__ == "InvalidArgument"
    code = pb_utils.TritonError.INVALID_ARG if refused else pb_utils.TritonError.INTERNAL
    return pb_utils.TritonError(f"inference failed: {_plain(error)}", code)


def _plain(error: Exception) -> str:
    """The error's first line without file paths, which are none of a client's business."""
    lines = str(error).strip().splitlines() or [type(error).__name__]
    return _PATH.sub("...", lines[0])[:500]
