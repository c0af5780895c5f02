"""Configurations of the stages that choose by quality on held-out halves of the calibration split: what may go."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Annotated, ClassVar, Literal

from pydantic import Field

from ...artifact import Format
from ...environment import Environment
from ...samples import Split
from .terms import Positive, StageConfig

Margin = Annotated[float, Field(gt=0)]


@dataclass(frozen=True, slots=True, kw_only=True)
class FeaturesConfig(StageConfig):
    """Drop columns of tabular inputs, [n, columns], that the recipe's metric does not need, and their weights.

    A column may go where permuting it costs nothing measurable (one-sided interval at `confidence`, `repeats`
    permutations) on either half of the calibration split. All that go together are replaced by their means, and must
    cost at most `max_quality_drop` on both halves; on the second with the upper end of the 95 % interval. `inputs`
    names the inputs to look at (default: all tabular ones) and `keep` columns that stay, by number.

    The declared inputs stay as they are: a Gather takes the columns that are left.
    """

    takes: ClassVar[Format] = "onnx"
    makes: ClassVar[Format] = "onnx"
    uses: ClassVar[tuple[Split, ...]] = ("calibration",)
    libraries: ClassVar[tuple[str, ...]] = ("onnx", "onnxruntime", "numpy")

    kind: Literal["features"]
    inputs: tuple[str, ...] = ()
    keep: tuple[Annotated[int, Field(ge=0)], ...] = ()
    max_quality_drop: Margin = 0.005
    repeats: Positive = 5
    confidence: Annotated[float, Field(gt=0.5, lt=1)] = 0.99

    def depends_on(self, environment: Environment, metric: Callable[[], str]) -> str:
        """Return the recipe's metric, by which columns are chosen."""
        return metric()


@dataclass(frozen=True, slots=True, kw_only=True)
class EnsembleConfig(StageConfig):
    """Average the source with other ONNX models of its interface, and keep the fastest subset of them all.

    `members` are files beside the recipe. Quality is compared with that of all members together: a subset may lose at
    most `max_quality_drop` by the upper end of the one-sided 95 % interval, on one half of the calibration split and
    again on the other, there divided among the `candidates` that are tried: those with the least time of their members.
    They are timed in one thread at `batch`; the fastest is kept, and of equal ones the smallest.
    """

    takes: ClassVar[Format] = "onnx"
    makes: ClassVar[Format] = "onnx"
    uses: ClassVar[tuple[Split, ...]] = ("calibration",)
    libraries: ClassVar[tuple[str, ...]] = ("onnx", "onnxruntime", "numpy")

    kind: Literal["ensemble"]
    members: Annotated[tuple[str, ...], Field(min_length=1, max_length=9)]
    max_quality_drop: Margin = 0.005
    candidates: Positive = 6
    batch: Positive = 32

    @property
    def recipe_files(self) -> tuple[str, ...]:
        """The members' files."""
        return self.members

    def depends_on(self, environment: Environment, metric: Callable[[], str]) -> str:
        """Return the recipe's metric and the machine, on which subsets are timed."""
        return f"{metric()} {environment.fingerprint}"
