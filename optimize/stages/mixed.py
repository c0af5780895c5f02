"""Mixed: int8 wherever quality allows, float where it does not or where int8 is slower, both as measured here."""

import glob
import shutil
from dataclasses import asdict, replace

import numpy as np

from ..artifact import Artifact
from ..errors import StageError
from ..pace import pace
from ..quality import scores
from ..samples import Array
from ..sensitivity import Choice, Layers, Point, search
from ..sessions.on_ort import OrtSession
from ..sessions.session import Session, open_session
from . import quantize
from .configs import MixedConfig, QuantizeConfig
from .stage import Context, Made

_PAIRS = 8


def run(config: MixedConfig, parent: Artifact, context: Context) -> Made:
    """Make the fastest quantized ``model.onnx`` whose quality drop on the calibration split keeps the floor.

    Raises:
        StageError: no candidate keeps the floor, or none that does is faster than the parent.
    """
    trial = _Trial(config, parent, context)
    choice = search(
        quantize.layers(config.quantize, parent, trial.within("layers")),
        trial.measure,
        floor=config.quality_drop,
        most=config.measurements,
        tell=lambda measured, text: context.progress(0.9 * measured / config.measurements, text),
    )
    chosen = choice.chosen
    if chosen is None or chosen.high >= 1:
        raise StageError(_refusal(choice, config), next_step="raise quality_drop, use qat, or leave this stage out")
    context.progress(0.95, "quantizing the choice")
    made = quantize.run(trial.quantized(chosen.kept), parent, context)
    notes = {
        "kept_in_float": choice.reasons | dict.fromkeys(chosen.kept - set(choice.reasons), "the floor asked for it"),
        "sensitivities": {each.layer: round(each.regained, 6) for each in choice.sensitivities},
        "front": [asdict(point) | {"kept": sorted(point.kept)} for point in choice.front],
        "drop": chosen.drop,
        "latency": chosen.latency,
        "measured": len(choice.points),
    }
    return replace(made, notes={**made.notes, **notes})


class _Trial:
    """Builds and measures candidates beside one parent; the parent is scored once."""

    def __init__(self, config: MixedConfig, parent: Artifact, context: Context) -> None:
        self.config = config
        self.parent = parent
        self.context = context
        self.samples = context.samples("calibration")
        self.single = open_session(parent, context.store, threads=1)
        self.before = self._scores(open_session(parent, context.store, threads=context.environment.cores))

    def quantized(self, kept: Layers) -> QuantizeConfig:
        """The quantize configuration that keeps these layers in float too."""
        names = tuple(glob.escape(name) for name in sorted(kept))
        return replace(self.config.quantize, exclude=(*self.config.quantize.exclude, *names))

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
            quantize.run(self.quantized(kept), self.parent, context)
        except StageError:
            if not kept:
                raise
            return Point(kept=kept, drop=0.0, latency=1.0, low=1.0, high=1.0)  # nothing is left to quantize: the parent
        path = context.folder / quantize.FILE
        after = self._scores(OrtSession(path, threads=context.environment.cores))
        found = pace(self.single, OrtSession(path), self.samples, batch=self.config.batch, pairs=_PAIRS)
        return Point(
            kept=kept, drop=float(np.mean(self.before - after)), latency=found.ratio, low=found.low, high=found.high
        )

    def _scores(self, session: Session) -> Array:
        if self.context.score is None:
            raise StageError("this stage needs the recipe's metric", next_step="build it from a recipe")
        return scores(session, self.samples, self.context.score)


def _refusal(choice: Choice, config: MixedConfig) -> str:
    if choice.chosen is None:
        best = min(choice.points, key=lambda point: point.drop)
        found = f"the best drops {best.drop:.4f}"
        return f"of {len(choice.points)} candidates none keeps a drop of {config.quality_drop}; {found}"
    best = choice.chosen
    return f"no candidate within the floor is faster than the parent; the best takes {best.latency:.2f} of its time"
