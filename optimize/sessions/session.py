"""Opening of artifacts and files on this machine, with the engine of their format or another one by name.

``openvino-bf16`` computes in bfloat16 what the file says in float32: faster where the processor can, and not the same.
"""

from pathlib import Path

from ..artifact import Artifact, Format, TensorSpec
from ..environment import environment
from ..errors import ContractError
from ..recipe.targets import check
from ..store import Store
from .engine import ModelFiles, Opened, Session, engine_of, opened

__all__ = ["Session", "open_artifact", "open_files", "open_new", "open_onnx", "open_session"]


def open_session(artifact: Artifact, store: Store, *, threads: int = 1, engine: str = "") -> Session:
    """Open an artifact on this machine with the engine of its format, or the one of that name.

    Raises:
        ContractError: this machine breaks the artifact's hardware contract, the artifact is only a plan, or the engine
            is not installed.
        ConfigError: there is no such engine, or it does not open this format.
        IntegrityError: the stored bytes were changed.
    """
    return open_artifact(artifact, store, threads=threads, engine=engine).session


def open_artifact(artifact: Artifact, store: Store, *, threads: int = 1, engine: str = "", device: str = "") -> Opened:
    """Open as `open_session` does, and say with which provider and on which device it runs."""
    if artifact.planned:
        raise ContractError(
            "the artifact is only the plan of a TensorRT engine",
            where=artifact.short,
            next_step="build the same recipe where TensorRT is installed, or run plan.json's trtexec line there",
        )
    check(artifact.requires, environment(), artifact.short)
    model = ModelFiles(
        format=artifact.format,
        file=lambda name: store.path(artifact, name),
        names=frozenset(file.path for file in artifact.files),
        inputs=artifact.inputs,
        outputs=artifact.outputs,
    )
    return opened(engine_of(artifact.format, engine), model, threads=threads, device=device)


def open_onnx(path: Path, *, threads: int = 1, engine: str = "") -> Session:
    """Open an ONNX file that is no artifact yet.

    Raises:
        ContractError: the engine is not installed.
        StageError: the engine cannot open the file.
    """
    model = ModelFiles(format="onnx", file=lambda name: path)
    return opened(engine_of("onnx", engine), model, threads=threads).session


def open_new(artifact: Artifact, folder: Path, *, threads: int = 1) -> Session:
    """Open files that a stage has just made in `folder` and that no store keeps yet.

    Where the stage left an emulation, since this machine has no kernels for the real file, that is opened.
    """
    return open_files(artifact.format, artifact.inputs, artifact.outputs, folder, threads=threads)


def open_files(
    format_: Format, inputs: tuple[TensorSpec, ...], outputs: tuple[TensorSpec, ...], folder: Path, *, threads: int = 1
) -> Session:
    """Open files in `folder` of that format; see `open_new`."""
    emulated = folder / "emulated.onnx"
    emulates = format_ == "onnx" and emulated.exists()
    model = ModelFiles(
        format=format_,
        file=lambda name: emulated if emulates else folder / name,
        names=frozenset(path.name for path in folder.iterdir()),
        inputs=inputs,
        outputs=outputs,
        as_written=emulates,
    )
    return opened(engine_of(format_), model, threads=threads).session
