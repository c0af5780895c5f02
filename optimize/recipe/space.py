"""The search space that a recipe declares: which fields of which stages may change, and between what.

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
written in quotes, ``[search.stages.distill."training.epochs"]``.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

from ..config import current_name
from ..errors import ConfigError
from .kinds import STAGES

Objective = Literal["quality", "latency", "size", "memory"]
Value = bool | int | float | str


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
class Search:
    """Fields to search, `stages[stage][field]`, and the objectives.

    Objectives: `quality` (higher is better), `latency` (time over the fp32 reference's, interleaved pairs on one
    thread), `size` (bytes), `memory` (bytes that opening and running a batch adds at most). The recipe's
    ``floors.max_quality_drop`` is the constraint that every point must keep.
    """

    stages: Mapping[str, Mapping[str, Space]]
    objectives: tuple[Objective, ...] = field(default=("quality", "latency"))

    def __post_init__(self) -> None:
        if not self.objectives or len(set(self.objectives)) != len(self.objectives):
            raise ConfigError("each objective may be named only once", next_step='for instance ["quality", "latency"]')
        if not any(self.stages.values()):
            raise ConfigError("nothing to search", next_step="add a table such as [search.stages.prune.ratio]")

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
