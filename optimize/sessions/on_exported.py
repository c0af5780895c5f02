"""Programs of `torch.export`: opens a package (``model.pt2``) and runs it on the CPU; writes one.

A package is deterministic: no example inputs, no stack traces. It holds the names, types and ranks of its tensors in
``seatrial.json``, which the Python backend reads too. One with pickled objects is refused, since unpickling runs code.
"""

import json
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any, ClassVar

import torch

from ..artifact import Format, TensorSpec
from ..errors import StageError
from ..samples import Array
from .engine import Engine, ModelFiles, Opened

PACKAGE = "model.pt2"
_NAMES = "seatrial.json"
_ORIGINS = ("stack_trace", "nn_module_stack", "source_fn_stack", "torch_fn", "from_node")
"""Metadata of nodes that say which code they came from: no part of the model, and different in each process."""


class ExportedSession:
    """A program of `torch.export` with `threads` threads."""

    def __init__(self, path: Path, *, threads: int = 1) -> None:
        extra = {_NAMES: ""}
        try:
            if pickled := pickles(path):
                raise StageError(f"the package holds pickled objects: {', '.join(pickled[:5])}", where=str(path))
            with path.open("rb") as stream:  # by path, torch refuses names that do not end in .pt2
                program = torch.export.load(stream, extra_files=extra)
            ends = json.loads(extra[_NAMES])
        except StageError:
            raise
        except Exception as error:  # the loader raises whatever a damaged package leads it to
            raise StageError(
                f"torch cannot open the package: {_first_line(error)}", where=str(path), next_step="make it again"
            ) from error
        self._module = program.module()
        self._inputs, self._outputs = tuple(ends["inputs"]), tuple(ends["outputs"])
        self._threads = threads

    def run(self, inputs: Mapping[str, Array]) -> dict[str, Array]:
        """Infer once on the named arrays, with this session's number of threads."""
        before = torch.get_num_threads()
        torch.set_num_threads(self._threads)
        shapes = {name: array.shape for name, array in inputs.items()}
        try:
            with torch.inference_mode():
                given = [torch.from_numpy(inputs[name].copy()) for name in self._inputs]
                results = self._module(*given)
        except (RuntimeError, TypeError, ValueError, KeyError, IndexError, AssertionError) as error:
            raise StageError(
                f"the program refused the inputs: {_first_line(error)}", where=f"shapes {shapes}"
            ) from error
        finally:
            torch.set_num_threads(before)
        return {name: value.numpy().copy() for name, value in zip(self._outputs, results, strict=True)}


class Exported(Engine):
    """A program of `torch.export` on the processor."""

    name: ClassVar[str] = "torch-export"
    formats: ClassVar[tuple[Format, ...]] = ("torch-export",)

    def open(self, model: ModelFiles, *, device: str, threads: int) -> Opened:
        """Open ``model.pt2``."""
        session = ExportedSession(model.file(PACKAGE), threads=threads)
        return Opened(session=session, provider="torch", device="cpu")


def save(
    program: torch.export.ExportedProgram, path: Path, inputs: tuple[TensorSpec, ...], outputs: tuple[TensorSpec, ...]
) -> None:
    """Write a program that takes the inputs and returns the outputs by position.

    Raises:
        StageError: it holds objects that could only be stored as pickles.
    """
    for node in program.graph.nodes:
        for origin in _ORIGINS:
            node.meta.pop(origin, None)
    program._example_inputs = None  # they would be stored; there is no other way to leave them out
    ends: dict[str, Any] = {
        "inputs": [spec.name for spec in inputs],
        "outputs": [spec.name for spec in outputs],
        "types": {spec.name: spec.dtype for spec in inputs},
        "ranks": {spec.name: len(spec.shape) for spec in inputs},
    }
    torch.export.save(program, path, extra_files={_NAMES: json.dumps(ends, sort_keys=True)})
    if pickled := pickles(path):
        raise StageError(
            f"the module holds what only a pickle could store: {', '.join(pickled[:5])}",
            where=PACKAGE,
            next_step="keep only plain tensors in the module, or export to onnx",
        )


def pickles(path: Path) -> list[str]:
    """Return the names of weights and constants that a package stores as pickles."""
    with zipfile.ZipFile(path) as package:
        configs = [json.loads(package.read(name)) for name in package.namelist() if name.endswith("_config.json")]
    held = {name: each for config in configs for name, each in config.get("config", {}).items()}
    plain = ("weight_", "tensor_")
    return sorted(
        name
        for name, each in held.items()
        if each.get("use_pickle") or not str(each.get("path_name", "")).startswith(plain)
    )


def _first_line(error: Exception) -> str:
    return next(iter(str(error).strip().splitlines()), type(error).__name__)
