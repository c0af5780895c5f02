"""Calibration: runs a model over samples batch by batch and keeps statistics of tensors, never the tensors.

Memory is bounded: bins are of a fixed number, and tensors are exposed in groups that fit a budget at one batch.
"""

from collections.abc import Callable, Collection, Iterator, Sequence
from pathlib import Path

import numpy as np
import onnx

from ..samples import Array, Samples
from ..sessions.on_ort import OrtSession
from .histogram import Histogram
from .statistics import Statistics

BATCH = 32
_BUDGET = 256 << 20  # bytes of exposed tensors per run
Report = Callable[[float], None]


def collect(
    model: onnx.ModelProto,
    tensors: Sequence[str],
    channels: Collection[str],
    samples: Samples,
    *,
    folder: Path,
    threads: int,
    report: Report = lambda share: None,
) -> Statistics:
    """Histograms of `tensors`, and magnitudes per channel of those also in `channels`, over all samples."""
    found = Statistics()
    groups = _groups(model, tensors, samples, folder, threads)
    for number, group in enumerate(groups):
        session = _exposing(model, group, folder, threads)
        done = 0
        for batch in batches(model, samples):
            values = session.run(batch.inputs)
            found = found.merge(_observe({name: values[name] for name in group}, channels))
            done += len(batch)
            report((number + done / len(samples)) / len(groups))
    return found


def means(
    model: onnx.ModelProto, tensors: Sequence[str], samples: Samples, *, folder: Path, threads: int
) -> dict[str, Array]:
    """The mean over samples, [channels], of small tensors that each hold a mean over their batch."""
    session = _exposing(model, tensors, folder, threads)
    totals: dict[str, Array] = {}
    seen = 0
    for batch in batches(model, samples):
        values = session.run(batch.inputs)
        seen += len(batch)
        for name in tensors:
            mean = values[name].astype(np.float64)
            mean = mean.mean(axis=0) if mean.ndim > 1 else mean  # a run for each sample, stacked
            totals[name] = totals.get(name, 0.0) + mean * len(batch)
    return {name: total / seen for name, total in totals.items()}


def rows(
    model: onnx.ModelProto, tensors: Sequence[str], samples: Samples, *, folder: Path, threads: int, most: int = 512
) -> dict[str, Array]:
    """About `most` activations of each tensor, [rows, channels], spread evenly over the samples."""
    found: dict[str, list[Array]] = {name: [] for name in tensors}
    for group in _groups(model, tensors, samples, folder, threads):
        session = _exposing(model, group, folder, threads)
        for batch in batches(model, samples):
            share = max(1, most * len(batch) // len(samples))
            values = session.run(batch.inputs)
            for name in group:
                flat = values[name].reshape(-1, values[name].shape[-1])
                found[name].append(flat[:: max(1, len(flat) // share)][:share].copy())
    return {name: np.concatenate(parts) for name, parts in found.items() if parts}


def batches(model: onnx.ModelProto, samples: Samples) -> Iterator[Samples]:
    """Batches that the model takes: of its own size where that is fixed (what is left over is dropped), else of 32."""
    fixed = _fixed_batch(model)
    if fixed:
        return samples.take(len(samples) // fixed * fixed).batches(fixed)
    return samples.batches(BATCH)


def _fixed_batch(model: onnx.ModelProto) -> int:
    known = {tensor.name for tensor in model.graph.initializer}
    shapes = [value.type.tensor_type.shape.dim for value in model.graph.input if value.name not in known]
    return max((int(dims[0].dim_value) for dims in shapes if dims), default=0)


def _observe(values: dict[str, Array], channels: Collection[str]) -> Statistics:
    """Return each tensor's histogram, and of those in `channels` the largest magnitudes by channel, [channels]."""
    largest = {
        name: np.abs(array).max(axis=tuple(range(array.ndim - 1)), initial=0.0).astype(np.float64)
        for name, array in values.items()
        if name in channels and array.ndim
    }
    return Statistics(tensors={name: Histogram.of(array) for name, array in values.items()}, channels=largest)


def _groups(
    model: onnx.ModelProto, tensors: Sequence[str], samples: Samples, folder: Path, threads: int
) -> list[list[str]]:
    """Tensors packed by what they take at one batch, which one small run tells."""
    fixed = _fixed_batch(model)
    some = samples.take(fixed or 1)
    sizes = {name: value.nbytes for name, value in _exposing(model, tensors, folder, threads).run(some.inputs).items()}
    scale = 1 if fixed else min(BATCH, len(samples))
    groups: list[list[str]] = []
    room = 0
    for name in tensors:
        size = sizes[name] * scale
        if not groups or room < size:
            groups.append([])
            room = _BUDGET
        groups[-1].append(name)
        room -= size
    return groups


def _exposing(model: onnx.ModelProto, tensors: Sequence[str], folder: Path, threads: int) -> OrtSession:
    """A session whose outputs are these tensors."""
    exposed = onnx.ModelProto()
    exposed.CopyFrom(model)
    del exposed.graph.output[:]
    for name in tensors:
        exposed.graph.output.append(onnx.helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, None))
    path = folder / "exposed.onnx"
    onnx.save(exposed, str(path))
    try:
        return OrtSession(path, threads=threads, optimize=False)
    finally:
        path.unlink()
