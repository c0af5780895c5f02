"""Recipe of a build, read from TOML and checked before any work.

Types only, and the check that the chain of formats fits; the options of a stage are in `stages.configs`.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import Field

from .. import config
from ..artifact import Format, canonical, digest_bytes
from ..errors import ConfigError, FormatChainError, MissingError, SeatrialError
from ..record import as_json
from ..user_code import Reference
from .configs import Positive, StageConfig
from .kinds import BY_KIND, STAGES, StageKind, kind_of
from .metrics import METRICS
from .space import Alternative, Search

_LATER = ("engine", "device")


@dataclass(frozen=True, slots=True, kw_only=True)
class Source:
    """The trained model: a factory of a ``torch.nn.Module`` with its weights (safetensors), or an ONNX file.

    `outputs` names a module's outputs (by default its one ``output``), or those of an ONNX file to keep (by default
    all). `dynamic` names further dynamic axes of a module besides the batch: ``{input_ids = {1 = "sequence"}}``; an
    ONNX file has its own.
    """

    factory: str | None = None
    weights: str | None = None
    arguments: Mapping[str, Any] = field(default_factory=dict)
    onnx: str | None = None
    outputs: tuple[str, ...] = ()
    dynamic: Mapping[str, Mapping[str, str]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if (self.factory is None) == (self.onnx is None):
            raise ConfigError(
                "a source needs either a factory or an onnx file", where="source", next_step="give exactly one"
            )
        if self.onnx is not None and (self.weights or self.arguments):
            raise ConfigError(
                "weights and arguments are allowed only with a factory", where="source", next_step="remove them"
            )
        if self.onnx is not None and self.dynamic:
            raise ConfigError(
                "dynamic is allowed only with a factory: an ONNX file declares its own free axes",
                where="source.dynamic",
                next_step="remove it; free axes are detected by running the model",
            )
        if self.onnx is None and not self.outputs:
            object.__setattr__(self, "outputs", ("output",))

    @property
    def format(self) -> Format:
        """Format of the source, from which the chain of stages starts."""
        return "onnx" if self.onnx is not None else "torch"


@dataclass(frozen=True, slots=True, kw_only=True)
class Data:
    """The user's loader, how much of each split to use, and what else its samples come from (it enters cache keys).

    `files` are those that it reads, `packages` installed distributions whose contents it reads: their versions count.
    """

    loader: str
    files: tuple[str, ...] = ()
    packages: tuple[str, ...] = ()
    train: Positive | None = None
    calibration: Positive = 512
    evaluation: Positive | None = None
    golden: Positive = 16


@dataclass(frozen=True, slots=True, kw_only=True)
class Metric:
    """Quality, higher is better: a name (``accuracy``) or a reference to ``metric(outputs, labels) -> [n] scores``."""

    name: str = "accuracy"
    output: str | None = None

    def __post_init__(self) -> None:
        if ":" not in self.name and self.name not in METRICS:
            raise ConfigError(
                f"unknown metric {self.name!r}",
                where="metric.name",
                next_step=f"use {', '.join(METRICS)}, or file.py:function",
            )


@dataclass(frozen=True, slots=True, kw_only=True)
class Floors:
    """Requirements of a build: `max_quality_drop` is the most that quality may fall below the source's."""

    max_quality_drop: Annotated[float | None, config.renamed("max_quality_drop", old="quality_drop")] = None


Fate = Literal["report", "drop"]
Resource = Literal["latency", "size", "memory"]


@dataclass(frozen=True, slots=True, kw_only=True)
class OnNoGain:
    """Policy for a stage by its effect on each resource: ``drop`` leaves it out where it makes that one worse.

    Where any says ``drop``, a stage that is better in none of them is left out too.
    """

    latency: Fate = "report"
    size: Fate = "report"
    memory: Fate = "report"

    @property
    def counted(self) -> tuple[Resource, ...]:
        """The resources that say ``drop``."""
        named: tuple[tuple[Resource, Fate], ...] = (
            ("latency", self.latency),
            ("size", self.size),
            ("memory", self.memory),
        )
        return tuple(name for name, fate in named if fate == "drop")


@dataclass(frozen=True, slots=True, kw_only=True)
class Recipe:
    """Everything a build needs; `path` is the file it came from and the base of relative references.

    Without stages (``stages = []``) the source, an ONNX file then, is served unchanged. `on_no_gain` is the policy for
    a stage that makes the model slower than its parent on this machine, or improves nothing: ``report`` keeps and marks
    it, ``drop`` continues from the parent (never where the format changes); a table sets the policy for latency, size
    and memory separately. `search` marks the fields that `search.py` may change, or lists candidates to compare; a
    build ignores it. `engine` and `device` say what runs artifacts of the formats that the engine opens, wherever one
    is compared or measured; empty: each format's own engine, on the CPU.
    """

    schema: Literal[1]
    name: Annotated[str, Field(pattern=r"^[a-z0-9][a-z0-9_-]*$", max_length=100)]
    source: Source
    data: Data
    stages: tuple[Annotated[StageConfig, BY_KIND], ...]
    metric: Metric = field(default_factory=Metric)
    floors: Floors = field(default_factory=Floors)
    on_no_gain: Fate | OnNoGain = "report"
    on_disagreement: Literal["fail", "drop"] = "fail"
    seed: int = 7
    engine: str = ""
    device: str = ""
    search: Search | None = None
    path: Path = field(default=Path("recipe.toml"), init=False)

    def at(self, path: Path) -> "Recipe":
        """Return the same recipe with that path."""
        copy = replace(self)
        object.__setattr__(copy, "path", path)
        return copy

    def alternative(self, chosen: Alternative) -> "Recipe":
        """Return the ordinary recipe of one of the search's candidates: its stages and engine, and nothing left out."""
        own = replace(self, stages=chosen.stages, search=None, on_no_gain="report", on_disagreement="fail")
        return own.at(self.path).measured_in(chosen.engine, chosen.device)

    def measured_in(self, engine: str = "", device: str = "") -> "Recipe":
        """Return the recipe with another engine, and the device of that, or with another device; empty: as it is."""
        if not engine and not device:
            return self
        named = replace(self, engine=engine or self.engine, device=device or ("" if engine else self.device))
        return named.at(self.path)

    @property
    def base(self) -> Path:
        """The folder that relative references start from."""
        return self.path.parent

    @property
    def reference_name(self) -> str:
        """Name and tag of the float reference: the source in ONNX, not otherwise changed."""
        return f"{self.name}.fp32"

    @property
    def digest(self) -> str:
        """Digest of the recipe's content, independent of its formatting."""
        return digest_bytes(canonical(self.content))

    @property
    def content(self) -> dict[str, Any]:
        """The recipe as JSON values; a key that was added later is left out where it is empty, so that digests stay."""
        whole: dict[str, Any] = as_json(self)
        return {key: value for key, value in whole.items() if value or key not in _LATER}

    def kind_of(self, config: StageConfig) -> StageKind:
        """The stage that one of the recipe's configurations belongs to.

        Raises:
            ConfigError, MissingError, SourceError: it is not there any more, or is no stage.
        """
        return kind_of(config.kind, self.base)

    def reference(self, text: str) -> Reference:
        """A callable that the recipe names."""
        try:
            return Reference.parse(text, self.base)
        except SeatrialError as error:
            error.where = f"{self.path}: {error.where or text}"
            raise


def load_recipe(path: Path) -> Recipe:
    """Read a recipe and check what can be checked without work: keys, formats, files, references.

    Raises:
        ConfigError, FormatChainError, MissingError: with the place and the next step.
    """
    recipe = config.load(path, Recipe).at(path.resolve())
    check_chain(recipe)
    _check_search(recipe)
    _check_references(recipe)
    return recipe


def check_chain(recipe: Recipe) -> None:
    """Check that every stage takes the format that the one before makes, and that a module has at least one stage.

    Raises:
        FormatChainError: naming the first stage that does not fit.
    """
    if not recipe.stages and recipe.source.format != "onnx":
        raise FormatChainError(
            "a recipe without stages serves its source unchanged, and a torch module cannot be served",
            where=f"{recipe.path}: stages",
            next_step='add one: [[stages]] kind = "export"',
        )
    current: Format = recipe.source.format
    for number, stage in enumerate(recipe.stages):
        if stage.takes != current:
            before = f"stage {number - 1} ({recipe.stages[number - 1].kind})" if number else "the source"
            legal = [kind for kind in STAGES.built_in if STAGES.get(kind).config.takes == current]
            raise FormatChainError(
                f"stage {number} ({stage.kind}) takes {stage.takes}, but {before} gives {current}",
                where=f"{recipe.path}: stages.{number}",
                next_step=f"after {before}, use one of: {', '.join(legal)}",
            )
        current = stage.makes


def _check_search(recipe: Recipe) -> None:
    """Check that a search table names existing stages, and that candidates fit together, even where no search runs."""
    if recipe.search is None:
        return
    try:
        recipe.search.spaces([stage.kind for stage in recipe.stages])
    except ConfigError as error:
        error.where = f"{recipe.path}: {error.where}"
        raise
    for each in recipe.search.candidates:
        try:
            check_chain(recipe.alternative(each))
        except FormatChainError as error:
            error.where = f"{error.where} of search.candidates {each.name!r}"
            raise


def _check_references(recipe: Recipe) -> None:
    references = [recipe.source.factory, recipe.data.loader]
    compared = () if recipe.search is None else recipe.search.candidates
    chains = (recipe.stages, *(each.stages for each in compared))
    references += [name for stages in chains for stage in stages for name in stage.references]
    references += [recipe.metric.name] if ":" in recipe.metric.name else []
    for reference in references:
        if reference is not None:
            recipe.reference(reference)
    beside = [name for stages in chains for stage in stages for name in stage.recipe_files]
    for name in (recipe.source.weights, recipe.source.onnx, *recipe.data.files, *beside):
        if name is not None and not (recipe.base / name).exists():
            raise MissingError(
                f"no such file: {name}", where=f"{recipe.path}, looked for in {recipe.base}", next_step="check the path"
            )
