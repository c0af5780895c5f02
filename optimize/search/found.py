"""Result of a search, and the recipe files that it leaves beside the searched one."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..errors import MachineError
from ..recipe.recipe import Recipe
from ..recipe.space import Objective
from ..recipe.text import to_toml
from ..record import as_json
from ..store import write_atomically
from .search import Candidate


@dataclass(frozen=True, slots=True, kw_only=True)
class Found:
    """Result of a search: every trial, the Pareto front, and the recipe file of each point of the front.

    Where candidates were compared, `winner` is the one to serve, `files` has its recipe too, and `noise` is how far two
    timings of one and the same model lay apart at most (0.01 = 1 %).
    """

    objectives: tuple[Objective, ...]
    candidates: tuple[Candidate, ...]
    front: tuple[Candidate, ...]
    files: Mapping[int, Path]
    winner: Candidate | None = None
    noise: float | None = None

    def to_json(self) -> dict[str, Any]:
        """JSON values, as the store remembers them and a report draws them."""
        compared = {} if self.winner is None else {"winner": self.winner.number, "noise": self.noise}
        return {
            "objectives": list(self.objectives),
            "candidates": as_json(self.candidates),
            "front": [candidate.number for candidate in self.front],
            "files": {str(number): path.name for number, path in self.files.items()},
        } | compared


def write(recipe: Recipe, found: Recipe) -> Path:
    """Write a recipe that a search found beside the searched one, named by its content: no other file is overwritten.

    Raises:
        MachineError: the folder cannot be written.
    """
    short = found.digest.removeprefix("sha256:")[:8]
    path = recipe.path.with_name(f"{recipe.path.stem}-{short}.toml")
    try:
        write_atomically(path, to_toml(found).encode())
    except OSError as error:
        raise MachineError(
            f"cannot write: {error.strerror or error}", where=str(path), next_step="make the recipe's folder writable"
        ) from error
    return path
