"""Search over recipes by ordinary builds and their figures, so that every candidate is cached like any build.

Connects the pure search to the store, this machine and the study; writes the front as recipes beside the searched one.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..artifact import canonical, digest_bytes
from ..building.build import Progress, build
from ..building.built import check_engines
from ..building.figures import figures, worth
from ..building.source import source_ingredients
from ..environment import environment, home
from ..errors import MachineError
from ..recipe.data import Data
from ..recipe.recipe import Recipe
from ..recipe.space import Objective, Search
from ..recipe.text import to_toml
from ..record import as_json
from ..store import Store, write_atomically
from .search import Candidate, Worth, chosen, declared, front, own_values, run, signature


@dataclass(frozen=True, slots=True, kw_only=True)
class Found:
    """Result of a search: every trial, the Pareto front, and the recipe file of each point of the front."""

    objectives: tuple[Objective, ...]
    candidates: tuple[Candidate, ...]
    front: tuple[Candidate, ...]
    files: Mapping[int, Path]

    def to_json(self) -> dict[str, Any]:
        """JSON values, as the store remembers them and a report draws them."""
        return {
            "objectives": list(self.objectives),
            "candidates": as_json(self.candidates),
            "front": [candidate.number for candidate in self.front],
            "files": {str(number): path.name for number, path in self.files.items()},
        }


def default_storage(recipe: Recipe) -> str:
    """Return the default storage of a study of this recipe: a journal file in SEATRIAL_HOME.

    Raises:
        MachineError: the folder cannot be made.
    """
    folder = home() / "searches"
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise MachineError(
            f"cannot write: {error.strerror or error}", where=str(folder), next_step="free space or set SEATRIAL_HOME"
        ) from error
    return f"journal:{folder / recipe.name}.journal"


def explore(
    recipe: Recipe,
    store: Store,
    storage: str,
    trials: int,
    progress: Progress = lambda label, share, text: None,
) -> Found:
    """Search until the study holds `trials` ended trials, and write the front as recipes beside the searched one.

    Raises:
        ConfigError: the recipe declares no legal search, or the study was begun with another setup.
        ContractError: the recipe's engine lacks something on this machine.
        MachineError: the storage cannot be opened, or a recipe cannot be written.
    """
    search, spaces = declared(recipe)
    check_engines(recipe)
    from .on_optuna import OptunaStudy

    signed = signature(recipe, search, _ingredients(recipe, search, store))
    study = OptunaStudy(recipe.name, storage, search.objectives, signed, recipe.seed)
    own = own_values(recipe, spaces)
    if all(space.holds(own[address]) for address, space in spaces.items()):
        study.propose(own)

    def evaluate(candidate: Recipe) -> Worth:
        return measure(candidate, store, progress, memory="memory" in search.objectives)

    candidates = run(recipe, study, evaluate, trials, progress)
    best = front(candidates, search.objectives)
    files = {point.number: write(recipe, point) for point in best}
    found = Found(objectives=search.objectives, candidates=tuple(candidates), front=tuple(best), files=files)
    for each in (recipe, *(chosen(recipe, point.chosen) for point in best)):
        store.remember("searches", each.digest, found.to_json())
    return found


def measure(candidate: Recipe, store: Store, progress: Progress, *, memory: bool = False) -> Worth:
    """Build a candidate (no tag moves) and read its figures off; memory only where it is weighed."""
    made = build(candidate, store, progress, tag=False)
    rows = figures(made, store, progress, memory=memory)
    last = worth(made, rows)
    same = made.artifact.digest == made.reference.artifact.digest
    latency = last.reference.ratio if last.reference is not None else 1.0 if same else None
    return Worth(
        values={
            "quality": last.quality,
            "latency": latency,
            "size": float(last.size),
            **({"memory": None if last.memory is None else float(last.memory.bytes)} if memory else {}),
        },
        quality_drop=None if rows[0].quality is None or last.quality is None else rows[0].quality - last.quality,
        digest=made.artifact.digest,
        ran_on=last.ran_on,
    )


def write(recipe: Recipe, point: Candidate) -> Path:
    """Write the point's recipe beside the searched one, named by its content, so that no other file is overwritten."""
    found = chosen(recipe, point.chosen)
    short = found.digest.removeprefix("sha256:")[:8]
    path = recipe.path.with_name(f"{recipe.path.stem}-{short}.toml")
    try:
        write_atomically(path, to_toml(found).encode())
    except OSError as error:
        raise MachineError(
            f"cannot write: {error.strerror or error}", where=str(path), next_step="make the recipe's folder writable"
        ) from error
    return path


def _ingredients(recipe: Recipe, search: Search, store: Store) -> dict[str, str]:
    """Return the ingredients of figures besides the recipe; the machine only where time or memory is an objective."""
    data = Data(recipe, store, environment())
    source = source_ingredients(recipe, data.digest("golden") or "")
    parts = {
        "source": digest_bytes(canonical(source)),
        "evaluation samples": data.digest("evaluation") or "",
    }
    measured = {"latency", "memory"} & set(search.objectives)
    return parts | ({"machine": environment().fingerprint} if measured else {})
