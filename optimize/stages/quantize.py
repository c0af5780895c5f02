"""Quantize: static int8 as Q/DQ, in the integer types and symmetry that the target's kernels fuse."""

from collections.abc import Iterator
from fnmatch import fnmatch
from pathlib import Path
from typing import Any

import onnx
from onnxruntime.quantization import (
    CalibrationDataReader,
    CalibrationMethod,
    QuantFormat,
    QuantType,
    quantize_static,
)
from onnxruntime.quantization.shape_inference import quant_pre_process

from ..artifact import Artifact
from ..errors import StageError
from ..samples import Array, Samples
from ..targets import TARGETS, Contract, resolve
from .configs import QuantizeConfig
from .stage import Context, Made

FILE = "model.onnx"
_BATCH = 32
_METHODS = {
    "minmax": CalibrationMethod.MinMax,
    "entropy": CalibrationMethod.Entropy,
    "percentile": CalibrationMethod.Percentile,
}


class _Reader(CalibrationDataReader):  # type: ignore[misc]
    """Calibration samples in full batches of equal size, once around."""

    def __init__(self, samples: Samples) -> None:
        size = min(_BATCH, len(samples))
        self._batches: Iterator[Samples] = samples.take(len(samples) // size * size).batches(size)

    def get_next(self) -> dict[str, Array] | None:
        batch = next(self._batches, None)
        return None if batch is None else dict(batch.inputs)


def run(config: QuantizeConfig, parent: Artifact, context: Context) -> Made:
    """Make the quantized ``model.onnx`` for the target; ``auto`` is this machine's.

    Raises:
        StageError: nothing could be quantized, or ONNX Runtime's tools refused the graph.
    """
    target = resolve(config.target, context.environment)
    contract = TARGETS[target]
    context.progress(0.1, f"preparing for {target}")
    prepared = context.folder / "prepared.onnx"
    _prepare(context.store.path(parent, FILE), prepared)
    samples = context.samples("calibration")
    context.progress(0.3, f"calibrating on {len(samples)} samples")
    try:
        quantize_static(
            str(prepared), str(context.folder / FILE), _Reader(samples), **_options(config, contract, prepared)
        )
    except Exception as error:  # the quantizer raises anything from ValueError to bare Exception
        raise StageError(
            f"ONNX Runtime's quantizer refused the graph: {error}", next_step="exclude the node it names"
        ) from error
    prepared.unlink()
    count = _count(context.folder / FILE)
    if not count["DequantizeLinear"]:
        raise StageError("nothing was quantized", next_step="widen operators or narrow exclude in this stage")
    return Made(
        format="onnx",
        files=(FILE,),
        inputs=parent.inputs,
        outputs=parent.outputs,
        requires=contract.requires(),
        notes={"target": target, "activations": contract.activations, **count},
    )


def _prepare(source: Path, prepared: Path) -> None:
    """Fold, fuse and infer shapes first; without it Q/DQ land inside patterns that the runtime would have fused."""
    try:
        quant_pre_process(str(source), str(prepared), skip_symbolic_shape=False)
    except Exception:  # noqa: BLE001  symbolic inference raises anything on legal graphs; the plain one is enough
        quant_pre_process(str(source), str(prepared), skip_symbolic_shape=True)


def _options(config: QuantizeConfig, contract: Contract, prepared: Path) -> dict[str, Any]:
    nodes = [node.name for node in onnx.load(str(prepared), load_external_data=False).graph.node]
    return {
        "quant_format": QuantFormat.QDQ,
        "activation_type": QuantType.QUInt8 if contract.activations == "uint8" else QuantType.QInt8,
        "weight_type": QuantType.QInt8,
        "per_channel": config.per_channel,
        "reduce_range": contract.reduce_range,
        "calibrate_method": _METHODS[config.ranges],
        "op_types_to_quantize": list(config.operators) or None,
        "nodes_to_exclude": [name for name in nodes if any(fnmatch(name, glob) for glob in config.exclude)],
        "extra_options": {
            "ActivationSymmetric": contract.activation_symmetric,
            "WeightSymmetric": True,
            "CalibTensorRangeSymmetric": contract.activation_symmetric,
        },
    }


def _count(path: Path) -> dict[str, int]:
    kinds = [node.op_type for node in onnx.load(str(path), load_external_data=False).graph.node]
    return {kind: kinds.count(kind) for kind in ("QuantizeLinear", "DequantizeLinear")}
