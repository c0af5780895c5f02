"""Checks of a new file before it is stored: the axes that its outputs have in runs, and the layers it covers."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

from ..artifact import Artifact
from ..environment import Environment
from ..graphs import coverage
from ..intake.axes import measured
from ..recipe.configs import StageConfig
from ..recipe.targets import broken
from ..samples import Samples
from ..sessions.session import open_files
from ..stages.stage import Made
from ..store import Store
from . import coverage_cache


def shown(made: Made, folder: Path, golden: Samples, *, threads: int) -> Made:
    """Return a stage's result with axes as observed in runs: the graph may declare a single size."""
    if made.format != "onnx":
        return made
    from ..intake.on_onnx import declare

    session = open_files(made.format, made.inputs, made.outputs, folder, threads=threads)
    tensors = measured(made.inputs, session.run, golden.inputs, made.format)
    declare(folder / "model.onnx", tensors)
    return replace(made, inputs=tensors.inputs, outputs=tensors.outputs)


def check_coverage(
    config: StageConfig,
    artifact: Artifact,
    path: Path,
    store: Store,
    samples: Callable[[], Samples],
    *,
    environment: Environment,
    where: str,
) -> None:
    """Compare coverage on this machine with the stage's requirement, wherever the artifact was made.

    Raises:
        StageError: less runs in the stage's precision than it requires.
    """
    precision = config.covered_precision
    if not config.required_coverage or (precision != coverage.FP8 and broken(artifact.requires, environment)):
        return
    inputs = samples().take(1).inputs
    found = coverage_cache.recalled(artifact, store, inputs)
    if found is None:
        found = coverage_cache.on_samples(artifact, path, store, inputs)
    coverage.enforce(found, config.required_coverage, where, precision)
