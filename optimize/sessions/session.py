"""Protocol of all engines, and the choice of the engine for an artifact.

The format decides, except that an ONNX file has two engines: ONNX Runtime, and OpenVINO on request.
``openvino-bf16`` computes in bfloat16 what the file says in float32: faster where the processor can, and not the same.
"""

import importlib
from collections.abc import Mapping
from importlib.util import find_spec
from pathlib import Path
from typing import Literal, Protocol

from ..artifact import Artifact, Format, TensorSpec
from ..environment import environment
from ..errors import ContractError
from ..recipe.targets import check
from ..samples import Array
from ..store import Store

Engine = Literal["onnxruntime", "openvino", "openvino-bf16"]


_PRECISIONS: Mapping[Engine, Literal["f32", "bf16"]] = {"openvino": "f32", "openvino-bf16": "bf16"}
_LEAVES: Mapping[Format, str] = {"torch": "on_torch", "onnx": "on_ort", "tensorrt": "on_tensorrt"}


class Session(Protocol):
    """A model that is open: `run` maps input arrays to output arrays by name, first axis the batch."""

    def run(self, inputs: Mapping[str, Array]) -> dict[str, Array]:
        """Infer once. Raises StageError where the engine refuses the inputs."""
        ...


def open_session(artifact: Artifact, store: Store, *, threads: int = 1, engine: Engine = "onnxruntime") -> Session:
    """Open an artifact on this machine with the engine of its format; `engine` chooses for ONNX files.

    Raises:
        ContractError: this machine breaks the artifact's hardware contract, or the artifact is only a plan.
        MachineError: TensorRT is not installed here.
        IntegrityError: the stored bytes were changed.
    """
    if artifact.planned:
        raise ContractError(
            "the artifact is only the plan of a TensorRT engine",
            where=artifact.short,
            next_step="build the same recipe where TensorRT is installed, or run plan.json's trtexec line there",
        )
    check(artifact.requires, environment(), artifact.short)
    if artifact.format == "torch":
        from .on_torch import TorchSession, open_module

        return TorchSession(open_module(artifact, store), artifact.inputs, artifact.outputs, threads=threads)
    if artifact.format == "onnx":
        return open_onnx(store.path(artifact, "model.onnx"), threads=threads, engine=engine)
    from .on_tensorrt import EngineSession

    return EngineSession(lambda name: store.path(artifact, name), artifact.inputs, artifact.outputs)


def open_onnx(path: Path, *, threads: int = 1, engine: Engine = "onnxruntime") -> Session:
    """Open an ONNX file that is no artifact yet.

    Raises:
        ContractError: OpenVINO is asked for and not installed.
        StageError: the engine cannot open the file.
    """
    if engine == "onnxruntime":
        from .on_ort import OrtSession

        return OrtSession(path, threads=threads)
    if find_spec("openvino") is None:
        raise ContractError("OpenVINO is not installed", where=str(path), next_step="pip install 'seatrial[openvino]'")
    from .on_openvino import OpenVinoSession

    return OpenVinoSession(path, threads=threads, precision=_PRECISIONS[engine])


def import_engine(format_: Format, engine: Engine = "onnxruntime") -> None:
    """Import what `open_session` would, so that a look at the process around opening sees the model alone.

    Raises:
        ImportError: the engine is not installed.
    """
    leaf = "on_openvino" if format_ == "onnx" and engine != "onnxruntime" else _LEAVES[format_]
    importlib.import_module(f".{leaf}", package=__package__)


def open_new(artifact: Artifact, folder: Path, *, threads: int = 1) -> Session:
    """Open files that a stage has just made in `folder` and that no store keeps yet.

    Where the stage left an emulation, since this machine has no kernels for the real file, that is opened.
    """
    return open_files(artifact.format, artifact.inputs, artifact.outputs, folder, threads=threads)


def open_files(
    format_: Format, inputs: tuple[TensorSpec, ...], outputs: tuple[TensorSpec, ...], folder: Path, *, threads: int = 1
) -> Session:
    """Open files in `folder` of that format; see `open_new`."""
    if format_ == "tensorrt":
        from .on_tensorrt import EngineSession

        return EngineSession(lambda name: folder / name, inputs, outputs)
    from .on_ort import OrtSession

    emulated = folder / "emulated.onnx"
    if emulated.exists():
        return OrtSession(emulated, threads=threads, optimize=False)
    return OrtSession(folder / "model.onnx", threads=threads)
