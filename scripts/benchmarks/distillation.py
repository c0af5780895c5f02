"""Distilled against trained from scratch: the scenes student, equal budget, paired over seeds.

Both arms start from the same weights, see the same scenes in the same order for as many steps; they differ in the loss
alone: the teacher's answers beside the labels, or the labels only. Accuracy is of held-out scenes.

    python scripts/benchmarks/distillation.py --seeds 5 --json
"""

import argparse
import json
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path

import numpy as np
import torch
from scipy import stats

from seatrial.optimize.artifact import Artifact
from seatrial.optimize.building.source import make_source
from seatrial.optimize.environment import environment, now
from seatrial.optimize.quality import scores
from seatrial.optimize.recipe.configs import DistillConfig, Training
from seatrial.optimize.recipe.data import Data
from seatrial.optimize.recipe.metrics import accuracy
from seatrial.optimize.recipe.recipe import Recipe, load_recipe
from seatrial.optimize.samples import Samples, checked
from seatrial.optimize.sessions.on_torch import TorchSession, build_module
from seatrial.optimize.stages.training_job import TrainingJob, learn
from seatrial.optimize.store import Store

ROOT = Path(__file__).parent.parent.parent
RECIPE = ROOT / "optimize" / "recipes" / "scenes-int8.toml"
STUDENT = "../../scripts/models/scenes.py:student"


@dataclass(frozen=True, slots=True, kw_only=True)
class Comparison:
    """Accuracies per seed, and the t interval of the mean paired difference (distilled minus scratch)."""

    seeds: tuple[int, ...]
    distilled: tuple[float, ...]
    scratch: tuple[float, ...]
    difference: float
    low: float
    high: float
    confidence: float

    @property
    def better(self) -> bool:
        """True if the distilled student is better and the interval excludes zero."""
        return self.low > 0


def distilled_and_scratch(
    seeds: Sequence[int], *, rows: int = 16000, epochs: int = 3, learning_rate: float = 6e-3, confidence: float = 0.95
) -> Comparison:
    """Train both arms once per seed on `rows` scenes drawn with that seed; at least two seeds.

    Every seed has scenes, first weights and order of its own, shared by its two arms.
    """
    recipe = load_recipe(RECIPE)
    budget = {"epochs": epochs, "learning_rate": learning_rate}
    arms = {"distilled": Training(**budget), "scratch": Training(**budget, soft_weight=0.0)}  # type: ignore[arg-type]
    reached: dict[str, list[float]] = {name: [] for name in arms}
    torch.set_num_threads(environment().cores)
    with tempfile.TemporaryDirectory(prefix="seatrial-distillation-") as folder:
        store = Store(Path(folder) / "store")
        teacher = _teacher(recipe, store, Path(folder) / "files")
        held_out = _scenes(recipe, "evaluation", 4000, recipe.seed)
        for seed in seeds:
            scenes = _scenes(recipe, "train", rows, seed)
            for name, training in arms.items():
                config = DistillConfig(kind="distill", student=STUDENT, training=training)
                torch.manual_seed(seed)
                module = build_module(recipe.reference(STUDENT), {})
                lesson = TrainingJob(
                    config=config, teacher=teacher, samples=scenes, store=store, seed=seed, checkpoint=None
                )
                learn(lesson, module, partial(_show, f"seed {seed} {name}"))
                session = TorchSession(module, teacher.inputs, teacher.outputs, threads=environment().cores)
                reached[name].append(
                    float(scores(session, held_out, lambda outputs, labels: accuracy(outputs["logits"], labels)).mean())
                )
    return compared(seeds, reached["distilled"], reached["scratch"], confidence)


def compared(
    seeds: Sequence[int], distilled: Sequence[float], scratch: Sequence[float], confidence: float
) -> Comparison:
    """The paired t interval over seeds (Student, n - 1 degrees of freedom)."""
    gains = np.subtract(distilled, scratch)
    margin = stats.t.ppf((1 + confidence) / 2, len(gains) - 1) * gains.std(ddof=1) / np.sqrt(len(gains))
    return Comparison(
        seeds=tuple(seeds),
        distilled=tuple(distilled),
        scratch=tuple(scratch),
        difference=float(gains.mean()),
        low=float(gains.mean() - margin),
        high=float(gains.mean() + margin),
        confidence=confidence,
    )


def _teacher(recipe: Recipe, store: Store, folder: Path) -> Artifact:
    folder.mkdir()
    return store.put(make_source(recipe, Data(recipe, store, environment()), folder, environment()), folder)


def _scenes(recipe: Recipe, split: str, rows: int, seed: int) -> Samples:
    loader = recipe.reference(recipe.data.loader)
    return checked(split, loader.call(split, rows, seed), loader.text)


def _show(arm: str, share: float, text: str) -> None:
    if sys.stderr.isatty():
        print(f"\r{arm}: {share:4.0%} {text}   ", end="" if share < 1 else "\n", file=sys.stderr, flush=True)


def main() -> int:
    """Run, print, and exit 0 where the distilled student is better."""
    parser = argparse.ArgumentParser(description="Distilled against trained from scratch on the scenes.")
    parser.add_argument("--seeds", type=int, default=5, help="how many, from 1 on")
    parser.add_argument("--rows", type=int, default=16000, help="training scenes per seed")
    parser.add_argument("--epochs", type=int, default=3)
    parser.add_argument("--json", action="store_true", help="print one JSON document")
    arguments = parser.parse_args()
    found = distilled_and_scratch(range(1, arguments.seeds + 1), rows=arguments.rows, epochs=arguments.epochs)
    if arguments.json:
        print(json.dumps(asdict(found) | {"better": found.better}, indent=1))
    else:
        print(f"{now()}, {environment().cpu}, {arguments.rows} scenes, {arguments.epochs} epochs")
        for seed, mine, other in zip(found.seeds, found.distilled, found.scratch, strict=True):
            print(f"seed {seed}: distilled {mine:.4f}, from scratch {other:.4f}")
        print(f"difference {100 * found.difference:.2f} pp [{100 * found.low:.2f}, {100 * found.high:.2f}]")
    return 0 if found.better else 1


if __name__ == "__main__":
    sys.exit(main())
