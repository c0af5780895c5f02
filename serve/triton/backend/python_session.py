"""One interface for every engine of the Python backend, and the choice of the engine that a version was placed with.

Copied beside model.py into each placed version and run inside the server's stub process, so it imports nothing of ours
but its neighbours. Knows tensors by name; knows nothing of requests, batches or Triton. An engine's library is imported
only where a version names that engine, and nothing falls back to another one.
"""

import importlib
import json
import os
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

Array = np.ndarray[Any, np.dtype[Any]]

RECORD = "placement.json"
_DEFAULT = {"kind": "onnx-cpu"}
_ON_GPU = {"kind": "onnx-cuda"}
_ENGINES = {
    "onnx-cpu": ("python_onnxruntime", "OnnxRuntime"),
    "onnx-cuda": ("python_onnxruntime", "OnnxRuntime"),
    "openvino": ("python_openvino", "OpenVino"),
    "torch": ("python_torch", "Torch"),
}
_PATH = re.compile(r"(?:[\w.+-]+)?(?:/[\w.+-]+){2,}/?")


class Unusable(Exception):
    """The session cannot be opened; the text may be shown to a client."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Opening:
    """Settings of one session: the model's file, the engine's options, and what the configuration says.

    `inputs` and `outputs` are the names that the configuration has, `largest` is the largest batch (0: no batching),
    `shapes` are those of the warm-up by input and without the batch axis, `device` is a GPU's number or None.
    """

    path: str
    options: Mapping[str, Any] = field(default_factory=lambda: _DEFAULT)
    threads: int = 1
    inputs: Sequence[str] = ()
    outputs: Sequence[str] = ()
    largest: int = 0
    shapes: Sequence[Mapping[str, Sequence[int]]] = ()
    device: str | None = None

    @property
    def file(self) -> str:
        """The model file's own name."""
        return os.path.basename(self.path)

    @classmethod
    def of(cls, folder: str, config: Mapping[str, Any], *, device: str | None) -> "Opening":
        """Read the version in `folder` and the model's configuration as Triton hands it on.

        Raises:
            Unusable: the version's record is missing or damaged, or the engine is none of ours.
        """
        parameters = {name: value["string_value"] for name, value in config["parameters"].items()}
        try:
            with open(os.path.join(folder, RECORD)) as stream:
                options = json.load(stream).get("engine") or (_DEFAULT if device is None else _ON_GPU)
                kind = options["kind"]
        except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
            raise Unusable(f"{RECORD} of the version cannot be read ({plain(error)}); place the model again") from error
        if kind not in _ENGINES:
            raise Unusable(f"{RECORD} names the engine {kind!r}; known are {', '.join(sorted(_ENGINES))}")
        warmed = [
            {name: tuple(map(int, each["dims"])) for name, each in sample["inputs"].items()}
            for sample in config.get("model_warmup", ())
        ]
        return cls(
            path=os.path.join(folder, parameters["model_file"]),
            options=options,
            threads=int(parameters["threads"]),
            inputs=[tensor["name"] for tensor in config["input"]],
            outputs=[tensor["name"] for tensor in config["output"]],
            largest=int(config["max_batch_size"]),
            shapes=[shapes for place, shapes in enumerate(warmed) if shapes not in warmed[:place]],
            device=device,
        )


class Session:
    """Base of all engines' sessions: one model, loaded.

    `inputs` and `outputs` are the model's own names, `refusals` the exceptions with which a run refuses its inputs.
    `scalars` and `text` are inputs of rank 0 and of strings, `notes` are lines for the server's log. `stays` says that
    outputs are tensors that stay on the device.
    """

    refusals: tuple[type[Exception], ...] = (ValueError, RuntimeError, MemoryError)

    def __init__(self) -> None:
        self.inputs: list[str] = []
        self.outputs: list[str] = []
        self.scalars: set[str] = set()
        self.text: set[str] = set()
        self.notes: list[str] = []
        self.stays = False

    def on_device(self, tensor: Any) -> Any:
        """Return a tensor that offers DLPack as one of the engine's, where it lies; no byte is copied."""
        raise NotImplementedError

    def run(self, names: Sequence[str], parts: Mapping[str, Sequence[Any]]) -> list[Any]:
        """Join the parts of each input along the first axis, run, and return the outputs named.

        They are host arrays that no later run changes, or tensors on the device where the engine leaves them there.

        Raises:
            refusals: the engine refused the inputs.
        """
        return self.infer(names, {name: self.joined(name, arrays) for name, arrays in parts.items()})

    def infer(self, names: Sequence[str], feed: Mapping[str, Any]) -> list[Any]:
        """Run once on one tensor for each input; see `run`."""
        raise NotImplementedError

    def caused_by_input(self, error: Exception) -> bool:
        """Return whether a refusal is the request's fault rather than the server's."""
        return isinstance(error, UnicodeDecodeError)

    def joined(self, name: str, parts: Sequence[Any]) -> Any:
        """Return one tensor of several; a single one is passed on, and tensors on a device meet on the host."""
        if name in self.text:  # the server hands on bytes, engines take text
            parts = [_decoded(part) for part in parts]
        if name in self.scalars and len(parts) == 1 and isinstance(parts[0], np.ndarray) and parts[0].size == 1:
            return parts[0].reshape(())  # the server has none: it is [1] outside
        if len(parts) == 1:
            return parts[0]
        return np.concatenate([part if isinstance(part, np.ndarray) else part.numpy() for part in parts])


def opened(opening: Opening) -> Session:
    """Open the model in the engine that its version names.

    Raises:
        Unusable: the engine or what it needs is missing here, or it refuses the model.
    """
    module, name = _ENGINES[opening.options["kind"]]
    kind = getattr(importlib.import_module(f".{module}", __package__), name)
    session: Session = kind(opening)
    return session


def shape(tensor: Any) -> tuple[int, ...]:
    """The shape of a host array or of a tensor on a device."""
    found = tensor.shape
    return tuple(found() if callable(found) else found)


def plain(error: Exception) -> str:
    """The error's first line without file paths, which are none of a client's business."""
    lines = str(error).strip().splitlines() or [type(error).__name__]
    return _PATH.sub("...", lines[0])[:500]


def _decoded(array: Array) -> Array:
    """Text of UTF-8 bytes; a `ValueError` where they are none."""
    flat = [each.decode() if isinstance(each, bytes) else str(each) for each in array.ravel()]
    return np.array(flat, dtype=object).reshape(array.shape)
