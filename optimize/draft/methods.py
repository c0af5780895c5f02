"""Methods that suit a model: the stages of a first recipe, and the candidates of its search. Pure.

Decided by the counts of operators alone: dynamic int8 for attention and LSTM, static int8 for convolutions and plain
products, as ONNX Runtime on x86 wants it. A build leaves out a stage that is slower than float here, and a search
measures all candidates, so that a wrong guess costs time only.
"""

from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Literal

Family = Literal["cnn", "transformer", "mlp"]
Source = Literal["factory", "onnx"]
Stage = dict[str, Any]
PARITY = {"*": {"spread_error": 0.5}}
"""Contract of drafted int8 stages: random samples say little about agreement."""
_PRODUCTS_EACH = 8  # a transformer's layer has six matrix products with weights to one attention
_STATIC = ("Conv", "MatMul", "Gemm")
_DYNAMIC = ("MatMul", "Gemm", "LSTM", "Attention")


@dataclass(frozen=True, slots=True, kw_only=True)
class Drafted:
    """One candidate of a drafted search: its name, what it is in one line, its stages, its engine (empty: the own)."""

    name: str
    why: str
    stages: tuple[Stage, ...]
    engine: str = ""


def family(operators: Mapping[str, int]) -> Family:
    """Guess the kind of network from its operator counts: a single product of two activations makes no transformer.

    More attention than convolutions does, and at least one in eight matrix products; else convolutions make a CNN.
    """
    attention, convolutions = operators.get("Attention", 0), operators.get("Conv", 0)
    products = operators.get("MatMul", 0) + operators.get("Gemm", 0)
    if attention > convolutions and _PRODUCTS_EACH * attention >= products:
        return "transformer"
    return "cnn" if convolutions else "mlp"


def stages(kind: Family, source: Source, operators: Mapping[str, int]) -> list[Stage]:
    """Return the stages to begin with, those that need no training: export, and int8 where there is something for it.

    An ONNX file without anything to quantize needs no stage.
    """
    found: list[Stage] = [{"kind": "export"}] if source == "factory" else []
    dynamic = kind == "transformer" or operators.get("LSTM", 0) > operators.get("Conv", 0)
    if dynamic and _any(operators, _DYNAMIC):
        found.append(_dynamic())
    elif _any(operators, _STATIC):
        found.append(_static(kind, source, operators))
    return found


def candidates(
    kind: Family, source: Source, operators: Mapping[str, int], engines: Collection[str]
) -> tuple[Drafted, ...]:
    """Return the candidates for a model of these operators on a machine with these engines (beside the default one)."""
    found = [*_in_onnxruntime(kind, source, operators), *_in_openvino(kind, source, operators, engines)]
    found += _on_gpu(kind, source, operators, engines)
    export: tuple[Stage, ...] = ({"kind": "export"},) if source == "factory" else ()
    made = [Drafted(name=each.name, why=each.why, stages=(*export, *each.stages), engine=each.engine) for each in found]
    if source == "factory":
        why = "the program itself in PyTorch, without ONNX"
        made.append(Drafted(name="torch", why=why, stages=({"kind": "package"},)))
    return tuple(made)


def _in_onnxruntime(kind: Family, source: Source, operators: Mapping[str, int]) -> Iterator[Drafted]:
    if _any(operators, _STATIC):
        why = "int8 weights and activations, ranges from the calibration samples"
        yield Drafted(name="int8-static", why=why, stages=(_static(kind, source, operators),))
    if _any(operators, _DYNAMIC):
        why = "int8 weights, activation ranges measured at run time: no calibration"
        yield Drafted(name="int8-dynamic", why=why, stages=(_dynamic(),))
    if kind != "cnn" and operators.get("MatMul", 0):
        why = "int8 weights in blocks under float activations: closest to float"
        yield Drafted(name="int8-weights", why=why, stages=(_weights(),))


def _in_openvino(
    kind: Family, source: Source, operators: Mapping[str, int], engines: Collection[str]
) -> Iterator[Drafted]:
    for engine, floats in (("openvino", "float32"), ("openvino-bf16", "bfloat16")):
        if engine not in engines:
            continue
        yield Drafted(name=f"float-{engine}", why=f"OpenVINO in {floats}", stages=(), engine=engine)
        if _any(operators, _STATIC):
            stage = _static(kind, source, operators)
            why = f"static int8 in OpenVINO, the rest in {floats}"
            yield Drafted(name=f"int8-static-{engine}", why=why, stages=(stage,), engine=engine)
        if engine == "openvino" and kind != "cnn" and _any(operators, ("MatMul", "Gemm", "LSTM")):
            why = "int8 weights in OpenVINO, activations rounded row by row at run time"
            stage = _weights(storage="channels")
            yield Drafted(name=f"int8-weights-{engine}", why=why, stages=(stage,), engine=engine)


def _on_gpu(kind: Family, source: Source, operators: Mapping[str, int], engines: Collection[str]) -> Iterator[Drafted]:
    for engine in ("onnxruntime-cuda", "onnxruntime-tensorrt"):
        if engine not in engines:
            continue
        yield Drafted(name=f"float-{engine}", why="float32 on the GPU", stages=(), engine=engine)
        cast: Stage = {"kind": "cast", "precision": "fp16", "parity": PARITY}
        yield Drafted(name=f"fp16-{engine}", why="half precision on the GPU", stages=(cast,), engine=engine)
        if engine == "onnxruntime-tensorrt" and _any(operators, _STATIC):
            stage = _static(kind, source, operators) | {"target": "tensorrt"}
            why = "static int8 in the form that TensorRT takes"
            yield Drafted(name=f"int8-static-{engine}", why=why, stages=(stage,), engine=engine)


def _any(operators: Mapping[str, int], wanted: Collection[str]) -> bool:
    return any(operators.get(name, 0) for name in wanted)


def _static(kind: Family, source: Source, operators: Mapping[str, int]) -> Stage:
    """Of a transformer only the matrix products, so that normalizations and softmax stay fused in float."""
    products = [name for name in ("MatMul", "Gemm") if operators.get(name, 0) or source == "factory"]
    return {"kind": "quantize"} | ({"operators": products} if kind == "transformer" else {}) | {"parity": PARITY}


def _dynamic() -> Stage:
    return {"kind": "quantize", "method": "dynamic", "parity": PARITY}


def _weights(**more: str) -> Stage:
    return {"kind": "quantize", "method": "weight-only", **more, "parity": PARITY}
