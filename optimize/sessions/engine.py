"""Engines: how a model's files are opened to be run, one class for each, and the registry of all.

An engine says which formats it opens, whether it can run here, and opens. Its library is imported by `load` or `open`,
not by asking. One of another package is an entry point of the group ``seatrial.engines``.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar, Protocol

from ..artifact import Format, TensorSpec
from ..errors import ConfigError, ContractError
from ..experimental import Experimental
from ..registry import Registry, instance_of
from ..samples import Array

GROUP = "seatrial.engines"


class Session(Protocol):
    """A model that is open: `run` maps input arrays to output arrays by name, first axis the batch."""

    def run(self, inputs: Mapping[str, Array]) -> dict[str, Array]:
        """Infer once. Raises StageError where the engine refuses the inputs."""
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelFiles:
    """A model to open: `file` finds one of its files by name, `names` lists them; tensors where they are known.

    `as_written` asks for the graph as it stands, without fusions, where the engine would make other values of it.
    """

    format: Format
    file: Callable[[str], Path]
    names: frozenset[str] = frozenset()
    inputs: tuple[TensorSpec, ...] = ()
    outputs: tuple[TensorSpec, ...] = ()
    as_written: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Opened:
    """An open session, and what really runs it: the provider of the engine, and the device."""

    session: Session
    provider: str
    device: str


class Engine:
    """Base of all engines: `name`, the `formats` that it opens, the `device` that it runs on unless told otherwise.

    `install` is the command that makes it available. `part` is the experimental part that an unproven one belongs to.
    """

    name: ClassVar[str]
    formats: ClassVar[tuple[Format, ...]]
    device: ClassVar[str] = "cpu"
    install: ClassVar[str] = ""
    part: ClassVar[Experimental | None] = None

    def available(self) -> str | None:
        """Return why it cannot run on this machine; None where it can."""
        return None

    def load(self) -> None:
        """Import the library, so that a look at the process around opening sees the model alone."""

    def open(self, model: ModelFiles, *, device: str, threads: int) -> Opened:
        """Open the model.

        Raises:
            StageError: the engine cannot open the file.
        """
        raise NotImplementedError


ENGINES: Registry[Engine] = Registry(
    "engine",
    GROUP,
    {  # in full, so that a change of an engine counts as one of every stage that opens sessions (`import_closure`)
        "onnxruntime-cpu": "seatrial.optimize.sessions.on_ort:OrtCpu",
        "onnxruntime": "seatrial.optimize.sessions.on_ort:OrtCpu",  # as recipes call it
        "openvino": "seatrial.optimize.sessions.on_openvino:OpenVino",
        "openvino-bf16": "seatrial.optimize.sessions.on_openvino:OpenVinoBf16",
        "torch": "seatrial.optimize.sessions.on_torch:Torch",
        "torch-export": "seatrial.optimize.sessions.on_exported:Exported",
        "tensorrt": "seatrial.optimize.sessions.on_tensorrt:TensorRT",
    },
    instance_of(Engine),
)
_DEFAULTS: Mapping[Format, str] = {
    "torch": "torch",
    "onnx": "onnxruntime-cpu",
    "tensorrt": "tensorrt",
    "torch-export": "torch-export",
}


def engine_of(format_: Format, name: str = "") -> Engine:
    """Return the engine of that name, or the default one of the format.

    Raises:
        ConfigError: no such engine, or one that does not open this format.
    """
    engine = ENGINES.get(name or _DEFAULTS[format_], where="engine")
    if format_ not in engine.formats:
        raise ConfigError(
            f"engine {name!r} opens {' and '.join(engine.formats)}, not {format_}",
            where="engine",
            next_step=f"leave it out, or use {_DEFAULTS[format_]}",
        )
    return engine


def opened(engine: Engine, model: ModelFiles, *, threads: int, device: str = "") -> Opened:
    """Open a model with an engine, on its own device unless another is named.

    Raises:
        ContractError: the engine is not available here.
        StageError: it cannot open the file.
    """
    if (reason := engine.available()) is not None:
        raise ContractError(reason, where=f"engine {engine.name}", next_step=engine.install or "use another machine")
    return engine.open(model, device=device or engine.device, threads=threads)
