"""Rules that TensorRT would reject a graph by, checked on any machine from a small description of it.

Pure rules over `Description`; `on_onnx.describe` makes one from a file. The rules are those that NVIDIA documents for
the ONNX parser of TensorRT 10.16 and 11.x (operator table of onnx-tensorrt, the guide on quantized types) and that can
be decided from names, types and constants. Where the documentation is stricter or laxer than the parser and builder of
TensorRT for RTX, which run without a GPU, the rules follow what those accepted and refused. Passing the rules is
necessary, not sufficient: only a build proves a build.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field

from ..breach import Breach
from ..errors import StageError
from ..recipe.configs import Profile

LEAST_OPSET, MOST_OPSET = 7, 24  # 9 is documented, 7 and 8 were built; 11.x alone also reads 25
QUANTIZED = {"int8": 13, "float8e4m3fn": 19, "int4": 21, "float4e2m1": 23}  # type -> least opset of its Q/DQ
QUANTIZER_TYPES = QUANTIZED | {"uint8": 13}  # uint8 between Q and DQ, zero point 0, was built
INT8_ARITHMETIC = frozenset({"Max", "Clip"})  # built on int8 tensors, without Q/DQ around them
_MOVES = "Cast Concat Constant Flatten Gather Identity Reshape Shape Slice Squeeze Transpose Unsqueeze"
UINT8_MOVES = frozenset(_MOVES.split())
PLAIN = frozenset({"float32", "float16", "bfloat16", "int32", "int64", "bool"})
WEIGHTED = frozenset({"Conv", "ConvTranspose", "Gemm", "MatMul"})
PARSER_DOMAINS = frozenset({"", "ai.onnx", "trt.plugins"})
FIRST_OUTPUT_ONLY = frozenset({"Attention", "LayerNormalization", "MaxPool"})
_REDUCTIONS = "L1 L2 LogSum LogSumExp Max Mean Min Prod Sum SumSquare"
MOST_TOP = 3840
CONSTANT_AXES = frozenset(f"Reduce{kind}" for kind in _REDUCTIONS.split())
_UNSUPPORTED = """
AffineGrid Bernoulli BitShift BitwiseAnd BitwiseNot BitwiseOr BitwiseXor CenterCropPad Col2Im Compress
ConcatFromSequence ConvInteger DFT Det DynamicQuantizeLinear ImageDecoder MatMulInteger MaxRoiPool MaxUnpool
MelWeightMatrix Multinomial NegativeLogLikelihoodLoss Optional OptionalGetElement OptionalHasElement
QLinearConv QLinearMatMul RegexFullMatch SequenceAt SequenceConstruct SequenceEmpty SequenceErase
SequenceInsert SequenceLength SequenceMap SoftmaxCrossEntropyLoss SplitToSequence StringConcat
StringNormalizer StringSplit TfIdfVectorizer Unique
"""
UNSUPPORTED = frozenset(_UNSUPPORTED.split())


@dataclass(frozen=True, slots=True, kw_only=True)
class Tensor:
    """A tensor of the graph: dtype in ONNX's lower-case form (empty: not known) and shape (None: not known).

    `zero` and `positive` say of a constant that every one of its numbers is, `greatest` the greatest of them. `stored`
    is empty for weights inside the file, else the external file's name, and `missing` that it is not there.
    """

    name: str
    dtype: str = ""
    shape: tuple[int | str, ...] | None = None
    constant: bool = False
    zero: bool = False
    positive: bool = False
    greatest: float | None = None
    stored: str = ""
    missing: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Node:
    """One operator; an input or output that is left out is an empty name. `axis` and the like are in `attributes`."""

    name: str
    operator: str
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    domain: str = ""
    attributes: Mapping[str, int] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class Description:
    """The parts of a graph that the rules read; `functions` are model-local functions as ``domain:name``."""

    opset: int
    nodes: tuple[Node, ...]
    tensors: Mapping[str, Tensor]
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    functions: frozenset[str] = frozenset()


def check(description: Description, profiles: Sequence[Profile], serves: Sequence[int] = ()) -> tuple[Breach, ...]:
    """Return every breach, in the order of the graph; empty where the rules allow a build.

    `profiles` map input names to shapes, `serves` are batch sizes that the deployment will send.
    """
    graph = _Graph(description)
    return (
        *_opset(description),
        *_tensors(graph),
        *(breach for node in description.nodes for breach in _node(node, graph)),
        *_profiles(description, profiles, serves),
    )


def enforce(breaches: Sequence[Breach], where: str) -> None:
    """Fail with every breach listed.

    Raises:
        StageError: rule, node, reason and fix of each.
    """
    if breaches:
        lines = [f"  {breach}" for breach in breaches]
        count = f"{len(breaches)} reason" + ("s" if len(breaches) > 1 else "")
        raise StageError(
            "\n".join([f"TensorRT would refuse this graph, {count}:", *lines]), where=where, next_step=breaches[0].fix
        )


class _Graph:
    """The description with the questions that rules ask of it."""

    def __init__(self, description: Description) -> None:
        self.description = description
        self.makers = {name: node for node in description.nodes for name in node.outputs if name}
        self.users: dict[str, list[tuple[Node, int]]] = {}
        for node in description.nodes:
            for index, name in enumerate(node.inputs):
                self.users.setdefault(name, []).append((node, index))

    def tensor(self, name: str) -> Tensor:
        return self.description.tensors.get(name) or Tensor(name=name)

    def weighted_users(self, name: str) -> Iterator[tuple[Node, int]]:
        """Weighted operators that read the tensor, through Q/DQ."""
        for node, index in self.users.get(name, []):
            if node.operator in WEIGHTED:
                yield node, index
            elif node.operator in ("QuantizeLinear", "DequantizeLinear") and index == 0:
                yield from self.weighted_users(node.outputs[0])


def _opset(description: Description) -> Iterator[Breach]:
    if not LEAST_OPSET <= description.opset <= MOST_OPSET:
        reason = f"the parser reads opsets {LEAST_OPSET} to {MOST_OPSET}, the graph has opset {description.opset}"
        yield Breach(rule="opset", where="the graph", found=reason, fix="export with another opset")


def _tensors(graph: _Graph) -> Iterator[Breach]:
    borders = {*graph.description.inputs, *graph.description.outputs}
    for tensor in graph.description.tensors.values():
        if tensor.missing:
            reason = f"its values are stored in {tensor.stored!r}, a file that is not beside the model"
            yield Breach(rule="weights", where=tensor.name, found=reason, fix="keep external data with the model")
        if tensor.dtype and not _dtype_fits(tensor, borders, graph):
            reason = _dtype_reason(tensor)
            yield Breach(rule="dtype", where=tensor.name, found=reason, fix="cast it to a type that TensorRT has")


def _dtype_fits(tensor: Tensor, borders: set[str], graph: _Graph) -> bool:
    if tensor.dtype in PLAIN or tensor.dtype in QUANTIZED:
        return True
    if tensor.dtype == "uint8" and tensor.name in borders:
        return True
    return all(_is_quantizer(node) for node, _ in graph.users.get(tensor.name, [])) and _touches_quantizer(
        tensor.name, graph
    )  # reported at the quantizer, with a better reason


def _dtype_reason(tensor: Tensor) -> str:
    if tensor.dtype == "float64":
        return "TensorRT has no double; the parser narrows it to float and clamps, so outputs differ"
    if tensor.dtype == "uint8":
        return "uint8 is allowed only for inputs and outputs of the whole network"
    return f"TensorRT has no {tensor.dtype}"


def _is_quantizer(node: Node) -> bool:
    return node.operator in ("QuantizeLinear", "DequantizeLinear")


def _touches_quantizer(name: str, graph: _Graph) -> bool:
    maker = graph.makers.get(name)
    return any(_is_quantizer(node) for node, _ in graph.users.get(name, [])) or (
        maker is not None and _is_quantizer(maker)
    )


def _node(node: Node, graph: _Graph) -> Iterator[Breach]:
    if node.domain not in PARSER_DOMAINS and f"{node.domain}:{node.operator}" not in graph.description.functions:
        reason = f"{node.domain}.{node.operator} is not an ONNX operator"
        yield Breach(
            rule="operator", where=node.name, found=reason, fix="export the graph without runtime-specific fusions"
        )
    elif node.operator in UNSUPPORTED:
        reason = f"the parser does not support {node.operator}"
        yield Breach(rule="operator", where=node.name, found=reason, fix="replace it by supported operators")
    if node.operator in FIRST_OUTPUT_ONLY and any(node.outputs[1:]):
        reason = f"only the first output of {node.operator} is supported"
        yield Breach(rule="outputs", where=node.name, found=reason, fix="do not use the other outputs")
    if node.operator == "Attention" and "softmax_precision" in node.attributes:
        reason = "the precision of its softmax cannot be chosen (softmax_precision)"
        yield Breach(rule="attribute", where=node.name, found=reason, fix="remove the attribute")
    axes = node.inputs[1] if node.operator in CONSTANT_AXES and len(node.inputs) > 1 else ""
    if axes and not graph.tensor(axes).constant:
        reason = "its axes must be a constant"
        yield Breach(rule="axes", where=node.name, found=reason, fix="fold constants, or fix the axes")
    if node.operator == "TopK":
        yield from _top(node, graph)
    if _is_quantizer(node):
        yield from _quantizer(node, graph)
    else:
        yield from _unquantized(node, graph)


def _unquantized(node: Node, graph: _Graph) -> Iterator[Breach]:
    """Quantized types live between Q and DQ only, uint8 at the borders of the network, from where it is cast."""
    for name in (*node.inputs, *node.outputs):
        dtype = graph.tensor(name).dtype if name else ""
        if dtype == "uint8" and _is_border(name, graph) and node.operator not in UINT8_MOVES:
            reason = f"it computes on uint8 {name!r}; uint8 is only moved and cast"
            yield Breach(rule="dtype", where=node.name, found=reason, fix="cast it before, or after for an output")
        allowed = node.operator == "Constant" or (dtype == "int8" and node.operator in INT8_ARITHMETIC)
        if dtype in QUANTIZED and not allowed:
            reason = f"it works on {graph.tensor(name).dtype} {name!r}; only Q/DQ nodes may use quantized types"
            yield Breach(rule="placement", where=node.name, found=reason, fix="move it behind the DequantizeLinear")


def _is_border(name: str, graph: _Graph) -> bool:
    return name in graph.description.inputs or name in graph.description.outputs


def _top(node: Node, graph: _Graph) -> Iterator[Breach]:
    """TensorRT's layer takes K up to `MOST_TOP`, along one of the last four axes (operator reference, TopK)."""
    count = graph.tensor(node.inputs[1]).greatest if len(node.inputs) > 1 else node.attributes.get("k")
    if count is not None and count > MOST_TOP:
        reason = f"it takes the top {count:g}, the layer at most {MOST_TOP}"
        yield Breach(rule="top", where=node.name, found=reason, fix="take fewer, or sort outside the network")
    rank = len(graph.tensor(node.inputs[0]).shape or ())
    axis = node.attributes.get("axis", -1)
    if rank > 4 and axis % rank < rank - 4:
        reason = f"axis {axis} of {rank} is not among the last four"
        yield Breach(rule="top", where=node.name, found=reason, fix="transpose the axis to the end before it")


def _quantizer(node: Node, graph: _Graph) -> Iterator[Breach]:
    """Symmetric, a type that TensorRT has, positive constant scale, no bias, channels only on the weights' axis."""
    dtype = _quantized_type(node, graph)
    bias = [user for user, index in graph.weighted_users(node.outputs[0]) if index == 2]
    if bias or dtype == "int32":
        whose = f"the bias of {bias[0].name}" if bias else "an int32 tensor"
        fix = "leave biases in float (QuantizeBias = False in ONNX Runtime's quantizer)"
        yield Breach(rule="bias", where=node.name, found=f"it quantizes {whose}", fix=fix)
        return
    if dtype and dtype not in QUANTIZER_TYPES:
        reason = f"it quantizes to {dtype}; TensorRT has {', '.join(QUANTIZER_TYPES)}"
        yield Breach(rule="quantized type", where=node.name, found=reason, fix="quantize for signed 8 bit")
    elif dtype and graph.description.opset < QUANTIZER_TYPES[dtype]:
        reason = f"{dtype} needs opset {QUANTIZER_TYPES[dtype]}, this is {graph.description.opset}"
        yield Breach(rule="opset", where=node.name, found=reason, fix="export with a newer opset")
    point = node.inputs[2] if len(node.inputs) > 2 else ""
    if point and not graph.tensor(point).zero:
        known = "is not zero" if graph.tensor(point).constant else "is not a constant, so it cannot be proven zero"
        fix = "quantize symmetrically (ActivationSymmetric and WeightSymmetric)"
        yield Breach(rule="zero point", where=node.name, found=f"its zero point {point!r} {known}", fix=fix)
    if graph.tensor(node.inputs[1]).constant and not graph.tensor(node.inputs[1]).positive:
        reason = f"its scale {node.inputs[1]!r} is not positive throughout"
        yield Breach(rule="scale", where=node.name, found=reason, fix="calibrate on samples that reach this tensor")
    yield from _channels(node, graph)


def _quantized_type(node: Node, graph: _Graph) -> str:
    if node.operator == "DequantizeLinear":
        return graph.tensor(node.inputs[0]).dtype
    if len(node.inputs) > 2 and node.inputs[2] and graph.tensor(node.inputs[2]).dtype:
        return graph.tensor(node.inputs[2]).dtype
    return graph.tensor(node.outputs[0]).dtype


def _channels(node: Node, graph: _Graph) -> Iterator[Breach]:
    scale = graph.tensor(node.inputs[1]).shape
    if not scale or scale == (1,) or node.attributes.get("block_size", 0):
        return
    source = node.inputs[0]
    maker = graph.makers.get(source)
    if maker is not None and maker.operator == "QuantizeLinear":
        source = maker.inputs[0]
    if not graph.tensor(source).constant:
        fix = "quantize activations per tensor"
        yield Breach(rule="channels", where=node.name, found="activations have one scale per tensor", fix=fix)
        return
    rank = len(graph.tensor(source).shape or ())
    axis = node.attributes.get("axis", 1)
    for user, index in graph.weighted_users(node.outputs[0]):
        wanted = _output_axis(user, index, rank)
        if wanted is not None and axis % max(rank, 1) != wanted:
            reason = f"scales run along axis {axis}, {user.operator} {user.name} has its output channels on {wanted}"
            fix = f"quantize these weights along axis {wanted}"
            yield Breach(rule="channels", where=node.name, found=reason, fix=fix)


def _output_axis(user: Node, index: int, rank: int) -> int | None:
    """The axis of a weighted operator's output channels in its weights; None where these are not the weights."""
    if index != 1:
        return None
    if user.operator == "MatMul":
        return rank - 1
    if user.operator == "Gemm":
        return 0 if user.attributes.get("transB", 0) else 1
    return 1 if user.operator == "ConvTranspose" else 0


def _profiles(description: Description, profiles: Sequence[Profile], serves: Sequence[int]) -> Iterator[Breach]:
    """Every dynamic axis in every profile, in order, fixed axes as they are, and every served batch in some profile."""
    shapes = {name: description.tensors[name].shape or () for name in description.inputs}
    dynamic = {name: shape for name, shape in shapes.items() if any(isinstance(dim, str) for dim in shape)}
    if dynamic and not profiles:
        fix = "give batch = [min, opt, max], or profiles"
        yield Breach(rule="profile", where=next(iter(dynamic)), found="no profile covers its dynamic axes", fix=fix)
    for number, profile in enumerate(profiles):
        for name in [*(name for name in dynamic if name not in profile), *profile]:
            if why := _profile_reason(profile, name, shapes):
                fix = f"correct profile {number} of this stage"
                yield Breach(rule="profile", where=name, found=f"profile {number}: {why}", fix=fix)
    for size in serves:
        if dynamic and profiles and not any(_holds(profile, dynamic, size) for profile in profiles):
            reason = f"no profile covers the batch size {size} that will be served"
            yield Breach(rule="batch", where=next(iter(dynamic)), found=reason, fix="widen a profile")


def _profile_reason(profile: Profile, name: str, shapes: Mapping[str, tuple[int | str, ...]]) -> str:
    if name not in shapes:
        return f"the network has no such input; its inputs are {', '.join(shapes)}"
    if name not in profile:
        return "it gives no range for this dynamic input"
    shape, ranges = shapes[name], profile[name]
    if not len(shape) == len(ranges.min) == len(ranges.opt) == len(ranges.max):
        return f"the input has {len(shape)} axes, the profile's shapes {len(ranges.min)}"
    for axis, (dim, low, best, high) in enumerate(zip(shape, ranges.min, ranges.opt, ranges.max, strict=True)):
        if not 1 <= low <= best <= high:
            return f"axis {axis} violates 1 <= min <= opt <= max ({low}, {best}, {high})"
        if isinstance(dim, int) and (low, high) != (dim, dim):
            return f"axis {axis} is fixed at {dim}, the profile gives {low} to {high}"
        if isinstance(dim, str) and (low, best, high) != _symbol(profile, shapes, dim):
            return f"axis {axis} ({dim}) has different ranges on different inputs"
    return ""


def _symbol(profile: Profile, shapes: Mapping[str, tuple[int | str, ...]], symbol: str) -> tuple[int, int, int] | None:
    """The range that a profile gives a symbolic axis where it names it first."""
    for name, shape in shapes.items():
        if name in profile and symbol in shape and len(profile[name].min) == len(shape):
            axis, ranges = shape.index(symbol), profile[name]
            return ranges.min[axis], ranges.opt[axis], ranges.max[axis]
    return None


def _holds(profile: Profile, dynamic: Mapping[str, tuple[int | str, ...]], size: int) -> bool:
    batched = [profile[name] for name, shape in dynamic.items() if isinstance(shape[0], str) and name in profile]
    return all(ranges.min[0] <= size <= ranges.max[0] for ranges in batched if ranges.min and ranges.max)
