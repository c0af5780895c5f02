"""The build: folds a recipe's stages over the source artifact, and keeps every step.

Each step is looked up by what it depends on (parent, configuration, code, data, libraries, seed); what is there is not
made again, and what is made is kept only after it agrees with its parent. A broken build leaves the store as it was.
"""

import shutil
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from time import perf_counter
from typing import Any

from .. import scratch
from ..artifact import Artifact, File, Provenance, canonical, digest_bytes, digest_file
from ..environment import environment, now
from ..errors import ParityError
from ..parity import rounding, sweep
from ..parity.parity import CONTRACT, Agreement, compare, enforce
from ..parity.sweep import Point
from ..quality import metric
from ..recipe.configs import ExportConfig, StageConfig
from ..recipe.data import Data
from ..recipe.recipe import Recipe
from ..recipe.targets import broken
from ..recipe.text import read_stage, to_toml
from ..record import as_json
from ..samples import Split
from ..sessions.choice import OWN, EngineChoice
from ..sessions.session import open_new, open_session
from ..stages.stage import Context, libraries, run_stage
from ..store import Store
from . import gain
from .built import REFERENCE, Build, Planned, Refused, Step, check_engines, choice_of
from .observed import check_coverage, shown
from .source import check_source, make_source, source_ingredients

Progress = Callable[[str, float, str], None]
_JUDGED_ON: Split = "calibration"  # the samples on which a stage is compared with its parent: other ones judge it anew


def build(
    recipe: Recipe, store: Store, progress: Progress = lambda label, share, text: None, *, tag: bool = True
) -> Build:
    """Build a recipe, reusing stored steps; with `tag` the recipe's name points at the result.

    Raises:
        SourceError, StageError, ParityError, MachineError: with place and next step; earlier steps stay in the store.
    """
    return _Builder(recipe, store, progress).build(tag)


def plan(recipe: Recipe, store: Store) -> tuple[Planned, ...]:
    """Return the steps that a build would take, without taking them."""
    return _Builder(recipe, store, lambda label, share, text: None).plan()


def replay(
    recipe: Recipe, chain: Sequence[Artifact], store: Store, progress: Progress = lambda label, share, text: None
) -> tuple[Artifact, ...]:
    """Rebuild a recorded chain, source first, each stage by its provenance; the recipe gives source and data.

    Nothing is tagged or left out: the replay runs every stage of the chain.

    Raises:
        what `build` raises.
    """
    return _Builder(recipe, store, progress).replay(chain)


class _Builder:
    def __init__(self, recipe: Recipe, store: Store, progress: Progress) -> None:
        self.recipe = recipe
        self.store = store
        self.progress = progress
        self.environment = environment()
        self.data = Data(recipe, store, self.environment)
        self.choice = choice_of(recipe)

    def build(self, tag: bool) -> Build:
        check_source(self.recipe)
        check_engines(self.recipe)
        note = {"text": to_toml(self.recipe), "path": str(self.recipe.path)}
        self.store.remember("recipes", self.recipe.digest, note)
        source = self._source()
        origin = source.artifact
        exporting = next((config for config in self.recipe.stages if config.makes_reference), None)
        reference = source
        if origin.format == "torch":
            reference = self._stage(REFERENCE, exporting or ExportConfig(kind="export"), origin, origin)
        steps: list[Step] = []
        refused: list[Refused] = []
        parent = origin
        for label, config in zip(self._labels(), self.recipe.stages, strict=True):
            step = self._stage_or_refusal(label, config, parent, origin)
            if isinstance(step, Refused):
                self.progress(label, 1.0, "disagrees with its parent, left out")
                refused.append(step)
                continue
            if (why := self._against(label, parent, step.artifact)) is not None:
                step = replace(step, dropped=True)
                self.progress(label, 1.0, f"{why}, left out")
            else:
                parent = step.artifact
            steps.append(step)
        done = Build(
            recipe=self.recipe,
            data=self.data,
            source=source,
            reference=reference,
            steps=tuple(steps),
            refused=tuple(refused),
        )
        if tag:
            self.store.tag(done.reference.artifact, self.recipe.reference_name)
            self.store.tag(done.artifact, self.recipe.name)
        return done

    def _against(self, label: str, parent: Artifact, child: Artifact) -> gain.Gain | None:
        """Return why the build does not continue from the child, or None; measures what is not yet measured here."""
        given = gain.rule(self.recipe.on_no_gain)
        if not given.counted or parent.format != child.format or self._broken(child):
            return None  # a model that cannot run here cannot be judged here
        self.progress(label, 0.99, "timing against the parent")
        digest, samples = self.data.digest("evaluation") or "", lambda: self.data.samples("evaluation")
        against = gain.pace_to(parent, child, self.store, samples, digest, choice=self.choice)
        memory = (
            gain.memories(parent, child, self.store, samples, digest, self.choice)
            if "memory" in given.counted
            else (None, None)
        )
        if not gain.dropped(gain.changes(parent, child, against, memory), given):
            return None
        return gain.judge(parent, child, against, memory)

    def _broken(self, artifact: Artifact) -> str:
        """Return why this machine, in the recipe's engine, cannot run the artifact; an empty string where it can."""
        return broken(artifact.requires, self.environment, self.choice.of(artifact.format).engine)

    def replay(self, chain: Sequence[Artifact]) -> tuple[Artifact, ...]:
        made = [self._source().artifact]
        for recorded in chain[1:]:
            label = REFERENCE if recorded.name == self.recipe.reference_name else recorded.made_by.stage
            config = read_stage(recorded.made_by.config, self.recipe.base)
            made.append(self._stage(label, config, made[-1], made[0]).artifact)
        return tuple(made)

    def plan(self) -> tuple[Planned, ...]:
        check_source(self.recipe)
        origin = parent = self._known(self._source_ingredients(load=False))
        current = self.recipe.source.format
        planned = [Planned(label="source", takes="", makes=current, artifact=origin)]
        for label, config in zip(self._labels(), self.recipe.stages, strict=True):
            found = None
            if parent is not None and origin is not None:
                ingredients = self._ingredients(config, parent, origin, load=False)
                refused = self._refusal(_digest(ingredients)) if self._droppable(config) and ingredients else None
                if refused is not None:
                    makes = config.makes
                    planned.append(Planned(label=label, takes=makes, makes=makes, artifact=None, refused=refused))
                    continue
                found = self._known(ingredients)
            planned.append(Planned(label=label, takes=config.takes, makes=config.makes, artifact=found))
            parent = self._next_parent(parent, found)
        return tuple(planned)

    def _next_parent(self, parent: Artifact | None, found: Artifact | None) -> Artifact | None:
        """Return the artifact from which a planned build continues; None where that is unknown without measuring."""
        given = gain.rule(self.recipe.on_no_gain)
        if not given.counted or parent is None or found is None or parent.format != found.format:
            return found
        digest = self.data.digest("evaluation", load=False) or ""
        against = gain.recall(parent, found, self.store, digest, self.choice)
        memory = gain.recall_memories(parent, found, self.store, digest, self.choice)
        if against is None or ("memory" in given.counted and None in memory):
            return None
        return parent if gain.dropped(gain.changes(parent, found, against, memory), given) else found

    def _labels(self) -> Iterator[str]:
        kinds = [config.kind for config in self.recipe.stages]
        for number, kind in enumerate(kinds):
            yield kind if kinds.count(kind) == 1 else f"{kind} {kinds[: number + 1].count(kind)}"

    def _source(self) -> Step:
        return self._step("source", self._source_ingredients(), self._make_source)

    def _stage(self, label: str, config: StageConfig, parent: Artifact, origin: Artifact) -> Step:
        ingredients = self._ingredients(config, parent, origin)

        def make(folder: Path) -> tuple[Artifact, tuple[Agreement, ...]]:
            return self._make(label, config, parent, origin, folder, self._checkpoints(ingredients))

        step = self._step(label, ingredients, make)
        if step.cached and config.required_coverage:
            self._check_coverage(label, config, step.artifact, self.store.path(step.artifact, "model.onnx"))
        return step

    def _stage_or_refusal(self, label: str, config: StageConfig, parent: Artifact, origin: Artifact) -> Step | Refused:
        """As `_stage`; a result that breaks its contract is a value where the recipe says to go on without it."""
        if not self._droppable(config):
            return self._stage(label, config, parent, origin)
        key = _digest(self._ingredients(config, parent, origin))
        if (why := self._refusal(key)) is not None:
            return Refused(label=label, why=why)
        try:
            return self._stage(label, config, parent, origin)
        except ParityError as error:
            self.store.remember("refusals", key, {"why": error.what})
            return Refused(label=label, why=error.what)

    def _droppable(self, config: StageConfig) -> bool:
        return self.recipe.on_disagreement == "drop" and config.takes == config.makes

    def _refusal(self, key: str) -> str | None:
        """Return why a result of these ingredients was refused before."""
        return self.store.recall_as("refusals", key, lambda note: str(note["why"]))

    def _step(
        self,
        label: str,
        ingredients: Mapping[str, Any] | None,
        make: Callable[[Path], tuple[Artifact, tuple[Agreement, ...]]],
    ) -> Step:
        """Find the earlier result of the ingredients, or make it in a separate folder, store it and record it."""
        start = perf_counter()
        if (known := self._known(ingredients)) is not None:
            agreements = self._agreements(ingredients)
            return Step(label=label, artifact=known, cached=True, seconds=perf_counter() - start, agreements=agreements)
        try:
            with scratch.folder("build", self.store.root.parent / "work") as folder:
                self.progress(label, 0.0, "")
                artifact, agreements = make(folder)
                kept = self.store.put(artifact, folder)
        except KeyboardInterrupt as error:
            error.add_note(f"stopped in {label}; finished stages are kept, run the same command to continue")
            raise
        note = {"digest": kept.digest, "agreements": [agreement.to_json() for agreement in agreements]}
        self.store.remember("steps", _digest(ingredients), note)
        self.store.remember("ingredients", kept.digest, dict(ingredients or {}))
        shutil.rmtree(self._checkpoints(ingredients), ignore_errors=True)
        self.progress(label, 1.0, "done")
        return Step(label=label, artifact=kept, cached=False, seconds=perf_counter() - start, agreements=agreements)

    def _known(self, ingredients: Mapping[str, Any] | None) -> Artifact | None:
        """Return the earlier result of the ingredients, if every byte of it is intact."""
        if ingredients is None:
            return None
        digest = self.store.recall_as("steps", _digest(ingredients), lambda note: str(note["digest"]))
        return self.store.whole(digest) if digest is not None else None

    def _checkpoints(self, ingredients: Mapping[str, Any] | None) -> Path:
        """Return the folder for checkpoints of the stage with these ingredients."""
        return self.store.root.parent / "cache" / "checkpoints" / _digest(ingredients).removeprefix("sha256:")

    def _agreements(self, ingredients: Mapping[str, Any] | None) -> tuple[Agreement, ...]:
        """Return the agreement of the step with its parent when it was made, where that was recorded."""

        def read(note: dict[str, Any]) -> tuple[Agreement, ...]:
            return tuple(Agreement.from_json(row) for row in note.get("agreements", []))

        return self.store.recall_as("steps", _digest(ingredients), read) or ()

    def _source_ingredients(self, *, load: bool = True) -> dict[str, Any] | None:
        golden = self.data.digest("golden", load=load)
        return None if golden is None else source_ingredients(self.recipe, golden)

    def _make_source(self, folder: Path) -> tuple[Artifact, tuple[Agreement, ...]]:
        return make_source(self.recipe, self.data, folder, self.environment), ()

    def _ingredients(
        self, config: StageConfig, parent: Artifact, origin: Artifact, *, load: bool = True
    ) -> dict[str, Any] | None:
        """Return the ingredients of the result; None if a split's digest is unknown and it must not be loaded."""
        judged: tuple[Split, ...] = (_JUDGED_ON,) if config.contract is not None else ()
        digests = {split: self.data.digest(split, load=load) for split in (*config.uses, *judged)}
        if None in digests.values():
            return None
        return {
            "kind": config.kind,
            "config": as_json(config),
            "code": self.recipe.kind_of(config).code_digest,
            "judged": CONTRACT if config.contract is not None else 0,
            "parent": parent.digest,
            "origin": origin.digest,
            "samples": digests,
            "seed": self.recipe.seed,
            "libraries": libraries(config, self.environment),
            "python": self.environment.python.rpartition(".")[0],
            "student": "".join(self.recipe.reference(name).digest for name in config.references),
            "target": config.depends_on(self.environment, self._metric),
            **(
                {"files": [digest_file(self.recipe.base / name) for name in config.recipe_files]}
                if config.recipe_files
                else {}
            ),
            **(self._compared_in(config).key(parent.format, config.makes) if config.contract is not None else {}),
        }

    def _compared_in(self, config: StageConfig) -> EngineChoice:
        """Return the engine in which the result is held against its parent.

        Where only rounding may differ, the engine must not round by itself: the format's own takes its place.
        """
        exact = config.contract is not None and "*" not in config.contract
        return OWN if exact and self.choice.engine_for(config.makes).rounds else self.choice

    def _metric(self) -> str:
        """The digest of the recipe's metric, and of its code where that is the user's."""
        name = self.recipe.metric.name
        code = self.recipe.reference(name).digest if ":" in name else ""
        return digest_bytes(canonical({"metric": as_json(self.recipe.metric), "code": code}))

    def _make(
        self, label: str, config: StageConfig, parent: Artifact, origin: Artifact, folder: Path, checkpoints: Path
    ) -> tuple[Artifact, tuple[Agreement, ...]]:
        context = Context(
            folder=folder,
            checkpoints=checkpoints,
            store=self.store,
            origin=origin,
            source=self.recipe.source,
            samples=self.data.samples,
            reference=self.recipe.reference,
            environment=self.environment,
            seed=self.recipe.seed,
            progress=lambda share, text: self.progress(label, share * 0.95, text),
            score=metric(self.recipe),
            base=self.recipe.base,
        )
        made = run_stage(self.recipe.kind_of(config), config, parent, context)
        made = shown(made, folder, self.data.samples("golden"), threads=self.environment.cores)
        splits = config.uses
        artifact = Artifact(
            name=self.recipe.reference_name if label == REFERENCE else self.recipe.name,
            format=made.format,
            files=tuple(File.of(folder / name, name) for name in made.files),
            inputs=made.inputs,
            outputs=made.outputs,
            requires=made.requires,
            made_by=Provenance(
                stage=config.kind,
                parent=parent.digest,
                config=as_json(config),
                recipe=self.recipe.digest,
                samples=self.data.digest(splits[0]) if splits else None,
                seed=self.recipe.seed,
                environment=self.environment.to_json(),
                at=now(),
                notes=made.notes,
            ),
        )
        return artifact, self._agree(label, config, parent, artifact, folder)

    def _agree(
        self, label: str, config: StageConfig, parent: Artifact, artifact: Artifact, folder: Path
    ) -> tuple[Agreement, ...]:
        """Compare the new files with the parent, before they are stored."""
        contract = config.contract
        if contract is None or artifact.planned:
            return ()
        from ..sessions.on_ort_graph import Exposed

        self.progress(label, 0.96, "comparing with the parent")
        samples = self.data.samples(_JUDGED_ON).take(256)
        choice = self._compared_in(config)
        reference = open_session(parent, self.store, threads=self.environment.cores, choice=choice)
        candidate = open_new(artifact, folder, threads=self.environment.cores, choice=choice)
        points: tuple[Point, ...] = ()
        if "*" not in contract:  # only rounding may differ where nothing is stated, whatever the shape
            graph = Exposed(folder / "model.onnx").graph(samples.take(1).inputs)
            contract = {**rounding.contract(graph, graph, artifact.outputs), **contract}
            points = sweep.points(artifact.inputs, samples)
        agreements = compare(reference, candidate, samples, contract, inputs=artifact.inputs, points=points)
        where = f"{label} of {self.recipe.path.name}, {artifact.short}"
        enforce(agreements, where)
        self._check_coverage(label, config, artifact, folder / "model.onnx")
        return agreements

    def _check_coverage(self, label: str, config: StageConfig, artifact: Artifact, path: Path) -> None:
        self.progress(label, 0.98, "checking which layers run in which precision")
        check_coverage(
            config,
            artifact,
            path,
            self.store,
            lambda: self.data.samples(_JUDGED_ON),
            environment=self.environment,
            where=f"{label} of {self.recipe.path.name}, {artifact.short}",
        )


def _digest(ingredients: Mapping[str, Any] | None) -> str:
    return digest_bytes(canonical(ingredients))
