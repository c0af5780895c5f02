"""Comparison of whole candidates, methods and engines: each an ordinary cached build, held against fp32 and timed.

Fp32 in ONNX Runtime always takes part, so that the search cannot end with something slower. A candidate that cannot be
built, or that this machine cannot run, is kept with its reason and stops no other.
"""

from collections.abc import Callable
from dataclasses import replace

from ..artifact import Artifact
from ..building.build import build
from ..building.built import check_engines, choice_of
from ..errors import ConfigError, ContractError, IntegrityError, SeatrialError
from ..parity.signal import MOST
from ..recipe.configs import ExportConfig, StageConfig
from ..recipe.recipe import Recipe
from ..recipe.space import FP32, Alternative, Objective, Search, Value
from ..sessions.choice import OWN, EngineChoice
from ..sessions.engine import ENGINES
from ..store import Store
from ..timing.memory import memory_of
from .comparing import PAIRS, PAIRS_AGAIN, Comparison, Kept
from .found import Found, write
from .ranking import contenders, winner
from .search import Candidate, front

Progress = Callable[[str, float, str], None]
SNR = 18.0
"""Least signal to noise in dB where the recipe sets no floor: the difference has 1.6 % of the outputs' energy."""
_LEAST_NOISE = 0.01  # one timing of a model against itself may by chance show none


def compare(recipe: Recipe, store: Store, progress: Progress = lambda label, share, text: None) -> Found:
    """Build and measure every candidate under ``[search]``; write the recipes of the winner and of the Pareto front.

    The winner is the fastest that keeps the floors, where that is a gain beyond the noise; else fp32.

    Raises:
        ConfigError: no candidates are listed, or one names an engine that does not exist.
        ContractError: the recipe's own engine lacks something on this machine.
        SourceError, StageError: fp32 itself cannot be built or run.
        MachineError: a recipe cannot be written.
    """
    search = _checked(recipe)
    work = _Work(recipe, search, store, progress)
    candidates = [work.reference(), *(work.tried(number) for number in range(1, 1 + len(search.candidates)))]
    noise = work.noise()
    for each in contenders(candidates, noise):
        candidates[each.number] = work.again(each)
    best, first = front(candidates, search.objectives), winner(candidates, noise)
    numbers = sorted({each.number for each in (*best, first)})
    found = Found(
        objectives=search.objectives,
        candidates=tuple(candidates),
        front=tuple(best),
        files={number: write(recipe, work.recipes[number]) for number in numbers},
        winner=first,
        noise=noise,
    )
    for searched in (recipe, *(work.recipes[number] for number in numbers)):
        store.remember("searches", searched.digest, found.to_json())
    progress("search", 1.0, f"{first.chosen['candidate']} wins")
    return found


def _checked(recipe: Recipe) -> Search:
    """Check the search before any work."""
    search = recipe.search
    if search is None or not search.candidates:
        raise ConfigError(
            "the recipe lists no candidates", where=str(recipe.path), next_step="add [[search.candidates]] tables"
        )
    check_engines(recipe)
    for each in search.candidates:
        if each.engine:
            ENGINES.get(each.engine, where=f"{recipe.path}: search.candidates {each.name!r}")
    return search


class _Work:
    """The candidates of one search. `recipes` are theirs by number; number 0 is fp32, which is built at once."""

    def __init__(self, recipe: Recipe, search: Search, store: Store, progress: Progress) -> None:
        self.search, self.store, self.progress = search, store, progress
        plain = replace(recipe, engine="", device="").at(recipe.path)
        self.recipes = (
            plain.alternative(Alternative(name=FP32, stages=_float_stages(recipe))),
            *(recipe.alternative(each) for each in search.candidates),
        )
        self._artifacts: dict[int, Artifact] = {}
        made = build(self.recipes[0], store, progress, tag=False)
        self._fp32 = Comparison(
            recipe=self.recipes[0],
            store=store,
            data=made.data,
            reference=made.reference.artifact,
            batch=search.batch,
        )

    def reference(self) -> Candidate:
        """Measure fp32: its ratio is 1, and no floor excludes it."""
        artifact = self._fp32.reference
        kept = self._fp32.kept(artifact, OWN)
        return Candidate(
            number=0,
            chosen=self._chosen(0, FP32),
            values=self._values(artifact, OWN, kept, 1.0) | {"snr": MOST},
            digest=artifact.digest,
            ran_on=kept.ran_on,
            interval=(1.0, 1.0),
        )

    def tried(self, number: int) -> Candidate:
        """Build and measure a candidate, or note why that cannot be done."""
        chosen = self._chosen(number, self.search.candidates[number - 1].name)
        self.progress("search", number / len(self.recipes), str(chosen["candidate"]))
        try:
            return self._measured(number, chosen)
        except IntegrityError:
            raise
        except SeatrialError as error:
            helps = f"; {error.next_step}" if isinstance(error, ContractError) and error.next_step else ""
            return Candidate(number=number, chosen=chosen, failure=f"{error.what}{helps}")

    def again(self, candidate: Candidate) -> Candidate:
        """Time a candidate once more, with more pairs."""
        artifact, choice = self._artifacts[candidate.number], choice_of(self.recipes[candidate.number])
        ratio = self._fp32.time(artifact, choice, pairs=PAIRS_AGAIN)
        values: dict[Objective, float | None] = {**candidate.values, "latency": ratio.ratio}
        return replace(candidate, values=values, interval=(ratio.low, ratio.high))

    def noise(self) -> float:
        """Return how far two timings of fp32 lie apart at most, as a fraction."""
        self.progress("search", 0.95, "timing fp32 against itself")
        found = self._fp32.time(self._fp32.reference, OWN, pairs=PAIRS_AGAIN)
        return max(found.high - 1, 1 / found.low - 1, _LEAST_NOISE)

    def _measured(self, number: int, chosen: dict[str, Value]) -> Candidate:
        recipe = self.recipes[number]
        choice = choice_of(recipe)
        artifact = build(recipe, self.store, self.progress, tag=False).artifact
        self._artifacts[number] = artifact
        kept = self._fp32.kept(artifact, choice)
        ratio, interval = 1.0, (1.0, 1.0)
        if not self._is_fp32(artifact, choice):
            timed = self._fp32.time(artifact, choice, pairs=PAIRS)
            ratio, interval = timed.ratio, (timed.low, timed.high)
        return Candidate(
            number=number,
            chosen=chosen,
            values=self._values(artifact, choice, kept, ratio),
            violation=self._violation(kept),
            digest=artifact.digest,
            ran_on=kept.ran_on,
            interval=interval,
        )

    def _is_fp32(self, artifact: Artifact, choice: EngineChoice) -> bool:
        """Tell whether a candidate is the reference itself, in the reference's engine."""
        own = choice.engine_for(artifact.format).name == OWN.engine_for("onnx").name
        return own and artifact.digest == self._fp32.reference.digest

    def _values(
        self, artifact: Artifact, choice: EngineChoice, kept: Kept, latency: float
    ) -> dict[Objective, float | None]:
        values: dict[Objective, float | None] = {
            "quality": kept.quality,
            "latency": latency,
            "size": float(artifact.size),
            "snr": kept.snr,
        }
        if "memory" in self.search.objectives:
            data, batch = self._fp32.data, self.search.batch
            digest = data.digest("evaluation") or ""
            found = memory_of(
                artifact, self.store, lambda: data.samples("evaluation"), digest, batch=batch, choice=choice
            )
            values["memory"] = None if found is None else float(found.bytes)
        return values

    def _violation(self, kept: Kept) -> float:
        """Return how far a candidate lies below a floor: in units of the metric, else in dB; 0 where it keeps both."""
        allowed = self.recipes[0].floors.max_quality_drop
        least = self.search.snr if self.search.snr is not None or allowed is not None else SNR
        lost = 0.0 if allowed is None else kept.reference - kept.quality - allowed
        return lost if lost > 0 else max(0.0, 0.0 if least is None else least - kept.snr)

    def _chosen(self, number: int, name: str) -> dict[str, Value]:
        recipe = self.recipes[number]
        made = recipe.stages[-1].makes if recipe.stages else recipe.source.format
        return {"candidate": name, "engine": choice_of(recipe).engine_for(made).name}


def _float_stages(recipe: Recipe) -> tuple[StageConfig, ...]:
    """Return the stages of fp32: none for an ONNX file, for a module the first export that the recipe names."""
    if recipe.source.format == "onnx":
        return ()
    compared = () if recipe.search is None else recipe.search.candidates
    chains = (recipe.stages, *(each.stages for each in compared))
    exports = (stage for stages in chains for stage in stages if stage.makes_reference)
    return (next(exports, ExportConfig(kind="export")),)
