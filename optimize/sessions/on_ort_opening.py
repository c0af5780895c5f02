"""Opening an ONNX Runtime session: fp8 graphs run as they are written, pair by pair."""

from collections.abc import Sequence
from typing import Any

import onnxruntime as ort


def inference_session(
    model: str | bytes, options: ort.SessionOptions, providers: Sequence[Any]
) -> ort.InferenceSession:
    """Open a model, without fusing Q/DQ where they are in fp8.

    ONNX Runtime makes integer operators of pairs of any type, and then refuses the graph that it made. Without those,
    its fusions of a convolution with a sum and an activation give wrong sums around fp8 pairs (1.31: -11 dB for 18 on a
    residual net), so that such a graph gets the basic optimizations alone.

    Raises:
        Exception: whatever ONNX Runtime raises; its exceptions share no base below Exception.
    """
    try:
        return ort.InferenceSession(model, options, providers=list(providers), enable_fallback=0)
    except Exception as error:
        if "float8" not in str(error):
            raise
    options.add_session_config_entry("session.disable_quant_qdq", "1")
    if options.graph_optimization_level != ort.GraphOptimizationLevel.ORT_DISABLE_ALL:
        options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_ENABLE_BASIC
    return ort.InferenceSession(model, options, providers=list(providers), enable_fallback=0)
