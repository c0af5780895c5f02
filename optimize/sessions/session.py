"""Opening of artifacts and files on this machine, with the engine of their format or another one by name.

``openvino-bf16`` computes in bfloat16 what the file says in float32: faster where the processor can, and not the same.
"""

from pathlib import Path

from ..artifact import Artifact, Format, TensorSpec
from ..environment import environment
from ..errors import ContractError
from ..recipe.targets import check
from ..store import Store
from .choice import OWN, EngineChoice
from .engine import ModelFiles, Opened, Session, engine_of, opened

__all__ = ["EngineChoice", "Session", "open_artifact", "open_files", "open_new", "open_onnx", "open_session"]


def open_session(
    artifact: Artifact, store: Store, *, threads: int = 1, engine: str = "", choice: EngineChoice = OWN
) -> Session:
    """Open an artifact on this machine with the engine of its format, or the one of that name.

    `choice` holds where its engine opens the format.

    Raises:
        ContractError: this machine breaks the artifact's hardware contract, the artifact is only a plan, or the engine
            lacks something here.
        MachineError: the engine fell back to another provider or device.
        ConfigError: there is no such engine, or it does not open this format.
        IntegrityError: the stored bytes were changed.
    """
    return open_artifact(artifact, store, threads=threads, engine=engine, choice=choice).session


def open_artifact(
    artifact: Artifact,
    store: Store,
    *,
    threads: int = 1,
    engine: str = "",
    device: str = "",
    choice: EngineChoice = OWN,
) -> Opened:
    """Open as `open_session` does, and say with which provider and on which device it runs."""
    if artifact.planned:
        raise ContractError(
            "the artifact is only the plan of a TensorRT engine",
            where=artifact.short,
            next_step="build the same recipe where TensorRT is installed, or run plan.json's trtexec line there",
        )
    asked = choice.of(artifact.format)
    check(artifact.requires, environment(), artifact.short, engine or asked.engine)
    model = ModelFiles(
        format=artifact.format,
        file=lambda name: store.path(artifact, name),
        names=frozenset(file.path for file in artifact.files),
        inputs=artifact.inputs,
        outputs=artifact.outputs,
    )
    found = engine_of(artifact.format, engine or asked.engine)
    return opened(found, model, threads=threads, device=device or asked.device)


def open_onnx(path: Path, *, threads: int = 1, engine: str = "", device: str = "") -> Opened:
    """Open an ONNX file that is no artifact yet, and say with which provider and on which device it runs.

    Raises:
        ContractError: the engine lacks something here.
        MachineError: the engine fell back to another provider or device.
        StageError: the engine cannot open the file.
    """
    model = ModelFiles(format="onnx", file=lambda name: path)
    return opened(engine_of("onnx", engine), model, threads=threads, device=device)


def open_new(artifact: Artifact, folder: Path, *, threads: int = 1, choice: EngineChoice = OWN) -> Session:
    """Open files that a stage has just made in `folder` and that no store keeps yet.

    Where the stage left an emulation, since the processor has no kernels for the real file, that is opened, unless the
    choice is of another engine for it.
    """
    return open_files(artifact.format, artifact.inputs, artifact.outputs, folder, threads=threads, choice=choice)


def open_files(
    format_: Format,
    inputs: tuple[TensorSpec, ...],
    outputs: tuple[TensorSpec, ...],
    folder: Path,
    *,
    threads: int = 1,
    choice: EngineChoice = OWN,
) -> Session:
    """Open files in `folder` of that format; see `open_new`."""
    engine, emulated = choice.engine_for(format_), folder / "emulated.onnx"
    emulates = format_ == "onnx" and emulated.exists() and engine is engine_of(format_)
    model = ModelFiles(
        format=format_,
        file=lambda name: emulated if emulates else folder / name,
        names=frozenset(path.name for path in folder.iterdir()),
        inputs=inputs,
        outputs=outputs,
        as_written=emulates,
    )
    return opened(engine, model, threads=threads, device=choice.of(format_).device).session
