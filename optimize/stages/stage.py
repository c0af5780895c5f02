"""Interface of a stage: a function from a configuration and a parent to files, and the lookup by kind.

Stages import torch and ONNX Runtime, so they are loaded only when they run; what the cache needs to know of a stage
(`code_digest`) is computed without importing it.
"""

import importlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol, cast

from ..artifact import Artifact, Format, TensorSpec
from ..environment import Environment
from ..import_closure import own_tree
from ..quality import Score
from ..recipe.configs import StageConfig
from ..recipe.recipe import Source
from ..samples import Samples, Split
from ..store import Store
from ..user_code import Reference

Progress = Callable[[float, str], None]
_DECLARED_BY = ("intake.axes", "intake.on_onnx")  # what writes the axes of any result


@dataclass(frozen=True, slots=True, kw_only=True)
class Context:
    """Inputs of a stage: an empty folder for its files, the store to read from, samples, the origin as a teacher.

    `progress` takes a share in [0, 1] and a short text. `samples` loads a split on first use. `checkpoints` is where a
    long stage may leave what it goes on from after an interruption; it may not be there yet, and goes when the stage's
    artifact is kept. `score` is the recipe's metric, for stages that search by quality.
    """

    folder: Path
    checkpoints: Path
    store: Store
    origin: Artifact
    source: Source
    samples: Callable[[Split], Samples]
    reference: Callable[[str], Reference]
    environment: Environment
    seed: int
    progress: Progress
    score: Score | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Made:
    """Result of a stage in its folder: file names, tensors, the hardware contract, and notes for display."""

    format: Format
    files: tuple[str, ...]
    inputs: tuple[TensorSpec, ...]
    outputs: tuple[TensorSpec, ...]
    requires: Mapping[str, Any] = field(default_factory=dict)
    notes: Mapping[str, Any] = field(default_factory=dict)


class Stage(Protocol):
    """The one function of every stage's module."""

    def __call__(self, config: Any, parent: Artifact, context: Context) -> Made:
        """Make the stage's files in ``context.folder``."""
        ...


def stage(config: StageConfig) -> Stage:
    """The stage of that configuration, imported now."""
    module = importlib.import_module(f".{config.kind}", package=__package__)
    return cast("Stage", module.run)


def code_digest(config: StageConfig) -> str:
    """Digest of the code that the stage's result depends on: its module's imports, and theirs."""
    return own_tree().digest(f"stages.{config.kind}", *_DECLARED_BY)


def libraries(config: StageConfig, environment: Environment) -> dict[str, str]:
    """Versions of the libraries that the stage's result depends on."""
    return {name: environment.libraries.get(name, "") for name in config.libraries}
