"""Cast: fp16 or bf16 with explicit types, and in fp32 what overflows or breaks the contract.

Every type stands in the graph and every boundary is a Cast node, so a strongly typed builder can take the file.
Errors are measured on an emulation: fp32 arithmetic whose weights, inputs and results are rounded to the precision,
which is what hardware with fp32 accumulators does, and which the CPU can run for bf16 too.
"""

from collections.abc import Callable, Mapping, Sequence
from fnmatch import fnmatch

import ml_dtypes
import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper
from onnx.defs import OpSchema, get_schema

from ..artifact import Artifact
from ..errors import StageError
from ..parity import compare
from ..samples import Array, Samples
from ..sessions.on_ort import OrtSession
from .configs import CastConfig
from .stage import Context, Made

FILE = "model.onnx"
EMULATED = "emulated.onnx"  # left beside the model for the build to compare with where the CPU lacks the kernels
_SAMPLES = 64
_HEADROOM = 0.5  # calibration samples do not show the greatest value that will ever come
_BFLOAT_OPSET = 22
_TYPED = frozenset(("ConstantOfShape", "EyeLike", "RandomNormal", "RandomUniform", "RandomNormalLike", "Range"))
_KINDS = {"fp16": TensorProto.FLOAT16, "bf16": TensorProto.BFLOAT16}
_NUMPY = {"fp16": np.dtype(np.float16), "bf16": np.dtype(ml_dtypes.bfloat16)}
_LARGEST = {"fp16": 65504.0, "bf16": 3.38e38}


def run(config: CastConfig, parent: Artifact, context: Context) -> Made:
    """Make ``model.onnx`` in the precision; inputs and outputs stay fp32.

    Raises:
        StageError: control flow, an opset too old for bf16, or the contract fails although everything is kept in fp32.
    """
    graph = _Graph(onnx.load(str(context.store.path(parent, FILE))), config.precision)
    samples = context.samples("calibration").take(_SAMPLES)
    context.progress(0.1, "measuring ranges")
    exact = graph.values(context, graph.model, samples)
    why = dict.fromkeys(graph.unsupported(), "has no kernel type for it")
    why |= {name: "asked for" for name in graph.names if any(fnmatch(name, glob) for glob in config.keep)}
    why |= graph.overflowing(exact, _LARGEST[config.precision] * _HEADROOM)
    ranked = graph.ranked(exact, graph.values(context, graph.converted(set(why), emulate=True), samples), set(why))
    reference = OrtSession(context.store.path(parent, FILE), threads=context.environment.cores)

    def holds(count: int) -> bool:
        context.progress(0.5, f"trying {count} nodes in fp32 for their error")
        onnx.save(graph.converted({*why, *ranked[:count]}, emulate=True), str(context.folder / EMULATED))
        candidate = OrtSession(context.folder / EMULATED, threads=context.environment.cores, optimize=False)
        return not any(row.broken for row in compare(reference, candidate, samples, config.parity))

    count = _least(holds, len(ranked))
    why |= dict.fromkeys(ranked[:count], "its rounding breaks the contract")
    holds(count)  # leaves the emulation of what was chosen
    if config.precision == "fp16":
        (context.folder / EMULATED).unlink()  # the CPU runs the real file
    model = graph.converted(set(why), emulate=False)
    onnx.checker.check_model(model, full_check=True)
    onnx.save_model(model, str(context.folder / FILE), save_as_external_data=False)
    return Made(
        format="onnx",
        files=(FILE,),
        inputs=parent.inputs,
        outputs=parent.outputs,
        requires=parent.requires if config.precision == "fp16" else {**parent.requires, "gpu": "nvidia"},
        notes={
            "precision": config.precision,
            "in_fp32": why,
            "nodes": len(graph.names),
            "checked": "executed" if config.precision == "fp16" else "emulated: the CPU has no bf16 kernels",
        },
    )


def _least(holds: Callable[[int], bool], most: int) -> int:
    """The smallest prefix of the ranking that holds, by bisection; more nodes in fp32 are taken to never hurt."""
    if holds(0):
        return 0
    if not holds(most):
        raise StageError("the contract fails even with every node in fp32", next_step="state a wider tolerance")
    low, high = 0, most
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (low, middle) if holds(middle) else (middle, high)
    return high


class _Graph:
    """A float graph with a name for each node, its constants as initializers, and the type of every tensor."""

    def __init__(self, model: onnx.ModelProto, precision: str) -> None:
        self.kind, self.numpy = _KINDS[precision], _NUMPY[precision]
        self.opset = next(item.version for item in model.opset_import if item.domain in ("", "ai.onnx"))
        if precision == "bf16" and self.opset < _BFLOAT_OPSET:
            raise StageError(
                f"bf16 needs opset {_BFLOAT_OPSET}, the model has {self.opset}", next_step="set opset = 22 in export"
            )
        for number, node in enumerate(model.graph.node):
            if any(item.type in (onnx.AttributeProto.GRAPH, onnx.AttributeProto.GRAPHS) for item in node.attribute):
                raise StageError(f"{node.op_type} {node.name!r} has a body; control flow is not cast")
            node.name = node.name or f"{node.op_type}_{number}"
        constants = [
            node for node in model.graph.node if node.op_type == "Constant" and node.attribute[0].name == "value"
        ]
        for node in constants:
            tensor = model.graph.initializer.add()
            tensor.CopyFrom(node.attribute[0].t)
            tensor.name = node.output[0]
            model.graph.node.remove(node)
        self.model = onnx.shape_inference.infer_shapes(model, strict_mode=True, data_prop=True)
        graph = self.model.graph
        values = [*graph.value_info, *graph.input, *graph.output]
        self.floats = {value.name for value in values if value.type.tensor_type.elem_type == TensorProto.FLOAT}
        self.weights = {item.name: item for item in graph.initializer if item.data_type == TensorProto.FLOAT}
        self.floats |= set(self.weights)
        self.names = [node.name for node in graph.node]

    def unsupported(self) -> list[str]:
        """Nodes that cannot be typed low: unknown operators, types fixed by an attribute or by the schema."""
        return [node.name for node in self.model.graph.node if not self._castable(node)]

    def overflowing(self, values: Mapping[str, Array], limit: float) -> dict[str, str]:
        """Nodes that touch a tensor beyond the limit: whoever makes it and whoever takes it."""
        peaks = {name: float(np.abs(array).max(initial=0)) for name, array in values.items()}
        peaks |= {
            name: float(np.abs(numpy_helper.to_array(item)).max(initial=0)) for name, item in self.weights.items()
        }
        found = {}
        for node in self.model.graph.node:
            worst = max([*node.input, *node.output], key=lambda name: peaks.get(name, 0.0))
            if peaks.get(worst, 0.0) > limit:
                found[node.name] = f"{worst} reaches {peaks[worst]:.3g}"
        return found

    def ranked(self, exact: Mapping[str, Array], rounded: Mapping[str, Array], kept: set[str]) -> list[str]:
        """Low nodes by the relative error that they add to what they were given, worst first."""
        errors = {name: _error(exact[name], rounded[name]) for name in exact}
        added = {}
        for node in self.model.graph.node:
            if node.name not in kept:
                given = max((errors.get(name, 0.0) for name in node.input), default=0.0)
                made = max((errors.get(name, 0.0) for name in node.output), default=0.0)
                added[node.name] = made if np.isinf(made) else made - given
        return sorted(added, key=lambda name: -added[name])

    def values(self, context: Context, model: onnx.ModelProto, samples: Samples) -> dict[str, Array]:
        """Every float tensor that the original graph computes, from one run of `model` on the samples."""
        shown = onnx.ModelProto()
        shown.CopyFrom(model)
        outputs = {value.name for value in shown.graph.output}
        made = {name for node in self.model.graph.node for name in node.output} & self.floats
        shown.graph.output.extend([onnx.ValueInfoProto(name=name) for name in sorted(made - outputs)])
        path = context.folder / "shown.onnx"
        onnx.save(shown, str(path))
        got = OrtSession(path, threads=context.environment.cores, optimize=False).run(samples.inputs)
        path.unlink()
        return {name: array for name, array in got.items() if name in made}

    def converted(self, kept: set[str], *, emulate: bool) -> onnx.ModelProto:
        """The graph with all other nodes in low precision, or in fp32 with the same roundings (`emulate`)."""
        return _Conversion(self, kept, emulate=emulate).model

    def _castable(self, node: onnx.NodeProto) -> bool:
        if node.domain not in ("", "ai.onnx") or node.op_type in _TYPED:
            return False
        schema = get_schema(node.op_type, self.opset, "")
        places = [*zip(node.input, _formals(schema.inputs, node.input), strict=True)]
        places += zip(node.output, _formals(schema.outputs, node.output), strict=True)
        return all(self.low(schema, formal) for name, formal in places if name in self.floats and "(" not in formal)

    def low(self, schema: OpSchema, formal: str) -> bool:
        """Whether that type of the operator may be the low precision; ``tensor(float)`` itself never is."""
        text = "tensor(float16)" if self.kind == TensorProto.FLOAT16 else "tensor(bfloat16)"
        return any(item.type_param_str == formal and text in item.allowed_type_strs for item in schema.type_constraints)


class _Conversion:
    """One pass over the nodes: a tensor ``x`` is fp32, its low form ``x_low``; a Cast is made where one is missing."""

    def __init__(self, graph: _Graph, kept: set[str], *, emulate: bool) -> None:
        self._graph, self._emulate = graph, emulate
        self.model = onnx.ModelProto()
        self.model.CopyFrom(graph.model)
        del self.model.graph.node[:], self.model.graph.value_info[:]
        self._have = set(graph.floats - {name for node in graph.model.graph.node for name in node.output})
        for original in graph.model.graph.node:
            node = onnx.NodeProto()
            node.CopyFrom(original)
            low = original.name not in kept
            schema = get_schema(node.op_type, graph.opset, "") if low else None
            for index, formal in enumerate(_formals(schema.inputs, node.input) if schema else [""] * len(node.input)):
                if node.input[index] in graph.floats:
                    wanted = schema is not None and graph.low(schema, formal)
                    node.input[index] = self._form(node.input[index], low=wanted)
            self.model.graph.node.append(node)
            node = self.model.graph.node[-1]  # appending copies
            for index, formal in enumerate(
                _formals(schema.outputs, node.output) if schema else [""] * len(node.output)
            ):
                if (name := node.output[index]) in graph.floats:
                    self._have.add(name)
                    if schema is not None and graph.low(schema, formal):
                        self._lower_output(node, index, name)
        for value in self.model.graph.output:
            if value.name in graph.floats:
                self._form(value.name, low=False)
        used = {name for node in self.model.graph.node for name in node.input}
        unused = [item for item in self.model.graph.initializer if item.name not in used]
        for item in unused:
            self.model.graph.initializer.remove(item)

    def _lower_output(self, node: onnx.NodeProto, index: int, name: str) -> None:
        if self._emulate:
            node.output[index] = f"{name}_raw"
            self._round(f"{name}_raw", name)
            return
        if node.op_type == "Cast":
            next(item for item in node.attribute if item.name == "to").i = self._graph.kind
        node.output[index] = f"{name}_low"
        self._have.discard(name)
        self._have.add(f"{name}_low")

    def _form(self, name: str, *, low: bool) -> str:
        """The tensor's name in that form, made now if it is not there yet."""
        wanted = f"{name}_low" if low else name
        if wanted in self._have:
            return wanted
        if low and name in self._graph.weights:
            rounded = numpy_helper.to_array(self._graph.weights[name]).astype(self._graph.numpy)
            array = rounded.astype(np.float32) if self._emulate else rounded
            self.model.graph.initializer.append(numpy_helper.from_array(array, wanted))
        elif low and self._emulate:
            self._round(name, wanted)
        else:
            source, kind = (name, self._graph.kind) if low else (f"{name}_low", TensorProto.FLOAT)
            self._cast(source, wanted, kind)
        self._have.add(wanted)
        return wanted

    def _round(self, source: str, result: str) -> None:
        self._cast(source, f"{result}_rounded", self._graph.kind)
        self._cast(f"{result}_rounded", result, TensorProto.FLOAT)

    def _cast(self, source: str, result: str, kind: int) -> None:
        self.model.graph.node.append(helper.make_node("Cast", [source], [result], name=f"{result}_cast", to=kind))


def _formals(formals: Sequence[OpSchema.FormalParameter], names: Sequence[str]) -> list[str]:
    """The type variable of each actual parameter; a variadic last one stands for all that follow."""
    return [formals[min(index, len(formals) - 1)].type_str for index in range(len(names))]


def _error(exact: Array, rounded: Array) -> float:
    if not np.isfinite(rounded[np.isfinite(exact)]).all():
        return float("inf")
    return float(np.abs(exact - rounded).max(initial=0.0) / max(np.abs(exact).max(initial=0.0), 1e-12))
