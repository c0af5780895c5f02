"""Planted faults of graph edits: bodies that read outer names, the ends of fp16, names behind fusion.

"Found" means right or refused: the stage's graph computes, in ONNX Runtime alone, what the source does within the
stage's tolerance, or the stage says why it does not. A sound twin lacks the hazard; it is accused when the stage
refuses it, leaves nodes in float, or gets it wrong.
"""

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from scripts.benchmarks.faults import Fault
from scripts.benchmarks.workshop import Result, apart, outputs, run_stage, saturates
from seatrial.optimize.errors import ConfigError, SeatrialError
from seatrial.optimize.recipe.configs import CastConfig, Override, QuantizeConfig, Tolerance
from seatrial.optimize.samples import Array

_ROUNDED, _HALF = 0.1, 2e-2  # of the greatest value: in 8 bits, in fp16
Random = np.random.Generator


class Drawing:
    """A graph under construction, its names drawn so that they may meet those that editors make."""

    def __init__(self, random: Random) -> None:
        self.random = random
        self.nodes: list[onnx.NodeProto] = []
        self.constants: list[onnx.TensorProto] = []

    def constant(self, name: str, values: Any) -> str:
        self.constants.append(numpy_helper.from_array(np.asarray(values, np.float32), name))
        return name

    def node(self, operator: str, inputs: list[str], output: str, name: str = "", **attributes: Any) -> str:
        self.nodes.append(helper.make_node(operator, inputs, [output], name or f"node_{output}", **attributes))
        return output

    def normal(self, *shape: int, spread: float = 0.0) -> Array:
        return self.random.normal(0, spread or shape[0] ** -0.5, shape)

    def model(self, ins: Mapping[str, list[Any]], outs: Mapping[str, list[Any]], *, foreign: bool = False) -> Any:
        def values(side: Mapping[str, list[Any]]) -> list[Any]:
            return [helper.make_tensor_value_info(name, TensorProto.FLOAT, shape) for name, shape in side.items()]

        graph = helper.make_graph(self.nodes, "fault", values(ins), values(outs), self.constants)
        opsets = [helper.make_opsetid("", 17), *([helper.make_opsetid("com.microsoft", 1)] if foreign else [])]
        return helper.make_model(graph, opset_imports=opsets, ir_version=8)


# A4: bodies


def _with_body(random: Random, *, inner: bool) -> tuple[onnx.ModelProto, dict[str, Array]]:
    """Two products behind a normalization; beside them a sum of outer tensors, in bodies or in the open."""
    draw, width = Drawing(random), 16
    scale = random.uniform(0.5, 1.5, width)
    scale[:2] *= 20  # what smoothing moves into the weights
    shift = draw.constant("b", draw.normal(width))
    normed = draw.node("LayerNormalization", ["x", draw.constant("g", scale), shift], "n")
    weight, bias = draw.constant("w", draw.normal(width, width)), draw.constant("c", draw.normal(width, spread=0.1))
    hidden = draw.node("Add", [draw.node("MatMul", [normed, weight], "p"), bias], "h")
    draw.node("MatMul", [draw.node("Relu", [hidden], "r"), draw.constant("v", draw.normal(width, width))], "y")
    wanted = [str(one) for one in random.permutation(["n", "h", "r", "c", "w"])[: random.integers(1, 4)]]
    shape: list[Any] = {"c": [width], "w": [width, width]}.get(wanted[0], ["n", width])
    _beside(draw, wanted, shape, inner=inner, first={1: "c", 2: "n" if "n" in shape else "w"}[len(shape)])
    inputs = {"x": random.normal(size=(32, width)).astype(np.float32)}
    return draw.model({"x": ["n", width]}, {"y": ["n", width], "z": shape}), inputs


def _convolved(random: Random, *, inner: bool) -> tuple[onnx.ModelProto, dict[str, Array]]:
    """Two convolutions with an activation function between them that goes into the rounding; the sum as above."""
    draw, shape = Drawing(random), ["n", 4, 8, 8]
    made = draw.node("Conv", ["x", draw.constant("w", draw.normal(4, 3, 3, 3, spread=0.3))], "h", pads=[1] * 4)
    if random.random() < 0.5:
        draw.node("Relu", [made], "r")
    else:
        draw.node("Clip", [made, draw.constant("low", 0.0), draw.constant("high", 6.0)], "r")
    draw.node("Conv", ["r", draw.constant("v", draw.normal(5, 4, 3, 3, spread=0.3))], "y")
    wanted = [str(one) for one in random.permutation(["h", "r"])[: random.integers(1, 3)]]
    _beside(draw, wanted, shape, inner=inner, first="r")
    inputs = {"x": random.normal(size=(16, 3, 8, 8)).astype(np.float32)}
    return draw.model({"x": ["n", 3, 8, 8]}, {"y": ["n", 5, 6, 6], "z": shape}), inputs


def _beside(draw: Drawing, wanted: list[str], shape: list[Any], *, inner: bool, first: str) -> None:
    """Add the sum of the wanted tensors as `z`, in bodies or in the open; a Loop carries `first`."""
    random = draw.random
    factor = float(random.uniform(1e-3, 1.0))
    if not inner:
        graph = _sum(random, wanted, factor, "z", shape)
        draw.nodes += graph.node
        draw.constants += graph.initializer
        return
    met = [str(one) for one in random.permutation(_MET)]  # what an editor may call what it makes
    draw.nodes += _bodies(random, [_sum(random, wanted, factor, result, shape) for result in met[:2]], shape, first)
    draw.constants += [numpy_helper.from_array(np.array(one), name) for name, one in (("yes", True), ("turns", 1))]


_MET = ("n_smoothed", "w_int8", "n_smooth", "w_quantized", "n_scale", "n_low", "w_step", "h_DequantizeLinear_Output")


def _sum(random: Random, wanted: list[str], factor: float, result: str, shape: list[Any]) -> onnx.GraphProto:
    """A graph that scales the first outer tensor and adds the greatest number of each other."""
    draw = Drawing(random)
    terms = [draw.node("Mul", [wanted[0], draw.constant(f"{result}_f", factor)], f"{result}_0")]
    for number, one in enumerate(wanted[1:], start=1):
        part = draw.node("ReduceMax", [one], f"{result}_part{number}", keepdims=0)
        terms.append(draw.node("Add", [terms[-1], part], f"{result}_{number}"))
    draw.node("Identity", [terms[-1]], result)
    value = helper.make_tensor_value_info(result, TensorProto.FLOAT, shape)
    return helper.make_graph(draw.nodes, result, [], [value], draw.constants)


def _bodies(random: Random, graphs: list[onnx.GraphProto], shape: list[Any], first: str) -> list[onnx.NodeProto]:
    """An If of these branches that nothing folds away; now and then within a Loop of one turn."""
    deciding = [
        helper.make_node("ReduceMax", ["x"], ["top"], "top", keepdims=0),
        helper.make_node("IsNaN", ["top"], ["odd"], "odd"),
    ]
    name = "z_inner" if (looped := random.random() < 0.4) else "z"
    node = helper.make_node("If", ["odd"], [name], "branch", then_branch=graphs[0], else_branch=graphs[1])
    if not looped:
        return [*deciding, node]
    going = helper.make_node("Identity", ["going"], ["goes"], "goes_on")
    given = [("turn", TensorProto.INT64, []), ("going", TensorProto.BOOL, []), ("carried", TensorProto.FLOAT, shape)]
    gives = [("goes", TensorProto.BOOL, []), ("z_inner", TensorProto.FLOAT, shape)]
    ins, outs = ([helper.make_tensor_value_info(*one) for one in side] for side in (given, gives))
    turn = helper.make_graph([going, node], "turn", ins, outs)
    return [*deciding, helper.make_node("Loop", ["turns", "yes", first], ["z"], "loop", body=turn)]


_STAGES: tuple[Callable[[], Any], ...] = (
    lambda: QuantizeConfig(kind="quantize", target="auto", smooth=0.5),
    lambda: QuantizeConfig(kind="quantize", target="auto", smooth=0.5, bias_correction=True),
    lambda: QuantizeConfig(kind="quantize", target="auto", operators=("MatMul",)),
    lambda: QuantizeConfig(kind="quantize", target="tensorrt"),
    lambda: QuantizeConfig(kind="quantize", target="auto", method="dynamic"),
    lambda: QuantizeConfig(kind="quantize", target="auto", method="dynamic", smooth=0.5),
    lambda: QuantizeConfig(kind="quantize", target="auto", method="weight-only", block_size=16),
    lambda: QuantizeConfig(kind="quantize", target="auto", method="weight-only", storage="channels"),
    lambda: CastConfig(kind="cast"),
    lambda: CastConfig(kind="cast", precision="fp16", keep=("node_y",)),
)


_CONVOLVED: tuple[Callable[[], Any], ...] = (
    lambda: QuantizeConfig(kind="quantize", target="auto"),
    lambda: QuantizeConfig(kind="quantize", target="x86", bias_correction=True),
    lambda: QuantizeConfig(kind="quantize", target="arm64"),
    lambda: QuantizeConfig(kind="quantize", target="tensorrt"),
    lambda: CastConfig(kind="cast"),
)


def _edited(random: Random, *, inner: bool) -> tuple[bool, bool]:
    """Return whether the stage was right or refused, and whether it refused."""
    draw, stages = (_convolved, _CONVOLVED) if random.random() < 0.3 else (_with_body, _STAGES)
    model, inputs = draw(random, inner=inner)
    config = stages[int(random.integers(len(stages)))]()
    try:
        result = run_stage(config, model, inputs)
    except SeatrialError:
        return True, True
    return _right(model, result, inputs, _HALF if config.kind == "cast" else _ROUNDED), False


def _right(model: onnx.ModelProto, result: Result, inputs: Mapping[str, Array], limit: float) -> bool:
    """Return whether the graph is valid and computes the same, optimized or not."""
    onnx.checker.check_model(result.model)
    expected = outputs(model, inputs)
    flags = (False,) if saturates(result.model) else (True, False)
    found = [outputs(result.model, inputs, optimize=flag) for flag in flags]
    return all(apart(values, got[name]) <= limit for got in found for name, values in expected.items())


def _body_planted(random: Random) -> bool:
    return _edited(random, inner=True)[0]


def _body_sound(random: Random) -> bool:
    right, refused = _edited(random, inner=False)
    return refused or not right


# A5: the ends of fp16


def _guard(draw: Drawing, kind: str, size: float) -> str:
    """A division, root or logarithm with a guard of that size; returns the tensor."""
    eps = draw.constant("eps", size)
    if kind == "add" or kind == "max":
        squares = draw.node("Mul", ["x", "x"], "squares")
        root = draw.node("Sqrt", [draw.node("ReduceMean", [squares], "mean", axes=[-1], keepdims=1)], "root")
        return draw.node("Div", ["x", draw.node("Add" if kind == "add" else "Max", [root, eps], "safe")], "g")
    if kind == "clip":
        norm = draw.node("ReduceL2", ["x"], "norm", axes=[-1], keepdims=1)
        wide = draw.node("Expand", [draw.node("Clip", [norm, eps], "safe"), _shape(draw)], "wide")
        return draw.node("Div", ["x", wide], "g")
    positive = draw.node("Abs", ["x"], "positive")
    if kind == "log":
        return draw.node("Log", [draw.node("Add", [positive, eps], "safe")], "g")
    if kind == "power":
        mean = draw.node("ReduceMean", [draw.node("Mul", ["x", "x"], "squares")], "mean", axes=[-1], keepdims=1)
        power = draw.node("Pow", [draw.node("Add", [mean, eps], "safe"), draw.constant("half", -0.5)], "power")
        return draw.node("Mul", ["x", power], "g")
    total = draw.node("ReduceSum", [positive], "total", keepdims=1)
    wide = draw.node("Reciprocal", [draw.node("Add", [total, eps], "safe")], "inverse")
    return draw.node("Mul", [positive, wide], "g")


def _shape(draw: Drawing) -> str:
    return draw.node("Shape", ["x"], "shape")


def _range(draw: Drawing, kind: str, size: float) -> str:
    """A detour to that size and back; returns the tensor."""
    there, back = draw.constant("there", size), draw.constant("back", 1 / size)
    middle = draw.node("Mul", ["x", there], "far")
    if kind == "relu":
        middle = draw.node("LeakyRelu", [middle], "bent", alpha=0.1)
    return draw.node("Mul", [middle, back], "g")


_GUARDS, _DETOURS = ("add", "max", "clip", "log", "power", "sum"), ("plain", "relu")


def _halved(random: Random, *, planted: bool) -> tuple[bool, bool]:
    """Return whether fp16 was right or refused, and whether it refused or left a node in fp32."""
    draw, width = Drawing(random), 16
    kind = str(random.choice([*_GUARDS, *_DETOURS, "foreign"]))
    if kind in _GUARDS:
        middle = _guard(draw, kind, 10.0 ** (random.uniform(-12, -8) if planted else random.uniform(-2.5, -1)))
    elif kind in _DETOURS:
        power = random.choice([-1, 1]) * random.uniform(5.5, 9) if planted else random.uniform(-2, 2)
        middle = _range(draw, kind, 10.0**power)
    else:
        operator, domain = (str(random.choice(["Gelu", "QuickGelu", "FastGelu"])), "com.microsoft")
        operator, domain = (operator, domain) if planted else (str(random.choice(["Relu", "Tanh", "Sigmoid"])), "")
        middle = draw.node(operator, ["x"], "g", domain=domain)
    draw.node("MatMul", [middle, draw.constant("w", draw.normal(width, 6))], "y")
    model = draw.model({"x": ["n", width]}, {"y": ["n", 6]}, foreign=True)
    inputs = {"x": random.normal(size=(32, width)).astype(np.float32)}
    served = {"x": np.concatenate([np.zeros((2, width), np.float32), inputs["x"]])}
    try:
        result = run_stage(CastConfig(kind="cast", parity={"*": Tolerance(relative_error=_HALF)}), model, inputs)
    except SeatrialError:
        return True, True
    return _right(model, result, served, _HALF), bool(result.made.notes["in_fp32"])


def _half_planted(random: Random) -> bool:
    return _halved(random, planted=True)[0]


def _half_sound(random: Random) -> bool:
    right, left = _halved(random, planted=False)
    return left or not right


# A6: names


def _named(random: Random, *, fused: bool) -> tuple[onnx.ModelProto, list[str]]:
    """A chain of products with random names; each of a shape of its own, with a bias that fuses, or without."""
    draw, words = Drawing(random), ["enc", "dec", "head", "proj", "out", "block", "mlp", "fc", "query", "key"]
    names: list[str] = []
    hidden, width = "x", 24
    for number in range(int(random.integers(2, 5))):
        parts = random.choice(words, size=int(random.integers(1, 4)))
        style = str(random.choice(["/", ".", "_"])).join(map(str, parts))
        names.append(f"{style}{random.choice(['', '[0]', '(a)', ':0'])}_{number}")
        wide = 24 + 4 * (number + 1)
        weight = draw.constant(f"w{number}", draw.normal(width, wide))
        last = f"out_{number}"
        product = draw.node("MatMul", [hidden, weight], f"p{number}" if fused else last, names[-1])
        if fused:
            draw.node("Add", [product, draw.constant(f"b{number}", draw.normal(wide))], last, f"{names[-1]}_bias")
        hidden, width = draw.node("Tanh", [last], f"a{number}", f"tanh_{number}"), wide
    draw.node("MatMul", [hidden, draw.constant("wz", draw.normal(width, 4))], "y", "last_of_all")
    return draw.model({"x": ["n", 24]}, {"y": ["n", 4]}), names


def _float_layers(model: onnx.ModelProto, *, half: bool) -> set[int]:
    """By the width of their weights, the layers whose weights are still float32."""
    low = (TensorProto.FLOAT16,) if half else (TensorProto.INT8, TensorProto.UINT8)
    every = [tensor for tensor in model.graph.initializer if len(tensor.dims) == 2]
    lower = {tuple(tensor.dims)[-1] for tensor in every if tensor.data_type in low}
    return {tuple(tensor.dims)[-1] for tensor in every if tensor.data_type == TensorProto.FLOAT} - lower


def _kept(random: Random, *, fused: bool, stray: bool) -> bool:
    """Return True if exactly the named layer stays in float, or a glob without a match is refused with near names."""
    model, names = _named(random, fused=fused)
    chosen = int(random.integers(len(names)))
    glob = names[chosen]
    if stray:
        place = int(random.integers(len(glob) - 2))
        glob = glob[:place] + "QX" + glob[place + 2 :]
    elif random.random() < 0.5:
        glob = f"*{glob[-2:]}" if not fused else f"*{glob[-2:]}*"
    half = random.random() < 0.3
    config: Any = CastConfig(kind="cast", keep=(glob,)) if half else _keeping(random, glob)
    inputs = {"x": random.normal(size=(32, 24)).astype(np.float32)}
    try:
        result = run_stage(config, model, inputs)
    except ConfigError as error:
        return stray and names[chosen] in error.next_step
    except SeatrialError:
        return False
    return not stray and _float_layers(result.model, half=half) == {24 + 4 * (chosen + 1)}


def _keeping(random: Random, glob: str) -> QuantizeConfig:
    method: Any = random.choice(["static", "dynamic", "channels"])
    fields: dict[str, Any] = {"kind": "quantize", "target": "auto"}
    fields |= {"method": "weight-only", "storage": "channels"} if method == "channels" else {"method": method}
    fields |= {"operators": ("MatMul",)} if random.random() < 0.5 else {}
    if random.random() < 0.5:
        return QuantizeConfig(**fields, exclude=(glob,))
    return QuantizeConfig(**fields, overrides=(Override(match=glob, weights="float"),))


def _name_planted(random: Random) -> bool:
    return _kept(random, fused=True, stray=bool(random.random() < 0.3))


def _name_sound(random: Random) -> bool:
    return not _kept(random, fused=False, stray=False)


FAULTS = (
    Fault(
        name="graph-bodies",
        claim="edits see the graphs inside If and Loop: outer tensors that a body reads stay what they were",
        planted=_body_planted,
        sound=_body_sound,
    ),
    Fault(
        name="graph-half",
        claim="fp16 holds at both ends: guards, detours beyond the range, operators that are not ONNX's",
        planted=_half_planted,
        sound=_half_sound,
    ),
    Fault(
        name="graph-names",
        claim="exclude, overrides and keep mean the user's names through fusion; one that fits nothing is refused",
        planted=_name_planted,
        sound=_name_sound,
    ),
)
