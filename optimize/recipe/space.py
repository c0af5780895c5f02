"""The search that a recipe declares: fields of its stages that may change, or candidates that are compared whole.

Types and addresses only. Without a search, a recipe with a ``[search]`` table is an ordinary recipe::

    [search]
    objectives = ["quality", "latency"]
    [search.stages.prune.ratio]
    low = 0.1
    high = 0.6
    step = 0.1
    [search.stages.3.ranges]
    choices = ["minmax", "percentile"]

A stage is named by its number from 0, or by its kind where only one stage is of that kind; a field inside a table is
written in quotes, ``[search.stages.distill."training.epochs"]``. Or::

    [search]
    batch = 8
    [[search.candidates]]
    name = "int8-dynamic"
    [[search.candidates.stages]]
    kind = "quantize"
    method = "dynamic"
    [[search.candidates]]
    name = "float-openvino"
    engine = "openvino"
    stages = []
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Annotated, Any, Literal

from pydantic import Field

from ..config import current_name
from ..errors import ConfigError
from ..record import Record
from .configs import Positive, StageConfig
from .kinds import BY_KIND, STAGES

Objective = Literal["quality", "latency", "size", "memory", "snr"]
Value = bool | int | float | str
FP32 = "fp32"
"""Name of the candidate that every comparison has: the source in float32, in ONNX Runtime on the CPU."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Space:
    """Search space of one field: a range from `low` to `high` (whole numbers if both are), or one of `choices`.

    `step` is the distance between tried values, `log` searches the range by order of magnitude; not both.
    """

    low: int | float | None = None
    high: int | float | None = None
    step: int | float | None = None
    log: bool = False
    choices: tuple[Value, ...] = ()

    def __post_init__(self) -> None:
        ranged = self.low is not None and self.high is not None
        if ranged == bool(self.choices) or (self.low is None) != (self.high is None):
            raise ConfigError("a search space needs either low and high, or choices", next_step="give exactly one")
        if self.choices and (self.step is not None or self.log):
            raise ConfigError(
                "step and log are allowed only with a range", next_step="remove them or give low and high"
            )
        if self.low is None or self.high is None:
            return
        if not self.low < self.high:
            raise ConfigError(f"low {self.low} is not below high {self.high}", next_step="set low below high")
        if self.step is not None and (self.log or self.step <= 0):
            raise ConfigError("step must be positive and cannot be combined with log", next_step="remove one")
        if self.log and self.low <= 0:
            raise ConfigError("a log range must start above 0", next_step="raise low")

    @property
    def whole(self) -> bool:
        """True if the range consists of whole numbers."""
        return all(isinstance(each, int) for each in (self.low, self.high, self.step) if each is not None)

    def holds(self, value: Value) -> bool:
        """Return True if a search may try the value."""
        if self.low is None or self.high is None:
            return value in self.choices
        return isinstance(value, int | float) and self.low <= value <= self.high

    @property
    def ends(self) -> tuple[Value, ...]:
        """The values that show whether the field can take them: the ends of the range, or every choice."""
        return self.choices or tuple(each for each in (self.low, self.high) if each is not None)


@dataclass(frozen=True, slots=True, kw_only=True)
class Alternative:
    """One candidate that a search compares whole: a chain of stages in place of the recipe's, an engine and a device.

    Where engine and device are empty, the recipe's hold.
    """

    name: Annotated[str, Field(pattern=r"^[a-z0-9][a-z0-9_.-]*$", max_length=60)]
    stages: tuple[Annotated[StageConfig, BY_KIND], ...]
    engine: str = ""
    device: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Search(Record, sparse=("candidates", "batch", "snr")):
    """Fields to search, `stages[stage][field]`, or `candidates` to compare; and the objectives.

    Objectives: `quality` (higher is better), `latency` (time over the fp32 reference's, interleaved pairs on one
    thread), `size` (bytes), `memory` (bytes that opening and running a batch adds at most), `snr` (dB, of candidates
    only). The recipe's ``floors.max_quality_drop`` is the constraint that every point must keep.

    Candidates are timed at `batch` samples. `snr` is the least ratio, in dB, of the energy of fp32's outputs to that of
    the difference, over the evaluation samples; 18 where the recipe has no ``max_quality_drop`` either.
    """

    stages: Mapping[str, Mapping[str, Space]] = field(default_factory=dict)
    objectives: tuple[Objective, ...] = field(default=("quality", "latency"))
    candidates: tuple[Alternative, ...] = ()
    batch: Positive = 32
    snr: float | None = None

    def __post_init__(self) -> None:
        if not self.objectives or len(set(self.objectives)) != len(self.objectives):
            raise ConfigError("each objective may be named only once", next_step='for instance ["quality", "latency"]')
        fields = any(self.stages.values())
        if not fields and not self.candidates:
            raise ConfigError(
                "nothing to search",
                next_step="add a table such as [search.stages.prune.ratio], or [[search.candidates]]",
            )
        if fields and self.candidates:
            raise ConfigError(
                "fields and candidates cannot be searched together",
                where="search",
                next_step="compare the candidates first, and search fields of the winner's recipe",
            )
        if not self.candidates:
            self._check_fields()
        names = [FP32, *(each.name for each in self.candidates)]
        if twice := [name for name in names if names.count(name) > 1]:
            raise ConfigError(
                f"candidate {twice[0]!r} is defined twice" + (": fp32 always takes part" if twice[0] == FP32 else ""),
                where="search.candidates",
                next_step="give each a name of its own",
            )
        if self.snr is not None and not (math.isfinite(self.snr) and self.snr > 0):
            raise ConfigError(
                f"snr must be a positive number of dB, got {self.snr}", where="search", next_step="use 18, for instance"
            )

    def _check_fields(self) -> None:
        """Refuse what applies to candidates only."""
        given = {
            "batch": self.batch != 32,
            "snr": self.snr is not None,
            'the objective "snr"': "snr" in self.objectives,
        }
        if needless := [name for name, is_given in given.items() if is_given]:
            raise ConfigError(
                f"{needless[0]} applies to candidates only",
                where="search",
                next_step="remove it, or add [[search.candidates]]",
            )

    def spaces(self, kinds: Sequence[str]) -> dict[str, Space]:
        """Every space under its full address, ``1.ratio``, for a recipe whose stages are of these kinds.

        Raises:
            ConfigError: an address that names no stage, several stages, or the same field twice.
        """
        found: dict[str, Space] = {}
        for name, fields in self.stages.items():
            for key, space in fields.items():
                number = _number(name, kinds)
                head, dot, rest = key.partition(".")
                known = STAGES.get(kinds[number]).config if kinds[number] in STAGES else None
                address = f"{number}.{current_name(known, head) if known else head}{dot}{rest}"
                if address in found or key == "kind":
                    raise ConfigError(f"search.stages.{name}.{key} cannot be searched", next_step="name it once")
                found[address] = space
        return found


def put(stages: Sequence[Mapping[str, Any]], chosen: Mapping[str, Value]) -> list[dict[str, Any]]:
    """Stages (as JSON values) with the chosen values at their addresses; what was given is left as it is.

    Raises:
        ConfigError: an address that leads nowhere.
    """
    changed = [dict(stage) for stage in stages]
    for address, value in chosen.items():
        number, _, path = address.partition(".")
        *tables, last = path.split(".")
        table = changed[int(number)]
        for name in tables:
            inner = table.get(name)
            table[name] = dict(inner) if isinstance(inner, Mapping) else None
            table = table[name]
            if table is None:
                break
        if table is None or last not in table:
            raise ConfigError(
                f"stage {number} has no field {path!r} to search",
                where="search.stages",
                next_step=f"it has: {', '.join(stages[int(number)])}",
            )
        table[last] = value
    return changed


def _number(name: str, kinds: Sequence[str]) -> int:
    if name.isdigit() and int(name) < len(kinds):
        return int(name)
    if kinds.count(name) == 1:
        return kinds.index(name)
    several = f"{kinds.count(name)} stages are" if name in kinds else "no stage is"
    legal = ", ".join(f"{number} ({kind})" for number, kind in enumerate(kinds))
    raise ConfigError(f"{several} called {name!r}", where=f"search.stages.{name}", next_step=f"use one of {legal}")
