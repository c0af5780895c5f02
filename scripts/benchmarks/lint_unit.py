"""One configuration of the lint benchmark: a few models in a repository of their own, one of which is the target."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from importlib import import_module
from pathlib import Path
from typing import Any

MODEL = """
import json
import numpy as np
import triton_python_backend_utils as pb_utils


class TritonPythonModel:
    def initialize(self, args):
        config = json.loads(args["model_config"])
        self.batching = config.get("max_batch_size", 0) > 0
        self.decoupled = pb_utils.using_decoupled_model_transaction_policy(config)
        self.outputs = [
            (
                each["name"],
                [max(int(dim), 1) for dim in each["dims"]],
                pb_utils.triton_string_to_numpy(each["data_type"]),
            )
            for each in config.get("output", [])
        ]

    def execute(self, requests):
        responses = []
        for request in requests:
            rows = [tensor.as_numpy().shape for tensor in request.inputs()]
            batch = [rows[0][0] if rows and rows[0] else 1] if self.batching else []
            tensors = [
                pb_utils.Tensor(name, np.zeros(batch + dims, dtype=kind)) for name, dims, kind in self.outputs if kind
            ]
            response = pb_utils.InferenceResponse(output_tensors=tensors)
            if self.decoupled:
                sender = request.get_response_sender()
                sender.send(response, flags=pb_utils.TRITONSERVER_RESPONSE_COMPLETE_FINAL)
            else:
                responses.append(response)
        return None if self.decoupled else responses
"""


@dataclass(slots=True, kw_only=True)
class Model:
    """One model of a unit, to be changed by a mutation before it is written.

    `config` is a ModelConfig; `text`, where given, replaces it. `files` are paths within the model's directory, a None
    is a directory. `links` are symbolic links.
    """

    config: Any
    text: bytes | None = None
    prefix: bytes = b""
    files: dict[str, bytes | None] = field(default_factory=dict)
    links: dict[str, str] = field(default_factory=dict)

    def written(self) -> bytes:
        """The bytes of config.pbtxt."""
        if self.text is not None:
            return self.text
        text = import_module("google.protobuf.text_format").MessageToString(self.config)
        return self.prefix + str(text).encode()


@dataclass(slots=True, kw_only=True)
class Unit:
    """Models by directory name; `target` is the one to load, `kind` how it was made."""

    target: str
    models: dict[str, Model]
    kind: str = "valid"

    def write(self, folder: Path) -> None:
        """Write the repository."""
        for name, model in self.models.items():
            directory = folder / name
            directory.mkdir(parents=True)
            (directory / "config.pbtxt").write_bytes(model.written())
            for path, content in model.files.items():
                place = directory / path
                if content is None:
                    place.mkdir(parents=True, exist_ok=True)
                else:
                    place.parent.mkdir(parents=True, exist_ok=True)
                    place.write_bytes(content)
            for path, to in model.links.items():
                (directory / path).symlink_to(to)

    def closure(self) -> set[str]:
        """The target and the models that its ensembles' steps name."""
        waiting, found = [self.target], set[str]()
        while waiting:
            name = waiting.pop()
            if name in self.models and name not in found:
                found.add(name)
                waiting += [step.model_name for step in self.models[name].config.ensemble_scheduling.step]
        return found


def python_files(versions: tuple[int, ...], file: str = "model.py") -> dict[str, bytes | None]:
    """The files of a python model in these versions."""
    return {f"{version}/{file}": MODEL.encode() for version in versions}


def message() -> Any:
    """The module of Triton's configuration messages."""
    return import_module("tritonclient.grpc.model_config_pb2")


Sizes = Mapping[str, tuple[int, ...]]
