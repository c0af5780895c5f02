"""Search: tries what a recipe lets change, and keeps the trade-offs that nothing else beats (the Pareto front).

Pure: what proposes values and keeps the study is handed in as `Study` (`on_optuna`), what builds and measures as a
callable. A candidate that failed or lacks a figure never ranks, and one below the quality floor is never on the front.
"""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Protocol

from ..artifact import canonical, digest_bytes
from ..errors import ConfigError, SeatrialError
from ..recipe.recipe import Recipe
from ..recipe.space import Objective, Search, Space, Value, put
from ..recipe.text import from_json
from ..record import as_json
from ..sessions.engine import RanOn

LARGER_IS_BETTER: frozenset[Objective] = frozenset({"quality", "snr"})
Progress = Callable[[str, float, str], None]


@dataclass(frozen=True, slots=True, kw_only=True)
class Worth:
    """Measured objectives of a candidate by name (None where not measurable), and its quality drop."""

    values: Mapping[Objective, float | None]
    quality_drop: float | None
    digest: str = ""
    ran_on: RanOn | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Candidate:
    """One trial: what was chosen, what it measured, how far it is below the quality floor, or why it failed.

    `ran_on` is what it was measured on; None in a trial of an earlier version, and in one that was not measured.
    `interval` bounds the latency ratio with 95 % confidence, where candidates were compared whole.
    """

    number: int
    chosen: Mapping[str, Value]
    values: Mapping[Objective, float | None] = field(default_factory=dict)
    violation: float = 0.0
    failure: str = ""
    digest: str = ""
    ran_on: RanOn | None = None
    interval: tuple[float, float] | None = None

    def ranks(self, objectives: Sequence[Objective]) -> bool:
        """True if the candidate can be ranked: it was built, every figure is finite, and it keeps the floor."""
        figures = [self.values.get(objective) for objective in objectives]
        whole = all(figure is not None and math.isfinite(figure) for figure in figures)
        return not self.failure and whole and self.violation <= 0


class Study(Protocol):
    """Store of trials that proposes the next one; several processes may share it."""

    def ask(self, spaces: Mapping[str, Space]) -> tuple[int, dict[str, Value]]:
        """The next trial's number and values."""
        ...

    def tell(self, candidate: Candidate) -> None:
        """Record the result of a trial."""
        ...

    def candidates(self) -> list[Candidate]:
        """Every trial that has ended, oldest first."""
        ...


def front(candidates: Sequence[Candidate], objectives: Sequence[Objective]) -> list[Candidate]:
    """The candidates that no other beats in one objective without losing in another; equal ones once, best first."""
    able = [candidate for candidate in candidates if candidate.ranks(objectives)]
    points = {_point(candidate, objectives): candidate for candidate in reversed(able)}
    kept = [point for point in points if not any(_beats(other, point) for other in points)]
    return [points[point] for point in sorted(kept)]


def _point(candidate: Candidate, objectives: Sequence[Objective]) -> tuple[float, ...]:
    """All figures so that less is better."""
    return tuple(
        (-1.0 if objective in LARGER_IS_BETTER else 1.0) * float(candidate.values[objective] or 0.0)
        for objective in objectives
    )


def _beats(one: tuple[float, ...], other: tuple[float, ...]) -> bool:
    return one != other and all(a <= b for a, b in zip(one, other, strict=True))


def declared(recipe: Recipe) -> tuple[Search, dict[str, Space]]:
    """Return the search spaces of the recipe; every end of every range is tried on the recipe first.

    Raises:
        ConfigError: the recipe declares nothing, or a value that the stage would refuse.
    """
    if recipe.search is None:
        raise ConfigError(
            "the recipe has no [search] table",
            where=str(recipe.path),
            next_step="add a table such as [search.stages.prune.ratio] with low and high, or choices",
        )
    spaces = recipe.search.spaces([stage.kind for stage in recipe.stages])
    for address, space in spaces.items():
        for value in space.ends:
            try:
                chosen(recipe, {address: value})
            except ConfigError as error:
                error.where = f"{recipe.path}: search.stages.{address}"
                raise
    return recipe.search, spaces


def chosen(recipe: Recipe, values: Mapping[str, Value]) -> Recipe:
    """The ordinary recipe with these values and without the search table.

    Raises:
        ConfigError: a stage refuses its value.
    """
    value = as_json(recipe) | {"search": None}
    return from_json(value | {"stages": put(value["stages"], values)}, recipe.path)


def own_values(recipe: Recipe, spaces: Mapping[str, Space]) -> dict[str, Value]:
    """Return the recipe's own values at the searched addresses: the first trial and baseline."""
    found: dict[str, Value] = {}
    for address in spaces:
        number, _, path = address.partition(".")
        value: Any = as_json(recipe)["stages"][int(number)]
        for name in path.split("."):
            value = value[name]
        found[address] = value
    return found


def signature(recipe: Recipe, search: Search, ingredients: Mapping[str, str]) -> dict[str, str]:
    """Return the digests, by name, that must be equal for all workers of a study and when it is resumed."""
    plain = replace(recipe, search=None)
    return {
        "recipe": digest_bytes(canonical(plain.content)),
        "search": digest_bytes(canonical(as_json(search))),
        **ingredients,
    }


def run(
    recipe: Recipe,
    study: Study,
    evaluate: Callable[[Recipe], Worth],
    trials: int,
    progress: Progress = lambda label, share, text: None,
) -> list[Candidate]:
    """Try until the study holds that many ended trials, this worker's and others' together; returns all of them."""
    search, spaces = declared(recipe)
    while (done := len(study.candidates())) < trials:
        progress("search", done / trials, best_so_far(study.candidates(), search.objectives))
        number, values = study.ask(spaces)
        try:
            worth = evaluate(chosen(recipe, values))
        except KeyboardInterrupt:
            study.tell(Candidate(number=number, chosen=values, failure="interrupted"))
            raise
        except SeatrialError as error:
            study.tell(Candidate(number=number, chosen=values, failure=error.what))
            continue
        allowed = recipe.floors.max_quality_drop
        study.tell(
            Candidate(
                number=number,
                chosen=values,
                values=worth.values,
                violation=_violation(worth, allowed),
                failure=missing(worth, search.objectives),
                digest=worth.digest,
                ran_on=worth.ran_on,
            )
        )
    found = study.candidates()
    progress("search", 1.0, best_so_far(found, search.objectives))
    return found


def missing(worth: Worth, objectives: Sequence[Objective]) -> str:
    """Return the missing figures as a reason not to rank; empty where none is missing."""
    lacking = [name for name in objectives if (value := worth.values.get(name)) is None or not math.isfinite(value)]
    return f"missing figures: {', '.join(lacking)}" if lacking else ""


def best_so_far(candidates: Sequence[Candidate], objectives: Sequence[Objective]) -> str:
    """``3 on the front; best quality 0.981, latency 0.31``, each the best of its own."""
    points = front(candidates, objectives)
    if not points:
        return f"{len(candidates)} tried, none can be ranked yet"
    best = []
    for objective in objectives:
        values = [float(point.values[objective] or 0.0) for point in points]
        best.append(f"{objective} {(max if objective in LARGER_IS_BETTER else min)(values):.4g}")
    return f"{len(points)} on the front; best {', '.join(best)}"


def _violation(worth: Worth, allowed: float | None) -> float:
    """Return how far the quality lies below the floor; an unknown quality counts as a violation."""
    if allowed is None:
        return 0.0
    return math.inf if worth.quality_drop is None else max(0.0, worth.quality_drop - allowed)
