"""Search on models that nobody tuned: init, then search, beside other tools' results in the same engine or their own.

Every way to run a model is timed beside fp32 in ONNX Runtime at batch 8, one thread, interleaved; errors are signal to
noise on the same samples, and a way below the floor counts for nobody. Tools that are not installed are named absent.
"""

import sys
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from importlib import import_module
from importlib.util import find_spec
from math import exp, log, sqrt
from pathlib import Path
from typing import Any

from scripts.benchmarks.rows import Row, Rows
from scripts.benchmarks.strangers import MODELS, written
from seatrial.optimize.artifact import Artifact
from seatrial.optimize.building.build import build
from seatrial.optimize.building.built import choice_of
from seatrial.optimize.draft.draft import draft
from seatrial.optimize.draft.engines import others as engines_here
from seatrial.optimize.environment import environment
from seatrial.optimize.parity.signal import MOST, SignalToNoise
from seatrial.optimize.recipe.data import Data
from seatrial.optimize.recipe.recipe import load_recipe
from seatrial.optimize.samples import Samples
from seatrial.optimize.search.alternatives import compare
from seatrial.optimize.sessions.session import Session, open_onnx, open_session
from seatrial.optimize.store import Store
from seatrial.optimize.timing.pace import LatencyRatio, pace

NAME = "search-any"
BATCH, PAIRS = 8, 36
SNR = 18.0
_SLOWER = 1.03
_DRAFT = 1.05
_TOOLS = {"OpenVINO": "openvino", "NNCF": "nncf", "Olive": "olive", "neural-compressor": "neural_compressor"}


@dataclass(frozen=True, slots=True, kw_only=True)
class Way:
    """One way to run a model: an open session, its time over fp32's, and its signal to noise in dB."""

    name: str
    session: Session
    time: LatencyRatio
    snr: float

    def __str__(self) -> str:
        return f"{self.name} {self.time.ratio:.2f} ({self.snr:.0f} dB)"


@dataclass(frozen=True, slots=True, kw_only=True)
class Walk:
    """Results of one model: ours, the draft alone, other tools; and ours and the draft over the best of the others."""

    model: str
    ours: Way
    drafted: Way
    others: tuple[Way, ...]
    failed: Mapping[str, str]
    over_best: LatencyRatio
    best: str
    draft_over_best: LatencyRatio
    best_by_hand: str

    def __str__(self) -> str:
        failed = "".join(f"; {name}: {why}" for name, why in self.failed.items())
        others = ", ".join(map(str, self.others))
        return (
            f"{self.model}: {self.ours}, over the best tool ({self.best}) {shown(self.over_best)}; "
            f"{self.drafted}, over the best by hand ({self.best_by_hand}) {shown(self.draft_over_best)}; "
            f"{others}{failed}"
        )


class _Stranger:
    """One model in a folder of its own: drafted, searched, and run in every other way."""

    def __init__(self, model: str, folder: Path) -> None:
        self.model, self.folder = model, folder
        folder.mkdir()
        self.file = written(model, folder)
        self.recipe = load_recipe(draft(str(self.file), folder / "mine")[0])
        self.store = Store(folder / "home" / "store")
        self.samples = Data(self.recipe, self.store, environment()).samples("evaluation")
        self.calibration = Data(self.recipe, self.store, environment()).samples("calibration")

    def walk(self) -> Walk:
        """Search, build the draft, and time everything."""
        found = compare(self.recipe, self.store)
        assert found.winner is not None
        won = load_recipe(found.files[found.winner.number])
        made = build(won, self.store, tag=False)
        self.floats = made.reference.artifact
        self.reference = open_session(self.floats, self.store)
        opened = open_session(made.artifact, self.store, choice=choice_of(won))
        ours = self._way(f"search ({found.winner.chosen['candidate']})", opened)
        alone = build(self.recipe, self.store, tag=False).artifact
        drafted = self._way(f"draft ({_method(alone, self.floats)})", open_session(alone, self.store))
        fp32 = Way(name="fp32", session=self.reference, time=_same(), snr=MOST)
        others, failed = [fp32], {}
        for name, opening in self._tools():
            try:
                others.append(self._way(name, opening()))
            except Exception as error:  # noqa: BLE001  tools raise anything, and a failure of theirs is a result
                failed[name] = f"{type(error).__name__} {str(error).strip().partition(chr(10))[0][:80]}"
        best = _best(others)
        by_hand = _best([each for each in others if each.name == "fp32" or each.name.endswith("by hand")])
        return Walk(
            model=self.model,
            ours=ours,
            drafted=drafted,
            others=tuple(others[1:]),
            failed=failed,
            over_best=self._over(best, ours),
            best=best.name,
            draft_over_best=self._over(by_hand, drafted),
            best_by_hand=by_hand.name,
        )

    def _way(self, name: str, session: Session) -> Way:
        time = pace(self.reference, session, self.samples, batch=BATCH, pairs=PAIRS)
        return Way(name=name, session=session, time=time, snr=_snr(self.reference, session, self.samples))

    def _over(self, one: Way, other: Way) -> LatencyRatio:
        return pace(one.session, other.session, self.samples, batch=BATCH, pairs=PAIRS)

    def _tools(self) -> Iterator[tuple[str, Callable[[], Session]]]:
        yield "ORT dynamic by hand", lambda: open_onnx(self._by_hand("dynamic.onnx", _dynamic)).session
        yield "ORT static by hand", lambda: open_onnx(self._by_hand("static.onnx", self._static)).session
        for engine in (each for each in engines_here() if each.startswith("openvino")):
            yield engine, lambda engine=engine: open_onnx(self.file, engine=engine).session  # type: ignore[misc]
        if find_spec("nncf") is not None and find_spec("openvino") is not None:
            yield "NNCF", lambda: self._nncf()

    def _by_hand(self, name: str, make: Callable[[Path, Path], None]) -> Path:
        path = self.folder / name
        make(self.file, path)
        return path

    def _static(self, source: Path, target: Path) -> None:
        from onnxruntime.quantization import CalibrationDataReader, QuantFormat, QuantType, quantize_static

        rows = iter([dict(part.inputs) for part in self.calibration.batches(BATCH)])

        class Reader(CalibrationDataReader):  # type: ignore[misc]
            def get_next(self) -> Any:
                return next(rows, None)

        types = {"activation_type": QuantType.QUInt8, "weight_type": QuantType.QInt8}
        quantize_static(str(source), str(target), Reader(), quant_format=QuantFormat.QDQ, per_channel=True, **types)

    def _nncf(self) -> Session:
        import openvino

        from seatrial.optimize.sessions.on_openvino import OpenVinoSession

        nncf = import_module("nncf")
        rows = [dict(part.inputs) for part in self.calibration.batches(BATCH)]
        made = nncf.quantize(openvino.Core().read_model(str(self.file)), nncf.Dataset(rows))
        openvino.save_model(made, str(self.folder / "nncf.xml"))
        return OpenVinoSession(self.folder / "nncf.xml", precision="bf16")


def _dynamic(source: Path, target: Path) -> None:
    from onnxruntime.quantization import QuantType, quantize_dynamic

    quantize_dynamic(str(source), str(target), per_channel=True, weight_type=QuantType.QInt8)


def _snr(reference: Session, session: Session, samples: Samples) -> float:
    found = SignalToNoise()
    for part in samples.batches(BATCH):
        found.add(reference.run(part.copied()), session.run(part.copied()))
    return found.decibels


def _best(ways: Sequence[Way]) -> Way:
    return min((each for each in ways if each.snr >= SNR), key=lambda each: each.time.ratio)


def _method(artifact: Artifact, floats: Artifact) -> str:
    return "fp32" if artifact.digest == floats.digest else str(artifact.made_by.notes.get("method"))


def _same() -> LatencyRatio:
    return LatencyRatio(ratio=1.0, low=1.0, high=1.0, seconds=0.0, reference_seconds=0.0, batch=BATCH, pairs=0)


_walked: dict[str, Walk] = {}


def _walks(models: Sequence[str]) -> list[Walk]:
    """Walk each model once for all rows."""
    for model in models:
        if model not in _walked:
            with tempfile.TemporaryDirectory(prefix=f"seatrial-{model}-") as folder:
                _walked[model] = _Stranger(model, Path(folder) / "model").walk()
            print(_walked[model], file=sys.stderr, flush=True)
    return [_walked[model] for model in models]


def rows(models: Sequence[str]) -> Rows:
    """Return the rows over these models: the mean, the best tools, fp32, and the draft alone."""

    def made(row: Callable[[Sequence[Walk]], Row]) -> Callable[[Path], Row]:
        return lambda _: row(_walks(models))

    return {
        NAME: made(_mean),
        f"{NAME}-tools": made(_tools),
        f"{NAME}-fp32": made(_fp32),
        f"{NAME}-draft": made(_draft),
    }


def _mean(walks: Sequence[Walk]) -> Row:
    count = len(walks)
    mean = exp(sum(log(each.ours.time.ratio) for each in walks) / count)
    half = sqrt(sum(log(each.ours.time.high / each.ours.time.ratio) ** 2 for each in walks)) / count
    absent = [name for name, package in _TOOLS.items() if find_spec(package) is None]
    each = ", ".join(f"{walk.model} {walk.ours.time.ratio:.2f}" for walk in walks)
    return Row(
        name=NAME,
        claim=f"search after init on {count} of {len(MODELS)} models, batch {BATCH}, >= {SNR:.0f} dB, mean vs fp32",
        value=f"{mean:.3f} (upper end {mean * exp(half):.3f}): {each}; absent: {', '.join(absent) or 'no tool'}",
        bar="<= 0.40 over all models",
        met=mean * exp(half) <= 0.40 and count == len(MODELS) and _within(walks),
    )


def _tools(walks: Sequence[Walk]) -> Row:
    slower = [each for each in walks if each.over_best.low > _SLOWER]
    worst = max(walks, key=lambda each: each.over_best.ratio)
    return Row(
        name=f"{NAME}-tools",
        claim="search never more than 3 % slower than the best tool at the same floor",
        value=f"worst {worst.model} {shown(worst.over_best)} of {worst.best}; {len(slower)} of {len(walks)} slower",
        bar=f"no interval above {_SLOWER}",
        met=not slower,
    )


def _fp32(walks: Sequence[Walk]) -> Row:
    slower = [each.model for each in walks if each.ours.time.low > 1]
    worst = max(walks, key=lambda each: each.ours.time.ratio)
    return Row(
        name=f"{NAME}-fp32",
        claim="search never slower than fp32 and never below the floor",
        value=f"worst {worst.model} {shown(worst.ours.time)}; slower: {', '.join(slower) or 'none'}",
        bar="no interval above 1",
        met=not slower and _within(walks),
    )


def _draft(walks: Sequence[Walk]) -> Row:
    slower = [each.model for each in walks if each.draft_over_best.low > _DRAFT]
    lost = [each.model for each in walks if each.drafted.snr < SNR]
    each = ", ".join(f"{walk.model} {shown(walk.draft_over_best)}" for walk in walks)
    return Row(
        name=f"{NAME}-draft",
        claim="the drafted recipe alone in ONNX Runtime vs the best of fp32, dynamic and static U8S8 by hand",
        value=f"{each}; slower: {', '.join(slower) or 'none'}; below {SNR:.0f} dB: {', '.join(lost) or 'none'}",
        bar=f"no interval above {_DRAFT}",
        met=not slower and not lost,
    )


def _within(walks: Sequence[Walk]) -> bool:
    return all(each.ours.snr >= SNR for each in walks)


def shown(ratio: LatencyRatio) -> str:
    """``0.412 [0.400, 0.425]``."""
    return f"{ratio.ratio:.3f} [{ratio.low:.3f}, {ratio.high:.3f}]"
