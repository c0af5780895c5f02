"""Engines: how a model's files are opened to be run, one class for each, and the registry of all.

An engine says which formats it opens, on which devices it runs, what it lacks here, and opens. What was asked for and
what was got are compared here, for every engine: a library that falls back says so in a log at most. Its library is
imported by `load` or `open`, not by asking. One of another package is an entry point of the group ``seatrial.engines``.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import ClassVar, Protocol, runtime_checkable

from .. import experimental
from ..artifact import Format, TensorSpec
from ..errors import ConfigError, ContractError, MachineError
from ..experimental import Experimental
from ..recipe.configs import Profile
from ..registry import Registry, instance_of
from ..samples import Array
from .device import Device, device_of

GROUP = "seatrial.engines"
Provider = str | tuple[str, Mapping[str, str]]
"""A provider of ONNX Runtime: its name, or its name and its options."""


class Session(Protocol):
    """A model that is open: `run` maps input arrays to output arrays by name, first axis the batch."""

    def run(self, inputs: Mapping[str, Array]) -> dict[str, Array]:
        """Infer once. Raises StageError where the engine refuses the inputs."""
        ...


class Bound(Protocol):
    """Inputs and outputs in buffers of the device, allocated once for their shapes: run often, copy only on request."""

    def write(self, inputs: Mapping[str, Array]) -> None:
        """Copy arrays of the same shapes into the input buffers."""
        ...

    def run(self) -> None:
        """Infer once on the buffers; returns when the outputs are there."""
        ...

    def read(self) -> dict[str, Array]:
        """Copy the output buffers to the host."""
        ...


@runtime_checkable
class Bindable(Protocol):
    """A session whose engine runs bound buffers."""

    def bind(self, inputs: Mapping[str, Array]) -> Bound:
        """Allocate buffers for inputs of these shapes, fill them, and run once so that the outputs' shapes are known.

        Raises:
            StageError: the engine refuses the inputs.
        """
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelFiles:
    """A model to open: `file` finds one of its files by name, `names` lists them; tensors where they are known.

    `as_written` asks for the graph as it stands, without fusions, where the engine would make other values of it.
    `profile` gives the range of shapes of each input for an engine that compiles for ranges; empty: its own default.
    """

    format: Format
    file: Callable[[str], Path]
    names: frozenset[str] = frozenset()
    inputs: tuple[TensorSpec, ...] = ()
    outputs: tuple[TensorSpec, ...] = ()
    as_written: bool = False
    profile: Profile = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class RanOn:
    """What a figure was taken with: the engine's name, its provider and device as they were got, not as asked for.

    `on_cpu` lists the nodes of a model on another device that the engine left to the CPU.
    """

    engine: str
    provider: str
    device: str
    on_cpu: tuple[str, ...] = ()

    def __str__(self) -> str:
        left = f", {len(self.on_cpu)} nodes on the CPU" if self.on_cpu else ""
        return f"{self.engine} ({self.provider}) on {self.device}{left}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Opened:
    """An open session, and what really runs it: the provider of the engine, the device, nodes left to the CPU."""

    session: Session
    provider: str
    device: str
    on_cpu: tuple[str, ...] = ()
    engine: str = ""

    @property
    def ran_on(self) -> RanOn:
        """The same without the session, as it stands beside a figure."""
        return RanOn(engine=self.engine, provider=self.provider, device=self.device, on_cpu=self.on_cpu)


@dataclass(frozen=True, slots=True, kw_only=True)
class Missing:
    """One part that this machine lacks: a sentence, and the command or step that helps."""

    what: str
    next_step: str


class Engine:
    """Base of all engines: `name`, the `formats` that it opens, the `device` that it runs on unless told otherwise.

    `devices` are all kinds of device that it runs on (empty: the kind of `device`), `provider` is what it must get of
    its library (empty: it has one only). `rounds` says that it computes in fewer digits than the file's types have.
    `install` is the command that makes it available. `part` is the experimental part that an unproven one belongs to.
    """

    name: ClassVar[str]
    formats: ClassVar[tuple[Format, ...]]
    device: ClassVar[str] = "cpu"
    devices: ClassVar[tuple[str, ...]] = ()
    provider: ClassVar[str] = ""
    rounds: ClassVar[bool] = False
    install: ClassVar[str] = ""
    part: ClassVar[Experimental | None] = None

    def available(self) -> str | None:
        """Return why it cannot run on this machine; None where it can."""
        return None

    def missing(self, device: Device) -> Missing | None:
        """Return the part that it lacks to run on that device here: a library, a driver, a wheel; None where none."""
        reason = self.available()
        return None if reason is None else Missing(what=reason, next_step=self.install or "use another machine")

    def graph_providers(self, device: Device) -> tuple[Provider, ...]:
        """Return the providers of ONNX Runtime that show the graph which this engine runs; none where it shows none."""
        return ()

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
        "onnxruntime-cuda": "seatrial.optimize.sessions.on_ort_cuda:OrtCuda",
        "onnxruntime-tensorrt": "seatrial.optimize.sessions.on_ort_tensorrt:OrtTensorrt",
        "openvino": "seatrial.optimize.sessions.on_openvino:OpenVino",
        "openvino-bf16": "seatrial.optimize.sessions.on_openvino:OpenVinoBf16",
        "torch": "seatrial.optimize.sessions.on_torch:Torch",
        "torch-compile": "seatrial.optimize.sessions.on_torch_compile:TorchCompile",
        "torch-cuda-graph": "seatrial.optimize.sessions.on_torch_graph:TorchCudaGraph",
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


def require(engine: Engine, device: str = "") -> Device:
    """Return the device that the engine is to run on, its own unless one is named, where this machine has all it needs.

    Raises:
        ConfigError: no such device, or one that the engine does not run on.
        ContractError: a library, a driver or the device is missing; says which.
    """
    wanted = device_of(device or engine.device)
    kinds = engine.devices or (device_of(engine.device).kind,)
    if wanted.kind not in kinds:
        others = "; for ONNX on a GPU, use engine onnxruntime-cuda" if "onnx" in engine.formats else ""
        raise ConfigError(
            f"engine {engine.name} runs on {' and '.join(kinds)}, not on {wanted}",
            where="device",
            next_step=f"use device {kinds[0]}{others if wanted.kind == 'cuda' else ''}",
        )
    if (lacking := engine.missing(wanted)) is not None:
        where = f"engine {engine.name}" + (f" on {wanted}" if wanted.kind != "cpu" else "")
        raise ContractError(lacking.what, where=where, next_step=lacking.next_step)
    return wanted


def opened(engine: Engine, model: ModelFiles, *, threads: int, device: str = "") -> Opened:
    """Open a model with an engine, on its own device unless another is named, and hold what was got against it.

    Raises:
        ConfigError: the engine does not run on that device.
        ContractError: the engine is not available here.
        MachineError: the engine fell back to another provider or device.
        StageError: it cannot open the file.
    """
    wanted = require(engine, device)
    report_use(engine, wanted)
    found = engine.open(model, device=str(wanted), threads=threads)
    if found.device not in _names(wanted) or engine.provider not in ("", found.provider):
        raise MachineError(
            f"engine {engine.name} was to run {engine.provider or 'its own provider'} on {wanted}, "
            f"and got {found.provider} on {found.device}",
            where=f"engine {engine.name}",
            next_step=engine.install or "use another engine",
        )
    return replace(found, engine=engine.name, device=str(wanted))


def _names(device: Device) -> tuple[str, ...]:
    """Names of a device; the first of a kind may go without its number."""
    return (str(device),) if device.index else (str(device), device.kind)


def report_use(engine: Engine, device: Device) -> None:
    """Report the experimental parts that the engine on that device belongs to."""
    if engine.part is not None:
        experimental.used(engine.part)
    if device.kind == "cuda":
        experimental.used(experimental.GPU)
