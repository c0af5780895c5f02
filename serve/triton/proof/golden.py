"""Golden replay: known inputs through the server must give the answers that the artifact gives in process.

Compares and reports; whether the model is any good is quality's question, not this room's. What it proves is that the
server runs these very bytes as they were meant: right version, rows of a batch kept apart, every output there.
"""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass

import numpy as np

from optimize import scratch
from optimize.artifact import Artifact, TensorSpec
from optimize.environment import home
from optimize.errors import ConfigError
from optimize.samples import Array, Samples
from optimize.store import Store

from ...errors import RequestError
from ..compiler.rules import model_file
from ..control import Control

Answer = Callable[[Mapping[str, Array]], Mapping[str, Array]]

# Two runs of one graph on one machine differ by the order of sums only, which the batch size may change.
RELATIVE, ABSOLUTE = 1e-3, 1e-4


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
    """What a replay found: `requests` sent in all, at each of `batch_sizes`; the largest difference seen; failures."""

    model: str
    version: str
    batch_sizes: tuple[int, ...]
    requests: int
    largest: float
    differences: tuple[Difference, ...]

    @property
    def passed(self) -> bool:
        """Whether something was compared and every answer was within tolerance."""
        return self.requests > 0 and not self.differences

    def __str__(self) -> str:
        head = f"{self.model} version {self.version}: {self.requests} golden requests at batch {list(self.batch_sizes)}"
        if self.passed:
            return f"{head} agree (largest difference {self.largest:.3g})"
        worst = "; ".join(f"sample {each.sample} at batch {each.batch}, {each.why}" for each in self.differences[:5])
        return f"{head}: {len(self.differences)} answers differ: {worst or 'nothing was compared'}"


def replay(
    control: Control,
    artifact: Artifact,
    samples: Samples,
    *,
    store: Store,
    model: str,
    version: int | str,
    max_batch_size: int,
    threads: int = 1,
    between: tuple[int, ...] = (),
    relative: float = RELATIVE,
    absolute: float = ABSOLUTE,
) -> GoldenReport:
    """Every sample at batch 1 and all of them at `max_batch_size`, through the server and through ONNX Runtime here.

    `between` are further batch sizes, for a model that batches.

    Raises:
        IntegrityError: the store's bytes are damaged.
        ServerError: the server went away.
        ConfigError: the artifact is none that ONNX Runtime runs (an engine: replay against its ONNX parent's session
            with `compare`), or an input of it is not among the samples.
    """
    if artifact.format != "onnx":
        raise ConfigError(
            f"golden answers come from ONNX Runtime, and {artifact.short} is {artifact.format}",
            where=model,
            next_step="replay against the ONNX artifact that it was compiled from",
        )
    from optimize.sessions.on_ort import OrtSession

    def serve(inputs: Mapping[str, Array]) -> Mapping[str, Array]:
        batching = max_batch_size > 0  # Triton shows a per-item scalar as an axis of one
        outside = {name: array[:, None] if batching and array.ndim == 1 else array for name, array in inputs.items()}
        return control.infer(model, version, outside)

    with scratch.folder("golden", home() / "work") as folder:  # weights outside the graph are found by their names
        store.materialize(artifact, folder)
        session = OrtSession(folder / model_file(artifact), threads=threads)
        sizes = _sizes(artifact.inputs, samples, max_batch_size, between)
        return gathered(
            model,
            version,
            sizes,
            lambda batch: compare(serve, session.run, samples, artifact.inputs, batch, relative, absolute),
        )


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
    relative: float = RELATIVE,
    absolute: float = ABSOLUTE,
) -> Compared:
    """Ask both for all samples in requests of `batch` rows; the rows of each request, and what was measured.

    The last request is filled up from the first samples. A measured `Difference` with an empty `why` is in tolerance.

    Raises:
        ConfigError: an input of the model is not among the samples.
    """
    missing = [spec.name for spec in inputs if spec.name not in samples.inputs]
    if missing:
        raise ConfigError(
            f"the golden samples lack the inputs {missing}", next_step=f"they hold {sorted(samples.inputs)}"
        )
    for start in range(0, len(samples), batch):
        rows = [row % len(samples) for row in range(start, start + batch)]
        request = {spec.name: _pick(samples.inputs[spec.name], rows, spec) for spec in inputs}
        expected = reference(request)
        try:
            answer = serve(request)
        except RequestError as error:
            yield rows, [Difference(batch=batch, sample=rows[0], output="", largest=float("inf"), why=error.what)]
            continue
        yield (
            rows,
            [_measure(name, array, answer.get(name), rows, relative, absolute) for name, array in expected.items()],
        )


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
    return picked[0] if len(rows) == 1 and picked.ndim == len(spec.shape) + 1 else picked


def _measure(
    name: str, expected: Array, answer: Array | None, rows: list[int], relative: float, absolute: float
) -> Difference:
    """The largest difference of one output, and the sample it is in."""

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
    exact = not np.issubdtype(expected.dtype, np.floating)
    got, want = answer.astype(np.float64), expected.astype(np.float64)
    same = (got == want) | (np.isnan(got) & np.isnan(want))  # an infinity equals itself
    with np.errstate(invalid="ignore"):
        distance = np.where(same, 0.0, np.nan_to_num(np.abs(got - want), nan=np.inf))
        excess = distance if exact else distance - (absolute + relative * np.where(same, 0.0, np.abs(want)))
    at = int(np.argmax(excess))
    largest = float(distance.max())
    if float(excess.flat[at]) <= 0:
        return wrong(largest, "")
    row = at // (expected.size // len(rows)) if expected.shape[:1] == (len(rows),) else 0
    return wrong(largest, f"output {name} differs by {float(distance.flat[at]):.3g}", rows[row])
