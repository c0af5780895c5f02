"""Answers each request with its own input: the smallest model of the python backend, to try a server with."""

from typing import Any

import triton_python_backend_utils as pb_utils


class TritonPythonModel:
    """The identity."""

    def execute(self, requests: list[Any]) -> list[Any]:
        """One response per request, in order."""
        return [pb_utils.InferenceResponse(output_tensors=[self._echo(request)]) for request in requests]

    def _echo(self, request: Any) -> Any:
        return pb_utils.Tensor("y", pb_utils.get_input_tensor_by_name(request, "x").as_numpy())
