"""Metrics of each step of a build on this machine: quality, size, and latency ratio to parent and reference.

All of one build are measured in one run, except a latency ratio that the build already used (`gain`). A stored figure
is reused only under the same machine fingerprint, data and metric. Only `gain` judges figures here.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from ..artifact import Artifact, canonical, digest_bytes
from ..environment import environment
from ..quality import metric
from ..reading import decode
from ..recipe.targets import broken
from ..record import as_json
from ..sessions.answers import part_of, parts
from ..sessions.choice import EngineChoice
from ..sessions.engine import Opened, RanOn
from ..sessions.session import open_artifact, open_session
from ..store import Store
from ..timing.memory import Memory, memory_of
from ..timing.pace import LatencyRatio
from .built import REFERENCE, Build, Step, choice_of
from .gain import BATCH, Gain, judge, pace_to

Progress = Callable[[str, float, str], None]


@dataclass(frozen=True, slots=True, kw_only=True)
class StepMetrics:
    """Metrics of one step: mean quality over the evaluation split, bytes, latency ratios (one thread, batch <= 32).

    Quality and ratios are None where this machine cannot run the artifact: it is only planned, or for other hardware.
    `gain` says whether a stage pays against its parent (`gain.judge`); None for the source and the reference. `memory`
    is measured on request, and None where it was not measured. `ran_on` is what opened the artifact for all of these;
    None in figures of an earlier version.
    """

    label: str
    quality: float | None
    samples: int
    size: int
    parent: LatencyRatio | None
    reference: LatencyRatio | None
    gain: Gain | None = None
    memory: Memory | None = None
    ran_on: RanOn | None = None


def figures(
    build: Build, store: Store, progress: Progress = lambda label, share, text: None, *, memory: bool = False
) -> tuple[StepMetrics, ...]:
    """Measure every step of a build, or recall what this machine measured before.

    `memory` must be requested: it takes some seconds per step, in processes that open the step's artifact again.
    """
    rows = _measured(build, store, progress)
    return _with_memory(build, rows, store, progress) if memory else rows


def _with_memory(
    build: Build, rows: tuple[StepMetrics, ...], store: Store, progress: Progress
) -> tuple[StepMetrics, ...]:
    data = build.data
    found: dict[str, Memory | None] = {}
    for number, step in enumerate(build.all):
        artifact = step.artifact
        if artifact.digest not in found:
            progress("memory", number / len(rows), f"opening {step.label} in processes of its own")
            found[artifact.digest] = None
            if not unmeasured(artifact, choice_of(build.recipe)):
                digest = data.digest("evaluation") or ""
                found[artifact.digest] = memory_of(
                    artifact,
                    store,
                    lambda: data.samples("evaluation"),
                    digest,
                    batch=BATCH,
                    choice=choice_of(build.recipe),
                )
    progress("memory", 1.0, "done")
    made = {step.artifact.digest: step.artifact for step in build.all}
    return tuple(_weighed(step, row, found, made) for step, row in zip(build.all, rows, strict=True))


def _weighed(
    step: Step, row: StepMetrics, found: Mapping[str, Memory | None], made: Mapping[str, Artifact]
) -> StepMetrics:
    """The row with its memory, and its gain judged by that too."""
    parent = made.get(step.artifact.made_by.parent or "")
    gain = row.gain
    if gain is not None and parent is not None and row.parent is not None:
        gain = judge(parent, step.artifact, row.parent, (found.get(parent.digest), found[step.artifact.digest]))
    return replace(row, memory=found[step.artifact.digest], gain=gain)


def _measured(build: Build, store: Store, progress: Progress) -> tuple[StepMetrics, ...]:
    key = _key(build)
    if (known := store.recall_as("figures", key, _read)) is not None:
        return known
    samples, score, choice = build.data.samples("evaluation"), metric(build.recipe), choice_of(build.recipe)
    everyone = {
        step.artifact.digest: step.artifact
        for step in build.all
        if not unmeasured(step.artifact, choice_of(build.recipe))
    }
    qualities = {}
    for number, (digest, artifact) in enumerate(everyone.items()):
        progress("figures", number / len(everyone) * 0.5, f"quality of {artifact.made_by.stage}")
        session = open_session(artifact, store, threads=environment().cores, choice=choice)
        asked = parts(session, artifact.inputs, samples.inputs, outputs=artifact.outputs)
        scored = [score(found, part_of(samples, which)) for which, found in asked]
        qualities[digest] = float(np.concatenate(scored).mean())
    single: dict[str, Opened] = {
        digest: open_artifact(artifact, store, threads=1, choice=choice) for digest, artifact in everyone.items()
    }
    rows = []
    for number, step in enumerate(build.all):
        progress("figures", 0.5 + number / len(build.all) * 0.5, f"latency of {step.label}")

        def against(other: Artifact | None, step: Step = step) -> LatencyRatio | None:
            if (
                other is None
                or other.digest == step.artifact.digest
                or not {other.digest, step.artifact.digest} <= set(single)
            ):
                return None
            return pace_to(
                other,
                step.artifact,
                store,
                lambda: samples,
                build.data.digest("evaluation") or "",
                lambda artifact: single[artifact.digest].session,
                choice,
            )

        parent = everyone.get(step.artifact.made_by.parent or "")
        pace = against(parent)
        rows.append(
            StepMetrics(
                label=step.label,
                quality=qualities.get(step.artifact.digest),
                samples=len(samples),
                size=step.artifact.size,
                parent=pace,
                reference=against(build.reference.artifact) if step.label != "source" else None,
                gain=judge(parent, step.artifact, pace) if parent and pace and step.label != REFERENCE else None,
                ran_on=opened.ran_on if (opened := single.get(step.artifact.digest)) is not None else None,
            )
        )
    store.remember("figures", key, {"rows": as_json(rows)})  # memory is stored separately
    return tuple(rows)


def unmeasured(artifact: Artifact, choice: EngineChoice) -> str:
    """Return why the artifact cannot be measured on this machine in its engine, or an empty string."""
    if artifact.planned:
        return "it is only planned"
    return broken(artifact.requires, environment(), choice.of(artifact.format).engine)


def worth(build: Build, rows: tuple[StepMetrics, ...]) -> StepMetrics:
    """Return the figures of the build's artifact, not those of stages left out after it."""
    kept = build.artifact.digest
    return next(
        row for step, row in zip(reversed(build.all), reversed(rows), strict=True) if step.artifact.digest == kept
    )


def below_floor(build: Build, rows: tuple[StepMetrics, ...]) -> str:
    """Return why the build misses the recipe's floors, or an empty string; judges the last step that was measured."""
    most = build.recipe.floors.max_quality_drop
    first, last = rows[0].quality, worth(build, rows).quality
    if most is None or first is None or last is None or first - last <= most:
        return ""
    return f"quality {last:.4f} is {first - last:.4f} below the source's, the recipe's floor allows at most {most}"


def _key(build: Build) -> str:
    return digest_bytes(
        canonical(
            {
                "schema": 3,
                "artifacts": [step.artifact.digest for step in build.all],
                "labels": [step.label for step in build.all],
                "samples": build.data.digest("evaluation"),
                "metric": as_json(build.recipe.metric),
                "machine": environment().fingerprint,
            }
            | choice_of(build.recipe).key(*(step.artifact.format for step in build.all))
        )
    )


def _read(note: dict[str, Any]) -> tuple[StepMetrics, ...]:
    return tuple(decode(StepMetrics, row, where="") for row in note["rows"])
