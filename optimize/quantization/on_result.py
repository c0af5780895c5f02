"""Checks of a quantized graph before it is kept: valid, open to ONNX Runtime, made of the same float function."""

from pathlib import Path

import numpy as np
import onnx

from ..errors import StageError
from ..graphs.on_onnx import every_node, fresh
from ..samples import Array, Samples
from ..sessions.on_ort import OrtSession
from .on_calibration import batches

_ROUNDING = 2e-2  # of the greatest value: folding reorders sums, and half precision becomes float32
_PAIRS = ("QuantizeLinear", "DequantizeLinear")


def valid(model: onnx.ModelProto) -> str:
    """Return why ONNX's checker refuses the model; empty where it does not."""
    try:
        onnx.checker.check_model(model)
    except Exception as error:  # noqa: BLE001  onnx's and protobuf's errors share no base
        lines = [line for line in str(error).splitlines() if line.strip()]
        return lines[0] if lines else type(error).__name__
    return ""


def write(model: onnx.ModelProto, path: Path, *, strict: bool = True) -> None:
    """Write the graph, checked; by ONNX's checker where `strict`, as for a source that itself passes it.

    Raises:
        StageError: it is not valid, or ONNX Runtime cannot open it.
    """
    _name_apart(model)
    if strict and (why := valid(model)):
        raise StageError(
            f"the quantized graph is not valid: {why}", next_step="exclude the node it names, or narrow operators"
        )
    try:
        path.write_bytes(model.SerializeToString(deterministic=True))
    except Exception as error:  # protobuf holds no more than 2 GB
        raise StageError(f"the graph cannot be written: {error}", next_step="quantize a smaller model") from error
    try:
        OrtSession(path)
    except StageError as error:
        raise StageError(
            f"ONNX Runtime cannot open the quantized graph: {error.what.partition(': ')[2] or error.what}",
            next_step="exclude the node it names, use per_channel = false, or narrow operators",
        ) from error


def _name_apart(model: onnx.ModelProto) -> None:
    """Give Q/DQ nodes that are called as another node is a name of their own."""
    taken: set[str] = set()
    for node in sorted(model.graph.node, key=lambda one: one.op_type in _PAIRS):
        node.name = fresh(node.name, taken) if node.name else ""


def prove(source: Path, model: onnx.ModelProto, samples: Samples, *, folder: Path, threads: int) -> None:
    """Compare the float graph that is to be quantized with the source, on one batch.

    Folding, raising the opset and smoothing leave the function as it was; where they did not, nothing made of it is
    right.

    Raises:
        StageError: an output is another.
    """
    if any(node.op_type.startswith(("Random", "Bernoulli", "Multinomial")) for node in every_node(model)):
        return
    batch = next(batches(model, samples), None)
    if batch is None:
        return
    path = folder / "float.onnx"
    onnx.save(model, str(path))
    try:
        expected = OrtSession(source, threads=threads).run(batch.inputs)
        got = OrtSession(path, threads=threads).run(batch.inputs)
    finally:
        path.unlink()
    for name, values in expected.items():
        if isinstance(values, np.ndarray) and values.dtype.kind == "f" and not _same(values, got[name]):
            raise StageError(
                f"preparing the graph changed its outputs: output {name!r} differs",
                next_step="remove smooth if it is set, or export the model with a newer opset",
            )


def _same(expected: Array, got: Array) -> bool:
    """Return whether two outputs are of one shape and equal but for rounding, relative to the largest finite value."""
    if expected.shape != got.shape:
        return False
    first, second = expected.astype(np.float64), got.astype(np.float64)
    finite = np.isfinite(first) & np.isfinite(second)
    apart = ~finite & ~((first == second) | (np.isnan(first) & np.isnan(second)))
    if apart.any() or not finite.any():
        return not apart.any()
    scale = max(float(np.abs(first[finite]).max()), 1e-30)
    return float(np.abs(first[finite] - second[finite]).max()) <= _ROUNDING * scale
