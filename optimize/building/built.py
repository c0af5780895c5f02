"""Values of a build: its steps, refused stages, and planned steps. Builds nothing."""

from dataclasses import dataclass, field

from ..artifact import Artifact, Format
from ..parity.parity import Agreement
from ..recipe.data import Data
from ..recipe.recipe import Recipe
from ..sessions.choice import EngineChoice

REFERENCE = "reference"  # label of the float model that is the reference of all comparisons


@dataclass(frozen=True, slots=True, kw_only=True)
class Step:
    """One step of a build: what was made (or found), how long it took, how it agrees with its parent.

    `dropped` says that it was slower or brought no gain, and the build went on from its parent (`Recipe.on_no_gain`).
    """

    label: str
    artifact: Artifact
    cached: bool
    seconds: float
    agreements: tuple[Agreement, ...] = ()
    dropped: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Refused:
    """A stage whose result broke its parity contract; it was not kept (`Recipe.on_disagreement`)."""

    label: str
    why: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Build:
    """A finished build: the source, the float reference in ONNX that everything is held against, and the steps.

    `data` holds the splits that were loaded on the way, for whoever measures or deploys what was built.
    """

    recipe: Recipe
    data: Data = field(repr=False, compare=False)
    source: Step
    reference: Step
    steps: tuple[Step, ...]
    refused: tuple[Refused, ...] = ()

    @property
    def artifact(self) -> Artifact:
        """Return the result of the build: the artifact of the last step that was kept."""
        return next((step.artifact for step in reversed(self.steps) if not step.dropped), self.source.artifact)

    @property
    def all(self) -> tuple[Step, ...]:
        """Source, reference (unless the source already is ONNX) and steps, in order of making."""
        same = self.reference.artifact.digest == self.source.artifact.digest
        return (self.source, *(() if same else (self.reference,)), *self.steps)

    @property
    def worked(self) -> bool:
        """True if at least one step had to run."""
        return any(not step.cached for step in self.all)


@dataclass(frozen=True, slots=True, kw_only=True)
class Planned:
    """A step that a build would take: the artifact if it is there already, else None.

    `refused` is why an earlier build left the stage out (`Recipe.on_disagreement`); empty where none did.
    """

    label: str
    takes: str
    makes: str
    artifact: Artifact | None
    refused: str = ""


def choice_of(recipe: Recipe) -> EngineChoice:
    """Return the engine and device that a recipe asks for."""
    return EngineChoice(engine=recipe.engine, device=recipe.device)


def check_engines(recipe: Recipe) -> None:
    """Check the engines that a recipe and its stages name before any work: what one of them lacks here is an error.

    Raises:
        ConfigError, ContractError: as `EngineChoice.check`.
    """
    reference: list[Format] = ["onnx"] if recipe.source.format == "torch" else []
    choice_of(recipe).check([recipe.source.format, *reference, *(stage.makes for stage in recipe.stages)])
    for stage in recipe.stages:
        for engine, device in stage.engines:
            EngineChoice(engine=engine, device=device).check(["onnx"])
