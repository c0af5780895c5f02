"""The build: folds a recipe's stages over the source artifact, and keeps every step.

Each step is looked up by what it depends on (parent, configuration, code, data, libraries, seed); what is there is not
made again, and what is made is kept only after it agrees with its parent. A broken build leaves the store as it was.
"""

import os
import shutil
import tempfile
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from time import perf_counter

import psutil

from .artifact import Artifact, File, Provenance, canonical, digest_bytes
from .data import Data
from .environment import environment, now
from .parity import Agreement, compare, enforce
from .recipe import Recipe, as_json
from .samples import Samples
from .sessions.session import open_session
from .source import make_source, source_key
from .stages.configs import DistillConfig, ExportConfig, QuantizeConfig, StageConfig, Tolerance
from .stages.stage import Context, code_digest, libraries, stage
from .store import Store
from .targets import resolve

Progress = Callable[[str, float, str], None]
REFERENCE = "reference"  # the label of the float model that everything is held against


@dataclass(frozen=True, slots=True, kw_only=True)
class Step:
    """One step of a build: what was made (or found), how long it took, how it agrees with its parent."""

    label: str
    artifact: Artifact
    cached: bool
    seconds: float
    agreements: tuple[Agreement, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Build:
    """A finished build: the source, the float reference in ONNX that everything is held against, and the steps."""

    recipe: Recipe
    source: Step
    reference: Step
    steps: tuple[Step, ...]

    @property
    def artifact(self) -> Artifact:
        """What the recipe was for: the last step's artifact."""
        return self.steps[-1].artifact

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


def build(recipe: Recipe, store: Store, progress: Progress = lambda label, share, text: None) -> Build:
    """Make what the recipe says, or find it made.

    Raises:
        SourceError, StageError, ParityError, MachineError: with place and next step; earlier steps stay in the store.
    """
    return _Builder(recipe, store, progress).build()


def plan(recipe: Recipe, store: Store) -> tuple[Planned, ...]:
    """What a build would do, found out without doing any of it."""
    return _Builder(recipe, store, lambda label, share, text: None).plan()


class _Builder:
    def __init__(self, recipe: Recipe, store: Store, progress: Progress) -> None:
        self.recipe = recipe
        self.store = store
        self.progress = progress
        self.environment = environment()
        self.data = Data(recipe, store, self.environment)

    def build(self) -> Build:
        source = self._step("source", self._source_key() or "", self._make_source)
        origin = source.artifact
        exporting = next((config for config in self.recipe.stages if isinstance(config, ExportConfig)), None)
        reference = source
        if origin.format == "torch":
            reference = self._stage(REFERENCE, exporting or ExportConfig(kind="export"), origin, origin)
        steps: list[Step] = []
        for label, config in zip(self._labels(), self.recipe.stages, strict=True):
            parent = steps[-1].artifact if steps else origin
            steps.append(self._stage(label, config, parent, origin))
        done = Build(recipe=self.recipe, source=source, reference=reference, steps=tuple(steps))
        self.store.tag(done.reference.artifact, self.recipe.reference_name)
        self.store.tag(done.artifact, self.recipe.name)
        return done

    def plan(self) -> tuple[Planned, ...]:
        key = self._source_key(load=False)
        origin = parent = self._known(key) if key is not None else None
        current = self.recipe.source.format
        planned = [Planned(label="source", takes="", makes=current, artifact=origin)]
        for label, config in zip(self._labels(), self.recipe.stages, strict=True):
            key = self._key(config, parent, origin, load=False) if parent is not None and origin is not None else None
            parent = self._known(key) if key is not None else None
            planned.append(Planned(label=label, takes=config.takes, makes=config.makes, artifact=parent))
        return tuple(planned)

    def _labels(self) -> Iterator[str]:
        kinds = [config.kind for config in self.recipe.stages]
        for number, kind in enumerate(kinds):
            yield kind if kinds.count(kind) == 1 else f"{kind} {kinds[: number + 1].count(kind)}"

    def _step(self, label: str, key: str, make: Callable[[Path], tuple[Artifact, tuple[Agreement, ...]]]) -> Step:
        """Find what the key stands for, or make it in a folder of its own, keep it and note it under the key."""
        start = perf_counter()
        if (known := self._known(key)) is not None:
            return Step(label=label, artifact=known, cached=True, seconds=perf_counter() - start)
        try:
            with _workplace(self.store.root.parent / "work") as folder:
                self.progress(label, 0.0, "")
                artifact, agreements = make(folder)
                kept = self.store.put(artifact, folder)
        except KeyboardInterrupt as error:
            error.add_note(f"stopped in {label}; what was finished before it is kept, run the same command to go on")
            raise
        self.store.remember("steps", key, {"digest": kept.digest})
        self.progress(label, 1.0, "done")
        return Step(label=label, artifact=kept, cached=False, seconds=perf_counter() - start, agreements=agreements)

    def _known(self, key: str) -> Artifact | None:
        note = self.store.recall("steps", key)
        artifact = self.store.find(str(note["digest"])) if note is not None else None
        return artifact if artifact is not None and self.store.holds(artifact) else None

    def _source_key(self, *, load: bool = True) -> str | None:
        golden = self.data.digest("golden", load=load)
        return None if golden is None else source_key(self.recipe, golden)

    def _make_source(self, folder: Path) -> tuple[Artifact, tuple[Agreement, ...]]:
        return make_source(self.recipe, self.data, folder, self.environment), ()

    def _stage(self, label: str, config: StageConfig, parent: Artifact, origin: Artifact) -> Step:
        def make(folder: Path) -> tuple[Artifact, tuple[Agreement, ...]]:
            return self._make(label, config, parent, origin, folder)

        return self._step(label, self._key(config, parent, origin) or "", make)

    def _key(self, config: StageConfig, parent: Artifact, origin: Artifact, *, load: bool = True) -> str | None:
        """What the result depends on, digested; None if a split's digest is not known and must not be loaded."""
        digests = {split: self.data.digest(split, load=load) for split in config.uses}
        if None in digests.values():
            return None
        used = {
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
            "target": resolve(config.target, self.environment) if isinstance(config, QuantizeConfig) else "",
        }
        return digest_bytes(canonical(used))

    def _make(
        self, label: str, config: StageConfig, parent: Artifact, origin: Artifact, folder: Path
    ) -> tuple[Artifact, tuple[Agreement, ...]]:
        context = Context(
            folder=folder,
            store=self.store,
            origin=origin,
            source=self.recipe.source,
            samples=self.data.samples,
            reference=self.recipe.reference,
            environment=self.environment,
            seed=self.recipe.seed,
            progress=lambda share, text: self.progress(label, share * 0.95, text),
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
        if contract is None:
            return ()
        from .sessions.on_ort import OrtSession

        self.progress(label, 0.96, "comparing with the parent")
        samples = self.data.samples("calibration").take(256)
        reference = open_session(parent, self.store, threads=self.environment.cores)
        emulated = folder / "emulated.onnx"  # left where this machine has no kernels for the real one
        candidate = OrtSession(
            emulated if emulated.exists() else folder / "model.onnx",
            threads=self.environment.cores,
            optimize=not emulated.exists(),
        )
        agreements = compare(reference, candidate, samples, contract)
        where = f"{label} of {self.recipe.path.name}, {artifact.short}"
        enforce(agreements, where)
        if isinstance(config, QuantizeConfig) and config.coverage:
            self.progress(label, 0.98, "reading what runs in int8")
            _cover(folder / "model.onnx", samples.take(1), config.coverage, where)
        return agreements


def _cover(path: Path, sample: Samples, least: float, where: str) -> None:
    """Hold what this machine really runs of the file against the share that the stage promises."""
    from . import coverage
    from .sessions.on_ort_graph import executed

    coverage.enforce(coverage.coverage(executed(path, sample.inputs)), least, where)


@contextmanager
def _workplace(root: Path) -> Iterator[Path]:
    """An empty folder that goes away, named by our process; folders of processes that died are swept."""
    root.mkdir(parents=True, exist_ok=True)
    for left in root.iterdir():
        owner = left.name.split("-")[0]
        if owner.isdigit() and not psutil.pid_exists(int(owner)):
            shutil.rmtree(left, ignore_errors=True)
    folder = Path(tempfile.mkdtemp(prefix=f"{os.getpid()}-", dir=root))
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)
