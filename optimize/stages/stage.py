"""Interface of a stage: a function from a configuration and a parent to files, declared by `stage`.

Stages import torch and ONNX Runtime, so they are loaded only when they run; which stages there are, and what the cache
needs to know of one, is in `recipe.kinds`.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

from ..artifact import Artifact, Format, TensorSpec
from ..environment import Environment, library_versions
from ..errors import SeatrialError, SourceError
from ..quality import Score
from ..recipe.configs import StageConfig
from ..recipe.kinds import StageKind, checked
from ..recipe.recipe import Source
from ..samples import Samples, Split
from ..store import Store
from ..user_code import Reference

Progress = Callable[[float, str], None]
C = TypeVar("C", bound=StageConfig)


@dataclass(frozen=True, slots=True, kw_only=True)
class Context:
    """Inputs of a stage: an empty folder for its files, the store to read from, samples, the origin as a teacher.

    `progress` takes a share in [0, 1] and a short text. `samples` loads a split on first use. `checkpoints` is where a
    long stage may leave what it goes on from after an interruption; it may not be there yet, and goes when the stage's
    artifact is kept. `score` is the recipe's metric, for stages that search by quality; `base` is the folder of
    the recipe.
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
    base: Path = field(default_factory=Path)


@dataclass(frozen=True, slots=True, kw_only=True)
class Made:
    """Result of a stage in its folder: file names, tensors, the hardware contract, and notes for display."""

    format: Format
    files: tuple[str, ...]
    inputs: tuple[TensorSpec, ...]
    outputs: tuple[TensorSpec, ...]
    requires: Mapping[str, Any] = field(default_factory=dict)
    notes: Mapping[str, Any] = field(default_factory=dict)


def stage(config: type[C]) -> Callable[[Callable[[C, Artifact, Context], Made]], StageKind]:
    """Declare a function ``run(config, source, context) -> Made`` as the stage whose keys are the dataclass `config`.

    The function writes its files into ``context.folder``; it touches neither store nor cache.

    Raises:
        TypeError: the configuration is not a dataclass derived from `StageConfig` that states its formats.
    """
    return lambda function: checked(StageKind(config=config, function=function))


def run_stage(kind: StageKind, config: StageConfig, source: Artifact, context: Context) -> Made:
    """Run a stage; what the code of others raises, or returns wrongly, is an error that names it.

    Raises:
        SourceError: a stage from outside this project raised, or did not return what it promised.
    """
    if not kind.outside:
        made: Made = kind(config, source, context)
        return made
    where = f"stage {config.kind!r}, {kind.outside}"
    try:
        result = kind(config, source, context)
    except SeatrialError:
        raise
    except Exception as error:
        raise SourceError(
            f"the stage raised {type(error).__name__}: {error}",
            where=where,
            next_step="fix that code; nothing was stored",
        ) from error
    if not isinstance(result, Made):
        raise SourceError(f"the stage returned a {type(result).__name__}", where=where, next_step="return a Made")
    if result.format != config.makes:
        raise SourceError(
            f"the stage makes {config.makes!r} by its configuration and returned {result.format!r}",
            where=where,
            next_step="let both say the same format",
        )
    if missing := [name for name in result.files if not (context.folder / name).is_file()]:
        raise SourceError(
            f"the stage named the file {missing[0]!r} and did not write it",
            where=where,
            next_step="write every file of Made.files into context.folder",
        )
    return result


def libraries(config: StageConfig, environment: Environment) -> dict[str, str]:
    """Versions of the libraries that the stage's result depends on."""
    known = library_versions(tuple(name for name in config.libraries if name not in environment.libraries))
    return {name: environment.libraries.get(name) or known.get(name, "") for name in config.libraries}
