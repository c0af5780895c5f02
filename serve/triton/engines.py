"""Engines of placed versions: which one a version is served in, what it lacks on this machine, and its like in process.

Reads records and looks for libraries without importing them. Options of an engine stand in a version's record as JSON
values, as the deployment's table has them; without any, ONNX Runtime serves it on the CPU.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from functools import cache
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from seatrial.optimize.artifact import Artifact
from seatrial.optimize.environment import environment
from seatrial.optimize.errors import ConfigError, ContractError, MissingError, SeatrialError
from seatrial.optimize.reading import read_object
from seatrial.optimize.recipe.recipe import Recipe
from seatrial.optimize.recipe.recorded import recorded_recipe
from seatrial.optimize.record import as_json
from seatrial.optimize.sessions.choice import EngineChoice
from seatrial.optimize.store import Store

from ..deployment import Deployment, OnnxCpu, OnnxCuda, OpenVino, Torch
from ..deployment.engines import AnyEngine

Options = Mapping[str, Any]
RECORD = "placement.json"
"""Name of the record in a version's directory."""

_MEASURED = "engine"  # the note with which a stage says in which engine it measured
_BY_NAME: Mapping[str, AnyEngine] = {
    "openvino": OpenVino(kind="openvino"),
    "openvino-bf16": OpenVino(kind="openvino", precision="bf16"),
    "onnxruntime-cuda": OnnxCuda(kind="onnx-cuda"),
}
_NAMED: Mapping[str, AnyEngine] = {
    **_BY_NAME,
    "onnxruntime-cpu": OnnxCpu(kind="onnx-cpu"),
    "onnxruntime": OnnxCpu(kind="onnx-cpu"),
    "torch-export": Torch(kind="torch"),
}
_LIBRARIES = {
    "onnx-cpu": ("onnxruntime", "pip install onnxruntime-gpu"),
    "onnx-cuda": ("onnxruntime", "pip install 'onnxruntime-gpu[cuda,cudnn]'"),
    "openvino": ("openvino", "pip install 'seatrial[openvino]'"),
    "torch": ("torch", "pip install torch"),
}
_CUDA = "capi/libonnxruntime_providers_cuda.so"
_BF16 = ("amx_bf16", "avx512_bf16")


@dataclass(frozen=True, slots=True, kw_only=True)
class Lacking:
    """One part that this machine lacks for an engine: a sentence, and the step that helps."""

    what: str
    next_step: str


def served_in(artifact: Artifact, deployment: Deployment, store: Store) -> Options | None:
    """Return the options of the engine that serves the artifact; None for the native backend and for the default.

    It is the deployment's, or the one of the artifact's format or instances, or the one that the artifact was measured
    in, by its own provenance or the nearest ancestor's.
    """
    if deployment.backend != "python":
        return None
    engine: AnyEngine | None = deployment.engine
    if engine is None and artifact.format == "torch-export":
        engine = Torch(kind="torch")
    if engine is None and deployment.instances.kind == "gpu":
        engine = OnnxCuda(kind="onnx-cuda")
    if engine is None:
        engine = _BY_NAME.get(measured_in(artifact, store))
    if engine is None or engine == OnnxCpu(kind="onnx-cpu"):
        return None
    options = dict(as_json(engine))
    if isinstance(engine, OpenVino):  # which axes must be of one size, it does not learn from the file
        named = {
            spec.name: [size if isinstance(size, str) else None for size in spec.shape] for spec in artifact.inputs
        }
        options["axes"] = named
    return options


def deployed_in(deployment: Deployment, artifact: Artifact, name: str) -> Deployment:
    """Return the deployment with the engine of that name, as recipes and verbs call it, for artifacts that it opens.

    An artifact of a format that the engine does not open stays as it is deployed; for CUDA, instances are on the GPU.

    Raises:
        ConfigError: no server runs an engine of that name.
        ConfigRuleError: the deployment cannot have it.
    """
    engine = named(name)
    if not EngineChoice(engine=name).of(artifact.format):
        return deployment
    on_gpu = isinstance(engine, OnnxCuda)
    instances = replace(deployment.instances, kind="gpu") if on_gpu else deployment.instances
    return replace(deployment, engine=engine, instances=instances)


def named(name: str) -> AnyEngine:
    """Return the engine of a server that does what the engine of that name does in process.

    Raises:
        ConfigError: there is none.
    """
    if name not in _NAMED:
        raise ConfigError(
            f"no server runs engine {name!r}", where="engine", next_step=f"use one of {', '.join(_NAMED)}"
        )
    return _NAMED[name]


def of_recipe(name: str, deployment: Deployment | None) -> str:
    """Return the engine of a recipe where it serves too: a server runs it, and the deployment leaves it open."""
    is_open = deployment is None or (deployment.engine is None and deployment.backend == "python")
    return name if is_open and name in _NAMED else ""


def deployed_as_built(
    deployment: Deployment, artifact: Artifact, store: Store, recipe: Recipe | None = None
) -> Deployment:
    """Return the deployment with the engine of the recipe where it leaves it open; of the artifact's own by default.

    An artifact whose recipe is not in the store is served as it is deployed.

    Raises:
        ConfigRuleError: the deployment cannot have that engine.
        SeatrialError: the recipe that was kept cannot be read.
    """
    try:
        made_by = recipe or recorded_recipe(artifact, store)
    except MissingError:
        return deployment
    name = of_recipe(made_by.engine, deployment)
    return deployed_in(deployment, artifact, name) if name else deployment


def measured_in(artifact: Artifact, store: Store) -> str:
    """Return the name of the engine in which a stage measured the artifact or its nearest ancestor; empty: unknown."""
    for each in _line(artifact, store):
        name = each.made_by.notes.get(_MEASURED)
        if isinstance(name, str) and name:
            return name
    return ""


def check(options: Options | None, where: str) -> None:
    """Refuse an engine that the server's Python on this machine cannot run.

    Raises:
        ContractError: names the missing part and how to install it.
    """
    lacking = missing(options)
    if lacking is not None:
        raise ContractError(lacking.what, where=where, next_step=lacking.next_step)


def missing(options: Options | None) -> Lacking | None:
    """Return what the server's Python on this machine, which is this one, lacks for the engine; None where nothing."""
    kind = kind_of(options)
    if kind not in _LIBRARIES:
        known = ", ".join(_LIBRARIES)
        return Lacking(what=f"there is no engine {kind!r}", next_step=f"place it again with one of {known}")
    library, install = _LIBRARIES[kind]
    found = find_spec(library)
    here = "the Python that runs the server"
    if found is None:
        return Lacking(what=f"engine {kind} needs {library}, which is not installed in {here}", next_step=install)
    if kind == "onnx-cuda":
        folders = [Path(each) for each in found.submodule_search_locations or ()]
        if not any((folder / _CUDA).is_file() for folder in folders):
            what = f"engine onnx-cuda needs CUDAExecutionProvider, which {here} has no onnxruntime wheel with"
            return Lacking(what=what, next_step=install)
        if not environment().gpus:
            return Lacking(
                what="engine onnx-cuda needs an NVIDIA GPU and its driver, and this machine has none",
                next_step="use instances of kind cpu, or place it with --elsewhere for a server on another machine",
            )
    if kind == "openvino" and (options or {}).get("precision") == "bf16" and not set(_BF16) & _flags():
        return Lacking(
            what=f"engine openvino computes in bf16 only with {' or '.join(_BF16)}, which this processor lacks",
            next_step='use precision = "f32", or place it with --elsewhere for a server on another machine',
        )
    return None


def recorded(version: Path) -> tuple[bool, Options | None]:
    """Return whether a version's directory holds a record of the Python backend, and the engine that it names.

    A record that cannot be read counts as none; whoever reads all of it says so.
    """
    try:
        record = read_object(version / RECORD)
    except (OSError, SeatrialError):
        return False, None
    engine = record.get("engine")
    return record.get("backend", record.get("flavour")) == "python", engine if isinstance(engine, Mapping) else None


def in_process(options: Options | None) -> str:
    """Return the name of the engine that gives the same answers in this process; empty for a format's own."""
    if kind_of(options) != "openvino":
        return ""
    return "openvino-bf16" if (options or {}).get("precision") == "bf16" else "openvino"


def shown(options: Options | None) -> str:
    """Return the engine for people: ``openvino (bf16)``."""
    precision = (options or {}).get("precision")
    return kind_of(options) + (f" ({precision})" if precision else "")


def kind_of(options: Options | None) -> str:
    """Return the engine's kind."""
    return "onnx-cpu" if options is None else str(options.get("kind"))


def _line(artifact: Artifact, store: Store) -> Iterator[Artifact]:
    """Yield the artifact and its ancestors, as far as the store holds them."""
    found: Artifact | None = artifact
    while found is not None:
        yield found
        parent = found.made_by.parent
        try:
            found = store.find(parent) if parent is not None else None
        except SeatrialError:  # a store that cannot be read knows no ancestors
            return


@cache
def _flags() -> frozenset[str]:
    """Return the processor's instruction sets as Linux names them."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return frozenset()
    return frozenset(next((line for line in lines if line.startswith("flags")), "").split())
