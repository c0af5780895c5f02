"""Int8 noise of each weighted node's output, all nodes measured in one run over the samples.

A node's noise is the mean square of its error over the variance of its output (one over the signal-to-noise ratio;
variance, since what is the same for every sample tells none apart), against its twin on the float model's own
activations. It orders layers; what a layer costs in quality only measuring quality tells.
"""

from collections.abc import Collection
from pathlib import Path

import onnx

from ..samples import Samples
from .on_calibration import means
from .on_twins import Twin, channel_means, with_twins


def noise(
    model: onnx.ModelProto,
    quantized: onnx.ModelProto,
    nodes: Collection[str],
    samples: Samples,
    *,
    folder: Path,
    threads: int,
) -> dict[str, float]:
    """Mean squared error over output variance, both summed over channels, of each named node with constant weights."""
    probed, twins = with_twins(model, quantized, set(nodes))
    named = {twin.node.name: _moments(probed, twin) for twin in twins}
    wanted = [tensor for tensors in named.values() for tensor in tensors]
    found = means(probed, wanted, samples, folder=folder, threads=threads) if wanted else {}
    told = {}
    for name, (error, mean, square) in named.items():
        variance = float((found[square] - found[mean] ** 2).sum())
        told[name] = float(found[error].sum()) / max(variance, 1e-30)
    return told


def _moments(model: onnx.ModelProto, twin: Twin) -> tuple[str, str, str]:
    """Add, per output channel, the twin's mean squared error, the node's mean and its mean square; their names."""
    node, difference = twin.node, f"{twin.output}_difference"
    model.graph.node.append(onnx.helper.make_node("Sub", [twin.output, node.output[0]], [difference]))
    error, square = (_square(model, tensor) for tensor in (difference, node.output[0]))
    return (
        channel_means(model, node, error),
        channel_means(model, node, node.output[0]),
        channel_means(model, node, square),
    )


def _square(model: onnx.ModelProto, tensor: str) -> str:
    model.graph.node.append(onnx.helper.make_node("Mul", [tensor, tensor], [f"{tensor}_square"]))
    return f"{tensor}_square"
