"""Covered: the coverage of a kept artifact on this machine, measured once per machine and remembered.

A share holds for one engine on one machine; under another fingerprint it is measured anew.
"""

from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path

from .artifact import Artifact, canonical, digest_bytes
from .config import typed
from .coverage import Coverage, coverage
from .engine import LAYERS, MODEL
from .environment import environment
from .errors import ConfigError, StageError
from .executed import macs
from .inspected import read_layers
from .samples import Array
from .store import Store
from .targets import broken, check


def measured(artifact: Artifact, store: Store, *, length: int = 8) -> Coverage:
    """What the artifact runs: on this machine, or for an engine what TensorRT's inspector said when it was built.

    Axes of unknown length after the batch are taken to be `length` long.

    Raises:
        ConfigError: it is neither an ONNX file nor a built engine.
        ContractError: this machine breaks the artifact's hardware contract.
    """
    if artifact.format == "tensorrt" and any(file.path == LAYERS for file in artifact.files):
        text = store.path(artifact, LAYERS).read_text()
        return coverage(read_layers(text, length=length, costs=_costs(artifact, store, length)))
    if artifact.format != "onnx":
        said = "a plan, of which nothing ran yet" if artifact.planned else artifact.format
        raise ConfigError(
            f"{artifact.short} is {said}, and coverage reads what an engine runs",
            next_step="name an onnx artifact, or an engine with its layers.json; history lists them",
        )
    from .sessions.on_ort_graph import example_inputs, executed

    check(artifact.requires, environment(), artifact.short)
    return coverage(executed(store.path(artifact, "model.onnx"), example_inputs(artifact.inputs, length=length)))


def on_samples(artifact: Artifact, path: Path, store: Store, inputs: Mapping[str, Array]) -> Coverage:
    """What this machine runs of the artifact whose graph lies at `path`, on one batch; remembered for `recalled`."""
    from .sessions.on_ort_graph import executed

    found = coverage(executed(path, inputs))
    store.remember("coverage", _key(artifact), asdict(found))
    return found


def recalled(artifact: Artifact, store: Store) -> Coverage | None:
    """What `on_samples` found of the artifact on this very machine, or None."""
    return store.recall_as("coverage", _key(artifact), lambda note: typed(note, Coverage))


def coverages(artifacts: Mapping[str, Artifact], store: Store) -> dict[str, Coverage]:
    """The coverage of each that can run here, by label: remembered, or measured now."""
    found = {}
    for label, artifact in artifacts.items():
        engine = any(file.path == LAYERS for file in artifact.files)
        if engine or (artifact.format == "onnx" and not broken(artifact.requires, environment())):
            found[label] = recalled(artifact, store) or measured(artifact, store)
    return found


def _costs(artifact: Artifact, store: Store, length: int) -> dict[str, int]:
    """MACs of every node of the graph that the engine was built from, as far as this machine can run it."""
    from .sessions.on_ort_graph import Exposed, example_inputs

    if not any(file.path == MODEL for file in artifact.files):
        return {}
    try:
        graph = Exposed(store.path(artifact, MODEL)).graph(example_inputs(artifact.inputs, length=length))
    except StageError:  # no kernels here for its types, bf16 for instance
        return {}
    found = {each.name: macs(each, graph.tensors) for each in graph.operations if each.name}
    return {name: cost for name, cost in found.items() if cost is not None}


def _key(artifact: Artifact) -> str:
    return digest_bytes(canonical({"artifact": artifact.digest, "machine": environment().fingerprint}))
