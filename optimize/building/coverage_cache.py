"""Coverage of a stored artifact on this machine, measured once per machine and cached.

A share holds for one engine on one machine; under another fingerprint it is measured anew.
"""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

from ..artifact import Artifact, TensorSpec, canonical, digest_bytes
from ..environment import environment
from ..errors import ConfigError, SeatrialError, StageError
from ..graphs.coverage import Coverage, coverage
from ..graphs.engine_inspector import read_layers
from ..graphs.execution_graph import macs
from ..reading import decode
from ..recipe.data import Data
from ..recipe.recipe import Recipe
from ..recipe.recorded import recorded_recipe
from ..recipe.targets import broken, check
from ..record import as_json
from ..samples import Array
from ..sessions.choice import OWN, EngineChoice
from ..sessions.device import device_of
from ..store import Store
from ..tensorrt.plan import LAYERS, MODEL


def measured(
    artifact: Artifact,
    store: Store,
    *,
    length: int | None = None,
    recipe: Recipe | None = None,
    choice: EngineChoice = OWN,
) -> Coverage:
    """Return the coverage of the artifact on this machine, or for an engine as TensorRT's inspector reported it.

    Sizes are those of the calibration samples of `recipe`, or of the recipe that made the artifact, since the fraction
    depends on them. With `length` all axes of unknown length after the batch are that long instead.

    Raises:
        ConfigError: it is neither an ONNX file nor a built engine, or sizes are free and no samples say which.
        ConfigError: the engine of `choice` does not show the graph that it runs.
        ContractError: this machine breaks the artifact's hardware contract, or lacks what the engine needs; a file in
            fp8 is counted as it is written, on any machine.
    """
    choice.check([artifact.format])
    if artifact.format == "tensorrt" and any(file.path == LAYERS for file in artifact.files):
        inputs = _inputs(artifact, store, length, recipe)
        free = {size for axis in sizes(artifact.inputs, inputs).values() for size in axis}
        text = store.path(artifact, LAYERS).read_text()
        layers = read_layers(text, length=max(free, default=length or 1), costs=_costs(artifact, store, inputs))
        return replace(coverage(layers), shapes=_shapes(inputs))
    if artifact.format != "onnx":
        said = "a plan that has not been built yet" if artifact.planned else artifact.format
        raise ConfigError(
            f"{artifact.short} is {said}; coverage needs an artifact that an engine has run",
            next_step="name an onnx artifact, or an engine with its layers.json; history lists them",
        )
    path = store.path(artifact, "model.onnx")
    if not _counted_anywhere(path):
        check(artifact.requires, environment(), artifact.short, choice.of("onnx").engine)
    return _run(path, _inputs(artifact, store, length, recipe), choice)


def sizes(specs: Sequence[TensorSpec], inputs: Mapping[str, Array]) -> dict[str, tuple[int, ...]]:
    """Return the lengths of the free axes after the batch, by input; inputs [batch, ...] without any are left out."""
    found = {
        spec.name: tuple(
            inputs[spec.name].shape[axis] for axis, dim in enumerate(spec.shape) if axis and isinstance(dim, str)
        )
        for spec in specs
        if spec.name in inputs
    }
    return {name: free for name, free in found.items() if free}


def _inputs(artifact: Artifact, store: Store, length: int | None, recipe: Recipe | None) -> dict[str, Array]:
    """One batch of samples [batch, ...], or an example of the length; of the fixed batch where there is one."""
    from ..sessions.on_ort_graph import example_inputs

    free = any(axis and isinstance(dim, str) for spec in artifact.inputs for axis, dim in enumerate(spec.shape))
    if length is not None:
        return example_inputs(artifact.inputs, length=length)
    try:
        samples = Data(recipe or recorded_recipe(artifact, store), store, environment()).samples("calibration")
        missing = [spec.name for spec in artifact.inputs if spec.name not in samples.inputs]
        if missing:
            raise ConfigError(f"the samples lack the inputs {', '.join(missing)}")
    except SeatrialError as error:
        if recipe is None and not free:
            return example_inputs(artifact.inputs, length=1)
        raise ConfigError(
            f"the lengths of the free axes of {artifact.short} are unknown: {error.what}",
            next_step="name its recipe with --recipe, or a length with --length",
        ) from error
    firsts = [spec.shape[0] for spec in artifact.inputs if spec.shape]
    return samples.take(next((dim for dim in firsts if isinstance(dim, int)), 1)).copied()


def _run(path: Path, inputs: Mapping[str, Array], choice: EngineChoice = OWN) -> Coverage:
    """Return the coverage of the graph at `path` on one batch of inputs, [batch, ...], with their shapes."""
    from ..sessions.on_ort_graph import Exposed, executed

    engine = choice.engine_for("onnx")
    device = device_of(choice.of("onnx").device or engine.device)
    if not (providers := engine.graph_providers(device)):
        raise ConfigError(
            f"engine {engine.name} does not show the graph that it runs",
            where="engine",
            next_step="use onnxruntime-cpu or onnxruntime-cuda",
        )
    if _counted_anywhere(path):
        graph = Exposed(path, providers=providers, device=device).graph(inputs)
    else:
        graph = executed(path, inputs, providers=providers, device=device)
    found = coverage(graph)
    return replace(found, shapes=_shapes(inputs), device=str(device))


def _counted_anywhere(path: Path) -> bool:
    """Return whether the file is counted as it is written: its fp8 runs in float on a CPU, and fuses in TensorRT."""
    from ..sessions.on_ort_graph import holds_fp8

    return holds_fp8(path)


def _shapes(inputs: Mapping[str, Array]) -> dict[str, tuple[int, ...]]:
    """Return the shape of each array."""
    return {name: tuple(map(int, array.shape)) for name, array in inputs.items()}


def on_samples(artifact: Artifact, path: Path, store: Store, inputs: Mapping[str, Array]) -> Coverage:
    """Measure the coverage of the artifact whose graph lies at `path`, on one batch [batch, ...]; for `recalled`."""
    found = _run(path, inputs)
    store.remember("coverage", _key(artifact), as_json(found))
    return found


def recalled(artifact: Artifact, store: Store, inputs: Mapping[str, Array] | None = None) -> Coverage | None:
    """Return an earlier result of `on_samples` on this machine, at the shapes of `inputs` where given; else None."""
    found = store.recall_as("coverage", _key(artifact), lambda note: decode(Coverage, note, where=""))
    return None if found is None or (inputs is not None and found.shapes != _shapes(inputs)) else found


def coverages(artifacts: Mapping[str, Artifact], store: Store) -> dict[str, Coverage]:
    """The coverage of each that can run here, by label: remembered, or measured now."""
    found = {}
    for label, artifact in artifacts.items():
        engine = any(file.path == LAYERS for file in artifact.files)
        onnx = artifact.format == "onnx"
        here = onnx and not broken(artifact.requires, environment())
        if engine or here or (onnx and _counted_anywhere(store.path(artifact, "model.onnx"))):
            found[label] = recalled(artifact, store) or measured(artifact, store)
    return found


def _costs(artifact: Artifact, store: Store, inputs: Mapping[str, Array]) -> dict[str, int]:
    """MACs of every node of the engine's graph at the shapes of `inputs`, as far as this machine can run it."""
    from ..sessions.on_ort_graph import Exposed

    if not any(file.path == MODEL for file in artifact.files):
        return {}
    try:
        graph = Exposed(store.path(artifact, MODEL)).graph(inputs)
    except StageError:  # no kernels here for its types, bf16 for instance
        return {}
    found = {each.name: macs(each, graph.tensors) for each in graph.operations if each.name}
    return {name: cost for name, cost in found.items() if cost is not None}


def _key(artifact: Artifact) -> str:
    return digest_bytes(canonical({"artifact": artifact.digest, "machine": environment().fingerprint}))
