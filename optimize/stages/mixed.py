"""Mixed precision: int8 wherever quality allows, float where it does not or where int8 is slower, as measured here."""

import glob
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import onnx

from ..artifact import Artifact
from ..errors import StageError
from ..quality import scores
from ..quantization import on_weights
from ..recipe.configs import MixedConfig
from ..record import as_json
from ..samples import Array
from ..sessions.choice import EngineChoice
from ..sessions.session import Session, open_artifact, open_onnx, open_session
from ..timing.pace import LatencyRatio, pace
from . import quantize
from .sensitivity import Choice, Layers, Point, search, search_by_noise
from .stage import Context, Made

_PAIRS, _PAIRS_AGAIN = 8, 24


def run(config: MixedConfig, parent: Artifact, context: Context) -> Made:
    """Make the fastest quantized ``model.onnx`` whose quality drop on the calibration split keeps the floor.

    Raises:
        StageError: no candidate keeps the floor, or none that does is faster than the parent.
    """
    trial = _Trial(config, parent, context)
    choice, sensitivities = _searched(trial)
    chosen = choice.chosen
    if chosen is None:
        raise StageError(
            _none_within(choice, config), next_step="raise max_quality_drop, use qat, or remove this stage"
        )
    if chosen.low >= 1:
        raise StageError(_slower(chosen.latency, chosen.low, chosen.high), next_step="remove this stage")
    context.progress(0.9, "quantizing the chosen layers")
    made = trial.make(chosen.kept, context)
    context.progress(0.95, "timing the chosen model again")
    again = trial.time(context.folder / quantize.FILE, pairs=_PAIRS_AGAIN)  # the fastest of many is biased downwards
    if again.high >= 1:
        raise StageError(_slower(again.ratio, again.low, again.high), next_step="remove this stage")
    notes = {
        "kept_in_float": choice.reasons
        | dict.fromkeys(chosen.kept - set(choice.reasons), "the quality floor requires it"),
        "sensitivities": {layer: round(value, 6) for layer, value in sensitivities.items()},
        "front": [as_json(point) | {"kept": sorted(point.kept)} for point in choice.front],
        "drop": chosen.drop,
        "latency": again.ratio,
        "measured": len(choice.points),
        "engine": config.engine,
        "ran_on": as_json(trial.ran_on),
        "kept_as": config.keep,
        "ranked_by": config.rank,
    }
    return replace(made, notes={**made.notes, **notes})


def _searched(trial: "_Trial") -> tuple[Choice, dict[str, float]]:
    """Run the search; return its result and the criterion by layer: quality regained in float, or noise in integers."""
    config, progress = trial.config, trial.context.progress
    asked: dict[str, Any] = {
        "floor": config.max_quality_drop,
        "most": config.measurements,
        "tell": lambda measured, text: progress(0.9 * measured / config.measurements, text),
    }
    folder = trial.within("layers")
    if config.rank == "noise":
        progress(0.0, "measuring the int8 noise of each layer")
        noise = quantize.noise(config.quantize, trial.parent, folder)
        return search_by_noise(noise, trial.measure, **asked), dict(sorted(noise.items(), key=lambda each: -each[1]))
    choice = search(quantize.layers(config.quantize, trial.parent, folder), trial.measure, **asked)
    return choice, {each.layer: each.regained for each in choice.sensitivities}


class _Trial:
    """Builds and measures candidates beside one parent; the parent is scored once."""

    def __init__(self, config: MixedConfig, parent: Artifact, context: Context) -> None:
        self.config = config
        self.parent = parent
        self.context = context
        self.samples = context.samples("calibration")
        choice = EngineChoice(engine=config.engine, device=config.device)
        alone = open_artifact(parent, context.store, threads=1, choice=choice)
        self.single, self.ran_on = alone.session, alone.ran_on
        everything = open_session(parent, context.store, threads=context.environment.cores, choice=choice)
        self.before = self._scores(everything)

    def make(self, kept: Layers, context: Context) -> Made:
        """Quantize all but these layers into the context's folder; of these, at most the weights."""
        names = tuple(glob.escape(name) for name in sorted(kept))
        config = replace(self.config.quantize, exclude=(*self.config.quantize.exclude, *names))
        made = quantize.run(config, self.parent, context)
        if self.config.keep == "int8-weights" and kept:
            path = context.folder / quantize.FILE
            path.write_bytes(on_weights.channels(onnx.load(path), kept).SerializeToString(deterministic=True))
        return made

    def within(self, name: str) -> Context:
        """The stage's context with an empty folder of its own, and no progress of its own."""
        folder = self.context.folder / f"trial-{name}"
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir()
        return replace(self.context, folder=folder, progress=lambda share, text: None)

    def measure(self, kept: Layers) -> Point:
        """Quantize with these layers in float, score on the calibration split, and time beside the parent."""
        context = self.within("candidate")
        try:
            self.make(kept, context)
        except StageError:
            if not kept:
                raise
            return Point(kept=kept, drop=0.0, latency=1.0, low=1.0, high=1.0)  # nothing is left to quantize: the parent
        path = context.folder / quantize.FILE
        after = self._scores(self._opened(path, threads=context.environment.cores))
        found = self.time(path, pairs=_PAIRS)
        return Point(
            kept=kept, drop=float(np.mean(self.before - after)), latency=found.ratio, low=found.low, high=found.high
        )

    def time(self, path: Path, *, pairs: int) -> LatencyRatio:
        """A candidate's file beside the parent, both in the engine that is asked for."""
        return pace(self.single, self._opened(path, threads=1), self.samples, batch=self.config.batch, pairs=pairs)

    def _opened(self, path: Path, *, threads: int) -> Session:
        return open_onnx(path, threads=threads, engine=self.config.engine, device=self.config.device).session

    def _scores(self, session: Session) -> Array:
        """Return one score per sample, [n]."""
        if self.context.score is None:
            raise StageError("this stage needs the recipe's metric", next_step="build it from a recipe")
        return scores(session, self.samples, self.context.score)


def _none_within(choice: Choice, config: MixedConfig) -> str:
    best = min(choice.points, key=lambda point: point.drop)
    return (
        f"of {len(choice.points)} candidates none keeps max_quality_drop = {config.max_quality_drop}; "
        f"the best one drops by {best.drop:.4f}"
    )


def _slower(ratio: float, low: float, high: float) -> str:
    found = f"{ratio:.2f} [{low:.2f}, {high:.2f}]"
    return f"no candidate within the quality floor is faster than the parent; the best takes {found} of its time"
