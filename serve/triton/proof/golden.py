"""Golden replay: known inputs through the server must give the answers that the artifact gives in process.

Compares and reports; whether the model is any good is quality's question, not this room's. What it proves is that the
server runs these very bytes as they were meant: right version, rows of a batch kept apart, every output there.
"""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

import numpy as np

from seatrial.optimize import scratch
from seatrial.optimize.artifact import Artifact, TensorSpec
from seatrial.optimize.environment import home
from seatrial.optimize.errors import ConfigError, SeatrialError
from seatrial.optimize.intake.axes import free, mismatch, other_sizes, resized, sizes_of
from seatrial.optimize.parity.measures import Spread, is_float, spread_of
from seatrial.optimize.samples import Array, Samples
from seatrial.optimize.sessions.engine import ModelFiles, Session, engine_of, opened
from seatrial.optimize.store import Store

from ...errors import RequestError
from .. import engines
from ..compiler.rules import model_file
from ..control import Control

Answer = Callable[[Mapping[str, Array]], Mapping[str, Array]]

_VISIBLE, _FINE = (
    0.1,
    0.01,
)  # of an output's own spread: what rows that are mixed up would show, what is small beside it
_ROUNDING = {2: 4e-3, 4: 1e-5, 8: 1e-5}  # of its size, by bytes of its type


@dataclass(frozen=True, slots=True, kw_only=True)
class GoldenTolerance:
    """Allowed difference of a value: `relative` times its size plus `absolute`.

    Two runs of one graph on one machine differ by the order of sums only, which the batch size may change.
    """

    relative: float = 1e-3
    absolute: float = 1e-4


TOLERANCE = GoldenTolerance()
BF16 = GoldenTolerance(relative=2e-2, absolute=1e-2)
"""For an engine that computes in bfloat16 (8 bits of mantissa): sums in another order differ by more. Chosen."""
ANSWERING = ("onnx", "torch-export")
"""Formats of artifacts whose answers this process can compute."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ServedModel:
    """A version of a model as the server has it; `max_batch_size` is 0 where it does not batch.

    `engine` are the options of the engine that serves it (`Placement.engine`).
    """

    name: str
    version: int | str
    max_batch_size: int
    engine: engines.Options | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Difference:
    """One output of one request that is not what the reference gave.

    `sample` is the row's index among the golden samples, `batch` the rows of the request. `largest` is the largest
    absolute difference: infinite for a missing output, another shape or type, or NaN on one side only.
    """

    batch: int
    sample: int
    output: str
    largest: float
    why: str


Compared = Iterator[tuple[list[int], list[Difference]]]


@dataclass(frozen=True, slots=True, kw_only=True)
class GoldenReport:
    """Result of a replay: `requests` sent in total, at each of `batch_sizes`; the largest difference; failures.

    `lengths` are further sizes of free axes, each tried beside the samples' own.
    """

    model: str
    version: str
    batch_sizes: tuple[int, ...]
    requests: int
    largest: float
    differences: tuple[Difference, ...]
    lengths: tuple[str, ...] = ()

    def joined(self, other: "GoldenReport") -> "GoldenReport":
        """This report with what another found of the same model."""
        return replace(
            self,
            requests=self.requests + other.requests,
            largest=max(self.largest, other.largest),
            differences=(*self.differences, *other.differences),
        )

    @property
    def passed(self) -> bool:
        """Return whether at least one answer was compared and all were within tolerance."""
        return self.requests > 0 and not self.differences

    def __str__(self) -> str:
        head = f"{self.model} version {self.version}: {self.requests} golden requests at batch {list(self.batch_sizes)}"
        if self.passed:
            return f"{head} agree (largest difference {self.largest:.3g})"
        worst = "; ".join(f"sample {each.sample} at batch {each.batch}, {each.why}" for each in self.differences[:5])
        return f"{head}: {len(self.differences)} answers differ: {worst or 'no answer was compared'}"


def replay(
    control: Control,
    artifact: Artifact,
    samples: Samples,
    *,
    store: Store,
    model: ServedModel,
    threads: int = 1,
    between: tuple[int, ...] = (),
    tolerance: GoldenTolerance | None = None,
) -> GoldenReport:
    """Every sample at batch 1 and all of them at the largest, through the server and through the same engine here.

    `between` are further batch sizes, for a model that batches. `tolerance` is by default that of the engine.

    Raises:
        IntegrityError: the store's bytes are damaged.
        ServerError: the server went away.
        ContractError: the engine is not installed here.
        ConfigError: the artifact is none that this process runs (a TensorRT engine: replay against its ONNX parent's
            session with `compare`), or an input of it is not among the samples.
    """
    if artifact.format not in ANSWERING:
        raise ConfigError(
            f"golden answers come from {' or '.join(ANSWERING)} artifacts, but {artifact.short} is {artifact.format}",
            where=model.name,
            next_step="replay against the ONNX artifact that it was compiled from",
        )
    allowed = tolerance or (BF16 if engines.in_process(model.engine).endswith("bf16") else TOLERANCE)

    def serve(inputs: Mapping[str, Array]) -> Mapping[str, Array]:
        scalar = 1 if model.max_batch_size > 0 else 0  # the rank of what Triton shows with an axis of one more
        outside = {name: array[..., None] if array.ndim == scalar else array for name, array in inputs.items()}
        return control.infer(model.name, model.version, outside)

    with scratch.folder("golden", home() / "work") as folder:  # weights outside the graph are found by their names
        store.materialize(artifact, folder)
        session = _session(artifact, folder, threads, engines.in_process(model.engine))
        sizes = _sizes(artifact.inputs, samples, model.max_batch_size, between)

        def compared(batch: int, held: Samples = samples) -> Compared:
            declared = artifact.outputs
            return compare(serve, session.run, held, artifact.inputs, batch, allowed, declared=declared)

        others = lengths(artifact.inputs, samples, session.run, sizes[0])
        report = gathered(model.name, model.version, sizes, compared)
        for held in others.values():
            report = report.joined(gathered(model.name, model.version, sizes[:1], partial(compared, held=held)))
        return replace(report, lengths=tuple(others))


def _session(artifact: Artifact, folder: Path, threads: int, engine: str) -> Session:
    """Open the artifact's files in `folder` in the engine of that name, or its format's own."""
    files = ModelFiles(
        format=artifact.format,
        file=lambda name: folder / model_file(artifact),
        names=frozenset(file.path for file in artifact.files),
        inputs=artifact.inputs,
        outputs=artifact.outputs,
    )
    return opened(engine_of(artifact.format, engine), files, threads=threads).session


def gathered(
    model: str, version: int | str, sizes: tuple[int, ...], compared: Callable[[int], Compared]
) -> GoldenReport:
    """The report of what `compared` finds at each batch size."""
    requests, largest, differences = 0, 0.0, []
    for batch in sizes:
        for _, found in compared(batch):
            requests += 1
            largest = max([largest, *(each.largest for each in found)])
            differences += [each for each in found if each.why]
    return GoldenReport(
        model=model,
        version=str(version),
        batch_sizes=sizes,
        requests=requests,
        largest=largest,
        differences=tuple(differences),
    )


def compare(
    serve: Answer,
    reference: Answer,
    samples: Samples,
    inputs: tuple[TensorSpec, ...],
    batch: int,
    tolerance: GoldenTolerance = TOLERANCE,
    *,
    declared: tuple[TensorSpec, ...] = (),
) -> Compared:
    """Ask both for all samples in requests of `batch` rows; the rows of each request, and what was measured.

    The last request is filled up from the first samples. A measured `Difference` with an empty `why` is in tolerance.
    `declared` are the outputs as the configuration names them: answers of another shape are a difference.

    Raises:
        ConfigError: an input of the model is not among the samples.
    """
    missing = [spec.name for spec in inputs if spec.name not in samples.inputs]
    if missing:
        raise ConfigError(
            f"the golden samples lack the inputs {missing}", next_step=f"available inputs: {sorted(samples.inputs)}"
        )
    asked = []
    for start in range(0, len(samples), batch):
        rows = [row % len(samples) for row in range(start, start + batch)]
        request = {spec.name: _pick(samples.inputs[spec.name], rows, spec) for spec in inputs}
        asked.append((rows, request, reference(request)))
    spreads = _spreads([expected for _, _, expected in asked], batch)
    for rows, request, expected in asked:
        try:
            answer = serve(request)
        except RequestError as error:
            yield rows, [Difference(batch=batch, sample=rows[0], output="", largest=float("inf"), why=error.what)]
            continue
        found = [
            _measure(name, array, answer.get(name), rows, spreads.get(name), tolerance)
            for name, array in expected.items()
        ]
        yield rows, [*found, *_undeclared(declared, expected, sizes_of(inputs, request), rows)]


def _undeclared(
    declared: tuple[TensorSpec, ...], expected: Mapping[str, Array], sizes: Mapping[str, int], rows: list[int]
) -> Iterator[Difference]:
    """Every output whose shape is not the one that the configuration names."""
    for spec in declared:
        if spec.name in expected and (why := mismatch(spec, expected[spec.name].shape, sizes)):
            yield Difference(
                batch=len(rows),
                sample=rows[0],
                output=spec.name,
                largest=float("inf"),
                why=f"output {spec.name}: {why}",
            )


def lengths(inputs: tuple[TensorSpec, ...], samples: Samples, run: Answer, batch: int) -> dict[str, Samples]:
    """Return samples of another size at which the model runs, for each free axis beside the batch, by name and size."""
    found: dict[str, Samples] = {}
    sizes = {dim: samples.inputs[name].shape[axis] for dim, name, axis in free(inputs, samples.inputs)}
    for dim, size in sizes.items():
        for other in other_sizes(size):
            held = replace(samples, inputs=resized(inputs, samples.inputs, {dim: other}))
            rows = [row % len(held) for row in range(batch)]
            try:
                run({spec.name: _pick(held.inputs[spec.name], rows, spec) for spec in inputs})
            except SeatrialError:
                continue
            found[f"{dim} {other}"] = held
            break
    return found


def _spreads(expected: list[Mapping[str, Array]], batch: int) -> dict[str, Spread]:
    """The spread of every float output over all samples, where its first axis is the sample."""
    found = {}
    for name in expected[0] if expected else ():
        parts = [each[name] if batch > 1 else each[name][None] for each in expected]
        if is_float(parts[0]) and len({part.shape for part in parts}) == 1 and parts[0].ndim and len(parts[0]):
            found[name] = spread_of(np.concatenate(parts))
    return found


def _sizes(
    inputs: tuple[TensorSpec, ...], samples: Samples, max_batch_size: int, between: tuple[int, ...] = ()
) -> tuple[int, ...]:
    """Batch 1 and the largest; for a model that does not batch, the rows that its fixed first axis wants."""
    if max_batch_size > 0:
        return tuple(sorted({1, *between, max_batch_size}))
    for spec in inputs:
        array = samples.inputs.get(spec.name)
        if array is not None and array.ndim == len(spec.shape) and isinstance(spec.shape[0], int):
            return (spec.shape[0],)
    return (1,)


def _pick(array: Array, rows: list[int], spec: TensorSpec) -> Array:
    """The rows as the model takes them: a single sample of a model without a batch axis loses the axis."""
    picked = np.ascontiguousarray(array[rows])
    return np.asarray(picked[0]) if len(rows) == 1 and picked.ndim == len(spec.shape) + 1 else picked


def _measure(
    name: str,
    expected: Array,
    answer: Array | None,
    rows: list[int],
    spread: Spread | None,
    tolerance: GoldenTolerance,
) -> Difference:
    """The largest difference of one output, and the sample it is in; arrays are [len(rows), ...]."""

    def wrong(largest: float, why: str, sample: int = rows[0]) -> Difference:
        return Difference(batch=len(rows), sample=sample, output=name, largest=largest, why=why)

    if answer is None:
        return wrong(float("inf"), f"output {name} is missing")
    if answer.shape == (*expected.shape, 1):
        answer = answer.reshape(expected.shape)
    if answer.shape != expected.shape or answer.dtype != expected.dtype:
        shapes = f"{answer.dtype}{list(answer.shape)}, not {expected.dtype}{list(expected.shape)}"
        return wrong(float("inf"), f"output {name} is {shapes}")
    if expected.size == 0:
        return wrong(0.0, "")
    distance, excess = _distances(expected, answer, spread, tolerance)
    at = int(np.argmax(excess))
    largest = float(distance.max())
    if float(excess.flat[at]) <= 0:
        return wrong(largest, "")
    row = at // (expected.size // len(rows)) if expected.shape[:1] == (len(rows),) else 0
    return wrong(largest, f"output {name} differs by {float(distance.flat[at]):.3g}", rows[row])


def _distances(
    expected: Array, answer: Array, spread: Spread | None, tolerance: GoldenTolerance
) -> tuple[Array, Array]:
    """Return each value's distance from the expected one, and its excess over the tolerance; of `expected`'s shape.

    Both parts of `tolerance` are allowed together, and never more than the output's own spread can tell: a tenth of it,
    of which rounding is always allowed. Whole numbers and texts are equal or 1 apart at least.
    """
    if not is_float(expected):
        apart = np.asarray(_plain(expected) != _plain(answer), dtype=np.float64)
        if expected.dtype.kind in "iu":
            apart = np.where(apart, np.maximum(np.abs(expected.astype(np.float64) - answer.astype(np.float64)), 1), 0.0)
        return apart, apart
    got, want = answer.astype(np.float64), expected.astype(np.float64)
    known = np.isfinite(got) & np.isfinite(want)
    same = (got == want) | (np.isnan(got) & np.isnan(want))  # an infinity equals itself
    sizes, apart = np.abs(np.where(known, want, 0.0)), np.where(known, got, 0.0) - np.where(known, want, 0.0)
    distance = np.where(same, 0.0, np.where(known, np.abs(apart), np.inf))
    allowed = tolerance.relative * sizes + tolerance.absolute
    if spread is not None and spread.size:
        rounding = _ROUNDING.get(expected.dtype.itemsize, _ROUNDING[4])
        allowed = tolerance.relative * sizes + min(tolerance.absolute, _FINE * spread.whole)
        far = spread.far.reshape(expected.shape[1:] if len(spread.far) != expected.size else expected.shape)
        seen = np.maximum(_VISIBLE * spread.whole, rounding * np.maximum(sizes, spread.size))
        allowed = np.where(sizes < far, np.minimum(allowed, seen), allowed)
    return distance, distance - allowed


def _plain(array: Array) -> Array:
    """Texts as str, whether they came as bytes or not; other values as they are."""
    if array.dtype.kind not in "OSU":
        return array
    texts = [each.decode(errors="replace") if isinstance(each, bytes) else str(each) for each in array.reshape(-1)]
    return np.array(texts, dtype=np.object_).reshape(array.shape)
