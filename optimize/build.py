"""The build: folds a recipe's stages over the source artifact, and keeps every step.

Each step is looked up by what it depends on (parent, configuration, code, data, libraries, seed); what is there is not
made again, and what is made is kept only after it agrees with its parent. A broken build leaves the store as it was.
"""

import shutil
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from time import perf_counter
from typing import Any

from . import coverage, covered, gain, rounding, scratch, sweep
from .artifact import Artifact, File, Provenance, canonical, digest_bytes
from .data import Data
from .environment import environment, now
from .parity import Agreement, compare, enforce
from .quality import metric
from .recipe import Recipe, as_json
from .recipe_text import read_stage, to_toml
from .sessions.session import open_new, open_session
from .source import make_source, source_ingredients
from .stages.configs import (
    CompileConfig,
    DistillConfig,
    ExportConfig,
    MixedConfig,
    PruneConfig,
    QatConfig,
    QuantizeConfig,
    StageConfig,
    Tolerance,
)
from .stages.stage import Context, code_digest, libraries, stage
from .store import Store
from .sweep import Point
from .targets import broken, resolve

Progress = Callable[[str, float, str], None]
REFERENCE = "reference"  # the label of the float model that everything is held against


@dataclass(frozen=True, slots=True, kw_only=True)
class Step:
    """One step of a build: what was made (or found), how long it took, how it agrees with its parent.

    `dropped` says that it did not pay and the build went on from its parent (``on_no_gain = "drop"``).
    """

    label: str
    artifact: Artifact
    cached: bool
    seconds: float
    agreements: tuple[Agreement, ...] = ()
    dropped: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Build:
    """A finished build: the source, the float reference in ONNX that everything is held against, and the steps."""

    recipe: Recipe
    source: Step
    reference: Step
    steps: tuple[Step, ...]

    @property
    def artifact(self) -> Artifact:
        """What the recipe was for: the artifact of the last step that was kept."""
        return next((step.artifact for step in reversed(self.steps) if not step.dropped), self.source.artifact)

    @property
    def all(self) -> tuple[Step, ...]:
        """Source, reference (unless the source already is ONNX) and steps, in order of making."""
        same = self.reference.artifact.digest == self.source.artifact.digest
        return (self.source, *(() if same else (self.reference,)), *self.steps)

    @property
    def worked(self) -> bool:
        """Whether anything had to be made."""
        return any(not step.cached for step in self.all)


@dataclass(frozen=True, slots=True, kw_only=True)
class Planned:
    """A step that a build would take: the artifact if it is there already, else None."""

    label: str
    takes: str
    makes: str
    artifact: Artifact | None


def build(
    recipe: Recipe, store: Store, progress: Progress = lambda label, share, text: None, *, tag: bool = True
) -> Build:
    """Make what the recipe says, or find it made; `tag` lets the recipe's name point at the result.

    Raises:
        SourceError, StageError, ParityError, MachineError: with place and next step; earlier steps stay in the store.
    """
    return _Builder(recipe, store, progress).build(tag)


def plan(recipe: Recipe, store: Store) -> tuple[Planned, ...]:
    """What a build would do, found out without doing any of it."""
    return _Builder(recipe, store, lambda label, share, text: None).plan()


def replay(
    recipe: Recipe, chain: Sequence[Artifact], store: Store, progress: Progress = lambda label, share, text: None
) -> tuple[Artifact, ...]:
    """Make a recorded chain again, source first, each stage as its provenance says; the recipe gives source and data.

    Nothing is tagged or left out: what the chain took, the replay takes.

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

    def build(self, tag: bool) -> Build:
        note = {"text": to_toml(self.recipe), "path": str(self.recipe.path)}
        self.store.remember("recipes", self.recipe.digest, note)
        source = self._source()
        origin = source.artifact
        exporting = next((config for config in self.recipe.stages if isinstance(config, ExportConfig)), None)
        reference = source
        if origin.format == "torch":
            reference = self._stage(REFERENCE, exporting or ExportConfig(kind="export"), origin, origin)
        steps: list[Step] = []
        parent = origin
        for label, config in zip(self._labels(), self.recipe.stages, strict=True):
            step = self._stage(label, config, parent, origin)
            if self.recipe.on_no_gain == "drop" and not self._pays(label, parent, step.artifact):
                step = replace(step, dropped=True)
                self.progress(label, 1.0, "no gain, left out")
            else:
                parent = step.artifact
            steps.append(step)
        done = Build(recipe=self.recipe, source=source, reference=reference, steps=tuple(steps))
        if tag:
            self.store.tag(done.reference.artifact, self.recipe.reference_name)
            self.store.tag(done.artifact, self.recipe.name)
        return done

    def _pays(self, label: str, parent: Artifact, child: Artifact) -> bool:
        """Whether to go on from the child; measures on this machine where it has not been measured."""
        if parent.format != child.format or broken(child.requires, self.environment):
            return True  # what cannot run here cannot be judged here
        self.progress(label, 0.99, "timing against the parent")
        digest = self.data.digest("evaluation") or ""
        against = gain.pace_to(parent, child, self.store, lambda: self.data.samples("evaluation"), digest)
        return gain.judge(parent, child, against) != "no gain"

    def replay(self, chain: Sequence[Artifact]) -> tuple[Artifact, ...]:
        made = [self._source().artifact]
        for recorded in chain[1:]:
            label = REFERENCE if recorded.name == self.recipe.reference_name else recorded.made_by.stage
            config = read_stage(recorded.made_by.config)
            made.append(self._stage(label, config, made[-1], made[0]).artifact)
        return tuple(made)

    def plan(self) -> tuple[Planned, ...]:
        origin = parent = self._known(self._source_ingredients(load=False))
        current = self.recipe.source.format
        planned = [Planned(label="source", takes="", makes=current, artifact=origin)]
        for label, config in zip(self._labels(), self.recipe.stages, strict=True):
            found = None
            if parent is not None and origin is not None:
                found = self._known(self._ingredients(config, parent, origin, load=False))
            planned.append(Planned(label=label, takes=config.takes, makes=config.makes, artifact=found))
            parent = self._next_parent(parent, found)
        return tuple(planned)

    def _next_parent(self, parent: Artifact | None, found: Artifact | None) -> Artifact | None:
        """Where a planned build goes on from; None where that is not known without measuring."""
        if self.recipe.on_no_gain == "report" or parent is None or found is None or parent.format != found.format:
            return found
        against = gain.recall(parent, found, self.store, self.data.digest("evaluation", load=False) or "")
        if against is None:
            return None
        return parent if gain.judge(parent, found, against) == "no gain" else found

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
        if step.cached and isinstance(config, QuantizeConfig):
            self._promised(label, config, step.artifact, self.store.path(step.artifact, "model.onnx"))
        return step

    def _step(
        self,
        label: str,
        ingredients: Mapping[str, Any] | None,
        make: Callable[[Path], tuple[Artifact, tuple[Agreement, ...]]],
    ) -> Step:
        """Find what the ingredients made before, or make it in a folder of its own, keep it and note both ways."""
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
            error.add_note(f"stopped in {label}; what was finished before it is kept, run the same command to go on")
            raise
        note = {"digest": kept.digest, "agreements": [agreement.to_json() for agreement in agreements]}
        self.store.remember("steps", _digest(ingredients), note)
        self.store.remember("ingredients", kept.digest, dict(ingredients or {}))
        shutil.rmtree(self._checkpoints(ingredients), ignore_errors=True)
        self.progress(label, 1.0, "done")
        return Step(label=label, artifact=kept, cached=False, seconds=perf_counter() - start, agreements=agreements)

    def _known(self, ingredients: Mapping[str, Any] | None) -> Artifact | None:
        """Return what the ingredients made before, where every byte of it is whole; else it is made anew."""
        if ingredients is None:
            return None
        digest = self.store.recall_as("steps", _digest(ingredients), lambda note: str(note["digest"]))
        return self.store.whole(digest) if digest is not None else None

    def _checkpoints(self, ingredients: Mapping[str, Any] | None) -> Path:
        """Where the stage of these ingredients leaves what an interrupted run goes on from."""
        return self.store.root.parent / "cache" / "checkpoints" / _digest(ingredients).removeprefix("sha256:")

    def _agreements(self, ingredients: Mapping[str, Any] | None) -> tuple[Agreement, ...]:
        """How the step agreed with its parent when it was made, where that was noted."""

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
        """What the result depends on; None if a split's digest is not known and must not be loaded."""
        digests = {split: self.data.digest(split, load=load) for split in config.uses}
        if None in digests.values():
            return None
        return {
            "kind": config.kind,
            "config": as_json(config),
            "code": code_digest(config),
            "parent": parent.digest,
            "origin": origin.digest,
            "samples": digests,
            "seed": self.recipe.seed,
            "libraries": libraries(config, self.environment),
            "python": self.environment.python.rpartition(".")[0],
            "student": self.recipe.reference(config.student).digest if isinstance(config, DistillConfig) else "",
            "target": self._target(config),
        }

    def _target(self, config: StageConfig) -> str:
        """What of this machine the result depends on: integer contract, speed, or the GPU that an engine is for."""
        if isinstance(config, QuantizeConfig | QatConfig):
            return resolve(config.target, self.environment)
        if isinstance(config, PruneConfig) and config.latency is not None:
            return self.environment.fingerprint
        if isinstance(config, MixedConfig):
            judged = {"metric": as_json(self.recipe.metric), "code": self._metric_code()}
            return digest_bytes(canonical({"machine": self.environment.fingerprint, **judged}))
        return ", ".join(self.environment.gpus) if isinstance(config, CompileConfig) else ""

    def _metric_code(self) -> str:
        name = self.recipe.metric.name
        return self.recipe.reference(name).digest if ":" in name else ""

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
        )
        made = stage(config)(config, parent, context)
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
        """Hold the new files against the parent, before they are kept."""
        contract: Mapping[str, Tolerance] | None = getattr(config, "parity", None)
        if contract is None or artifact.planned:
            return ()
        from .sessions.on_ort_graph import Exposed

        self.progress(label, 0.96, "comparing with the parent")
        samples = self.data.samples("calibration").take(256)
        reference = open_session(parent, self.store, threads=self.environment.cores)
        candidate = open_new(artifact, folder, threads=self.environment.cores)
        points: tuple[Point, ...] = ()
        if not contract:  # only rounding may differ, whatever the shape
            graph = Exposed(folder / "model.onnx").graph(samples.take(1).inputs)
            contract = rounding.contract(graph, graph, artifact.outputs)
            points = sweep.points(artifact.inputs, samples)
        agreements = compare(reference, candidate, samples, contract, inputs=artifact.inputs, points=points)
        where = f"{label} of {self.recipe.path.name}, {artifact.short}"
        enforce(agreements, where)
        self._promised(label, config, artifact, folder / "model.onnx")
        return agreements

    def _promised(self, label: str, config: StageConfig, artifact: Artifact, path: Path) -> None:
        """What runs on this machine is held against what the stage promises of it, wherever the artifact was made."""
        if isinstance(config, QuantizeConfig) and config.coverage and not broken(artifact.requires, self.environment):
            self.progress(label, 0.98, "reading what runs in int8")
            found = covered.recalled(artifact, self.store)
            if found is None:
                found = covered.on_samples(artifact, path, self.store, self.data.samples("calibration").take(1).inputs)
            coverage.enforce(found, config.coverage, f"{label} of {self.recipe.path.name}, {artifact.short}")


def _digest(ingredients: Mapping[str, Any] | None) -> str:
    return digest_bytes(canonical(ingredients))
