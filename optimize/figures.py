"""Figures: what each step of a build is worth on this machine: quality, size, and pace against parent and reference.

All of one build are measured in one run, but for a pace that the build already decided by (`gain`). A figure is
believed again only under the same machine fingerprint, data and metric. Nothing is judged here but what `gain` says.
"""

from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from typing import Any

from .artifact import Artifact, canonical, digest_bytes
from .build import REFERENCE, Build, Step
from .config import typed
from .data import Data
from .environment import environment
from .gain import BATCH, Gain, judge, pace_to
from .memory import Memory, memory_of
from .pace import Pace
from .quality import metric, scores
from .recipe import as_json
from .sessions.session import Session, open_session
from .store import Store
from .targets import broken

Progress = Callable[[str, float, str], None]


@dataclass(frozen=True, slots=True, kw_only=True)
class Figures:
    """One step's worth: mean quality over the evaluation split, bytes, and pace (one thread, batch 32 at most).

    Quality and pace are None where this machine cannot run the artifact: it is only planned, or for other hardware.
    `gain` says whether a stage pays against its parent (`gain.judge`); None for the source and the reference. `memory`
    is measured where it is asked for, and None where it was not or cannot be told.
    """

    label: str
    quality: float | None
    samples: int
    size: int
    parent: Pace | None
    reference: Pace | None
    gain: Gain | None = None
    memory: Memory | None = None


def figures(
    build: Build, store: Store, progress: Progress = lambda label, share, text: None, *, memory: bool = False
) -> tuple[Figures, ...]:
    """Measure every step of a build, or recall what this machine measured before.

    `memory` is asked for on its own: it takes some seconds per step, in processes that open the step's artifact anew.
    """
    rows = _measured(build, store, progress)
    return _with_memory(build, rows, store, progress) if memory else rows


def _with_memory(build: Build, rows: tuple[Figures, ...], store: Store, progress: Progress) -> tuple[Figures, ...]:
    data = Data(build.recipe, store, environment())
    found: dict[str, Memory | None] = {}
    for number, step in enumerate(build.all):
        artifact = step.artifact
        if artifact.digest not in found:
            progress("memory", number / len(rows), f"opening {step.label} in processes of its own")
            found[artifact.digest] = None
            if not unmeasured(artifact):
                digest = data.digest("evaluation") or ""
                found[artifact.digest] = memory_of(
                    artifact, store, lambda: data.samples("evaluation"), digest, batch=BATCH
                )
    progress("memory", 1.0, "done")
    return tuple(replace(row, memory=found[step.artifact.digest]) for step, row in zip(build.all, rows, strict=True))


def _measured(build: Build, store: Store, progress: Progress) -> tuple[Figures, ...]:
    key = _key(build, store)
    if (known := store.recall_as("figures", key, _read)) is not None:
        return known
    data = Data(build.recipe, store, environment())
    samples, score = data.samples("evaluation"), metric(build.recipe)
    everyone = {step.artifact.digest: step.artifact for step in build.all if not unmeasured(step.artifact)}
    qualities = {}
    for number, (digest, artifact) in enumerate(everyone.items()):
        progress("figures", number / len(everyone) * 0.5, f"quality of {artifact.made_by.stage}")
        session = open_session(artifact, store, threads=environment().cores)
        qualities[digest] = float(scores(session, samples, score).mean())
    single: dict[str, Session] = {
        digest: open_session(artifact, store, threads=1) for digest, artifact in everyone.items()
    }
    rows = []
    for number, step in enumerate(build.all):
        progress("figures", 0.5 + number / len(build.all) * 0.5, f"pace of {step.label}")

        def against(other: Artifact | None, step: Step = step) -> Pace | None:
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
                data.digest("evaluation") or "",
                lambda artifact: single[artifact.digest],
            )

        parent = everyone.get(step.artifact.made_by.parent or "")
        pace = against(parent)
        rows.append(
            Figures(
                label=step.label,
                quality=qualities.get(step.artifact.digest),
                samples=len(samples),
                size=step.artifact.size,
                parent=pace,
                reference=against(build.reference.artifact) if step.label != "source" else None,
                gain=judge(parent, step.artifact, pace) if parent and pace and step.label != REFERENCE else None,
            )
        )
    store.remember("figures", key, {"rows": [asdict(row) for row in rows]})  # without memory, which is noted alone
    return tuple(rows)


def unmeasured(artifact: Artifact) -> str:
    """Why nothing can be measured of the artifact on this machine, or an empty string."""
    return "it is only planned" if artifact.planned else broken(artifact.requires, environment())


def worth(build: Build, rows: tuple[Figures, ...]) -> Figures:
    """The figures of what the build came to: its artifact's, not those of stages left out after it."""
    kept = build.artifact.digest
    return next(
        row for step, row in zip(reversed(build.all), reversed(rows), strict=True) if step.artifact.digest == kept
    )


def below_floor(build: Build, rows: tuple[Figures, ...]) -> str:
    """Why the build misses the recipe's floors, or an empty string; judged on the last step that could be measured."""
    most = build.recipe.floors.quality_drop
    first, last = rows[0].quality, worth(build, rows).quality
    if most is None or first is None or last is None or first - last <= most:
        return ""
    return f"quality {last:.4f} is {first - last:.4f} below the source's, the floor allows {most}"


def _key(build: Build, store: Store) -> str:
    data = Data(build.recipe, store, environment())
    return digest_bytes(
        canonical(
            {
                "schema": 2,
                "artifacts": [step.artifact.digest for step in build.all],
                "labels": [step.label for step in build.all],
                "samples": data.digest("evaluation"),
                "metric": as_json(build.recipe.metric),
                "machine": environment().fingerprint,
            }
        )
    )


def _read(note: dict[str, Any]) -> tuple[Figures, ...]:
    return tuple(typed(row, Figures) for row in note["rows"])
