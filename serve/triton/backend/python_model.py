"""The generic model.py of the Python backend: an engine behind Triton's python backend.

Copied with the other ``python_*.py`` here into each placed version and run inside the server's stub process, so it
imports nothing of ours but those. Triton hands `execute` the requests that it chose for one batch but does not join
them; without the joining done here, dynamic batching gains nothing. It must not decide anything that the configuration
decides (names, batch size, threads, the cache's bounds), nor what the version's record does (its engine).

Inputs are views of the server's shared memory and answers are views of one run's outputs; the one copy in between is
the joining. What was tried and gained nothing is listed in docs/benchmarks.md.

The first lines come before every other import: the server's stub puts the version's and the model's folder on the
module search path, where a file named like a library would be taken for it.
"""

# ruff: noqa: E402
import sys

sys.dont_write_bytecode = True
_HERE = __file__.rpartition("/")[0]
sys.path[:] = [each for each in sys.path if each.rstrip("/") not in (_HERE, _HERE.rpartition("/")[0])]

import gc
import json
import os
from typing import Any

import numpy as np
import triton_python_backend_utils as pb_utils

from .python_remembering import Columns, Remembering, Wanted, part
from .python_session import Opening, Unusable, opened, plain, shape


class TritonPythonModel:
    """One instance of one version of one model."""

    def initialize(self, args: dict[str, str]) -> None:
        """Load the session; a failure here is the reason that Triton reports for the load."""
        config = json.loads(args["model_config"])
        parameters = {name: value["string_value"] for name, value in config["parameters"].items()}
        self.inputs = [tensor["name"] for tensor in config["input"]]
        self.outputs: Wanted = tuple(tensor["name"] for tensor in config["output"])
        self.batching: bool = config["max_batch_size"] > 0
        # Where every size is fixed the server has seen to it that all requests of a batch are of one shape.
        self.varied = not self.batching or any(-1 in map(int, tensor["dims"]) for tensor in config["input"])
        gpu = args["model_instance_kind"] == "GPU"
        folder = os.path.join(args["model_repository"], args["model_version"])
        device = args["model_instance_device_id"] if gpu else None
        try:
            self.session = opened(Opening.of(folder, config, device=device))
        except Unusable as error:
            raise pb_utils.TritonModelException(str(error)) from error
        for note in self.session.notes:
            pb_utils.Logger.log_warn(note)
        for side, wanted, held in (
            ("inputs", set(self.inputs), self.session.inputs),
            ("outputs", set(self.outputs), self.session.outputs),
        ):
            if wanted - set(held) or (side == "inputs" and set(held) - wanted):
                raise pb_utils.TritonModelException(
                    f"the model's {side} are {held}, the configuration names {sorted(wanted)}"
                )
        self.take = self._device_or_host if gpu else self._host
        self.cache = Remembering(args, parameters, folder) if "cache_bytes" in parameters else None
        gc.collect()
        gc.freeze()  # what is loaded stays: a full collection would otherwise walk all of it, for milliseconds

    def execute(self, requests: list[Any]) -> list[Any]:
        """One response per request, in order; what fails, fails alone."""
        columns: Columns = {name: self.take(requests, name) for name in self.inputs}
        wanted = self._wanted(requests)
        if self.cache is None:
            answers = self._computed(columns, wanted)
        else:
            answers = self.cache.answered(requests, columns, wanted, self._computed)
        response, tensor = pb_utils.InferenceResponse, _tensor if self.session.stays else pb_utils.Tensor
        if len(self.outputs) == 1:
            name = self.outputs[0]
            return [
                response([tensor(name, answer[0])]) if type(answer) is tuple else self._failed(answer)
                for answer in answers
            ]
        return [
            response([tensor(name, array) for name, array in zip(names, answer, strict=True)])
            if type(answer) is tuple
            else self._failed(answer)
            for names, answer in zip(wanted, answers, strict=True)
        ]

    def finalize(self) -> None:
        """Give the session back before the process ends."""
        del self.session

    def _host(self, requests: list[Any], name: str) -> list[Any]:
        get = pb_utils.get_input_tensor_by_name
        return [get(request, name).as_numpy() for request in requests]

    def _device_or_host(self, requests: list[Any], name: str) -> list[Any]:
        """Tensors where they lie: the server leaves those on a GPU that an ensemble or shared memory put there."""
        tensors = [pb_utils.get_input_tensor_by_name(request, name) for request in requests]
        return [each.as_numpy() if each.is_cpu() else self.session.on_device(each) for each in tensors]

    def _wanted(self, requests: list[Any]) -> list[Wanted]:
        """What each request asks for, in the configuration's order; of a single output nobody need be asked."""
        if len(self.outputs) == 1:
            return [self.outputs] * len(requests)
        asked = [request.requested_output_names() for request in requests]
        full = len(self.outputs)
        return [
            self.outputs if len(names) == full else tuple(each for each in self.outputs if each in names)
            for names in asked
        ]

    def _computed(self, columns: Columns, wanted: list[Wanted]) -> list[Any]:
        """For each request its answer, or the error that it alone gave; requests of one shape run together."""
        if not self.varied:
            return self._tried(columns, wanted)
        groups: dict[Any, list[int]] = {}
        for place in range(len(wanted)):
            alike = tuple(shape(column[place])[1:] for column in columns.values()) if self.batching else place
            groups.setdefault(alike, []).append(place)
        answers: list[Any] = [None] * len(wanted)
        for places in groups.values():
            for place, answer in zip(places, self._tried(*part(columns, wanted, places)), strict=True):
                answers[place] = answer
        return answers

    def _tried(self, columns: Columns, wanted: list[Wanted]) -> list[Any]:
        """Run requests together; if that fails, each by itself, so that one bad input harms no other."""
        try:
            return self._run(columns, wanted)
        except self.session.refusals as error:
            if len(wanted) == 1:
                return [error]
        return [self._tried(*part(columns, wanted, [place]))[0] for place in range(len(wanted))]

    def _run(self, columns: Columns, wanted: list[Wanted]) -> list[Any]:
        """Each request's outputs: views into one run's, never copies."""
        alike = len(self.outputs) == 1 or len(set(wanted)) == 1
        names = wanted[0] if alike else self.outputs
        results = self.session.run(names, columns)
        if not self.batching:  # the server has no scalars: they are [1] outside
            return [tuple([array if array.ndim else array.reshape(1) for array in results])]
        cuts, stop = [], 0
        for tensor in columns[self.inputs[0]]:
            start, stop = stop, stop + shape(tensor)[0]
            cuts.append(slice(start, stop))
        for name, array in zip(names, results, strict=True):
            if array.ndim == 0 or array.shape[0] != stop:
                raise ValueError(f"output {name} has shape {list(array.shape)} for a batch of {stop}")
        if len(results) == 1 and alike:
            (array,) = results
            return [(array[cut],) for cut in cuts]
        if alike:
            return [tuple([array[cut] for array in results]) for cut in cuts]
        by_name = dict(zip(names, results, strict=True))
        return [tuple([by_name[name][cut] for name in asked]) for asked, cut in zip(wanted, cuts, strict=True)]

    def _failed(self, error: Exception) -> Any:
        pb_utils.Logger.log_error(f"request failed: {error}")
        blamed = self.session.caused_by_input(error)
        code = pb_utils.TritonError.INVALID_ARG if blamed else pb_utils.TritonError.INTERNAL
        said = pb_utils.TritonError(f"inference failed: {plain(error)}", code)
        return pb_utils.InferenceResponse(output_tensors=[], error=said)


def _tensor(name: str, array: Any) -> Any:
    """An output as the server takes it: a host array, or a tensor that stays on its device."""
    kinds = pb_utils.Tensor
    return kinds(name, array) if isinstance(array, np.ndarray) else kinds.from_dlpack(name, array)
