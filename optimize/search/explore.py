"""Search over recipes by ordinary builds and their figures, so that every candidate is cached like any build.

Connects the pure search to the store, this machine and the study; writes the front as recipes beside the searched one.
"""

from ..artifact import canonical, digest_bytes
from ..building.build import Progress, build
from ..building.built import check_engines
from ..building.figures import figures, worth
from ..building.source import source_ingredients
from ..environment import environment, home
from ..errors import ConfigError, MachineError
from ..recipe.data import Data
from ..recipe.recipe import Recipe
from ..recipe.space import Search
from ..store import Store
from . import alternatives
from .found import Found, write
from .search import Worth, chosen, declared, front, own_values, run, signature


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
    storage: str = "",
    trials: int | None = None,
    progress: Progress = lambda label, share, text: None,
) -> Found:
    """Search what the recipe declares, and write the front as recipes beside the searched one.

    Candidates are all built and compared (`alternatives.compare`). Fields are tried until the study in `storage` (by
    default a journal of this recipe's) holds `trials` ended trials.

    Raises:
        ConfigError: the recipe declares no legal search, `trials` is missing or does not apply, or the study was begun
            with another setup.
        ContractError: the recipe's engine lacks something on this machine.
        MachineError: the storage cannot be opened, or a recipe cannot be written.
    """
    if recipe.search is not None and recipe.search.candidates:
        _refuse_trials(recipe, storage, trials)
        return alternatives.compare(recipe, store, progress)
    search, spaces = declared(recipe)
    if trials is None:
        raise ConfigError(
            "the number of trials is missing: fields are searched until that many have ended",
            where=str(recipe.path),
            next_step="give --trials, for instance --trials 30",
        )
    check_engines(recipe)
    from .on_optuna import OptunaStudy

    signed = signature(recipe, search, _ingredients(recipe, search, store))
    study = OptunaStudy(recipe.name, storage or default_storage(recipe), search.objectives, signed, recipe.seed)
    own = own_values(recipe, spaces)
    if all(space.holds(own[address]) for address, space in spaces.items()):
        study.propose(own)

    def evaluate(candidate: Recipe) -> Worth:
        return measure(candidate, store, progress, memory="memory" in search.objectives)

    candidates = run(recipe, study, evaluate, trials, progress)
    best = front(candidates, search.objectives)
    files = {point.number: write(recipe, chosen(recipe, point.chosen)) for point in best}
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


def _refuse_trials(recipe: Recipe, storage: str, trials: int | None) -> None:
    """Refuse options of a study where candidates are compared: all are measured, once."""
    given = "--trials" if trials is not None else "--storage" if storage else ""
    if given:
        raise ConfigError(
            f"{given} does not apply: the recipe lists candidates, and each is measured once",
            where=str(recipe.path),
            next_step=f"remove {given}",
        )


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
