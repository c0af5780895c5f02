"""Other model.py files for the same configuration: the obvious one, one that does nothing, one that times itself.

Texts only. They are placed beside ours in one server, under configurations that differ in the name alone.
"""

PLAIN = """
import os

import numpy as np
import onnxruntime
import triton_python_backend_utils as pb_utils


class TritonPythonModel:
    def initialize(self, args):
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = 1
        path = os.path.join(args["model_repository"], args["model_version"], "model.onnx")
        self.session = onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])

    def execute(self, requests):
        arrays = [pb_utils.get_input_tensor_by_name(request, "x").as_numpy() for request in requests]
        result = self.session.run(["y"], {"x": np.concatenate(arrays)})[0]
        responses, start = [], 0
        for array in arrays:
            tensor = pb_utils.Tensor("y", result[start : start + len(array)])
            responses.append(pb_utils.InferenceResponse(output_tensors=[tensor]))
            start += len(array)
        return responses
"""
"""What a user would write, with one thread like ours."""

NOTHING = """
import numpy as np
import triton_python_backend_utils as pb_utils


class TritonPythonModel:
    def initialize(self, args):
        self.zeros = np.zeros((1, 10), np.float32)

    def execute(self, requests):
        return [pb_utils.InferenceResponse([pb_utils.Tensor("y", self.zeros)]) for _ in requests]
"""
"""Reads no input and runs no model: what is left is the path."""

TIMED = (
    PLAIN.replace("import os\n", "import json\nimport os\nimport time\nfrom pathlib import Path\n")
    .replace("def execute(self", "def answer(self")
    .replace("self.session.run(", "self.run(")
    + """
    def run(self, names, feed):
        began = time.thread_time()
        result = self.session.run(names, feed)
        self.spent[1] += time.thread_time() - began
        return result

    spent = [0.0, 0.0, 0]

    def execute(self, requests):
        began = time.thread_time()
        responses = self.answer(requests)
        self.spent[0] += time.thread_time() - began
        self.spent[2] += len(requests)
        return responses

    def finalize(self):
        Path(__file__).with_name("spent.json").write_text(json.dumps(self.spent))
"""
)
"""The plain one; writes processor seconds in `execute`, those of them in the model's run, and requests as it ends."""
