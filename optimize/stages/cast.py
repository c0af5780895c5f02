"""Cast: fp16 or bf16 with explicit types, and in fp32 what overflows, vanishes or breaks the contract.

Every type stands in the graph and every boundary is a Cast node, so a strongly typed builder can take the file.
Errors are measured on an emulation: fp32 arithmetic whose weights, inputs and results are rounded to the precision,
which is what hardware with fp32 accumulators does, and which the CPU can run for bf16 too.
"""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import onnx
from onnx import numpy_helper

from ..artifact import Artifact
from ..errors import StageError
from ..globs import check, check_operators, fits_any
from ..graphs.on_onnx import every_node
from ..parity.parity import compare
from ..quantization.on_calibration import batches
from ..quantization.on_result import valid
from ..recipe.configs import CastConfig
from ..samples import Array, Samples
from ..sessions.on_ort import OrtSession
from .casting import FloatGraph
from .guards import broken, guarded, stressed
from .stage import Context, Made

FILE = "model.onnx"
EMULATED = "emulated.onnx"  # left beside the model for the build to compare with where the CPU lacks the kernels
_SAMPLES = 64
_HEADROOM = 0.5  # headroom, since calibration samples do not show the greatest possible value
_ROUNDS = 12
_LARGEST = {"fp16": 65504.0, "bf16": 3.38e38}


def run(config: CastConfig, parent: Artifact, context: Context) -> Made:
    """Make ``model.onnx`` in the precision; inputs and outputs stay as they are.

    Raises:
        ConfigError: a glob or operator that names nothing.
        StageError: an opset too old for bf16, nothing to cast, or the contract fails with everything kept in fp32.
    """
    path = context.store.path(parent, FILE)
    model = _loaded(path)
    graph = FloatGraph(model, config.precision)
    asked = _asked(config, graph)
    samples = context.samples("calibration").take(_SAMPLES)
    context.progress(0.1, "measuring ranges")
    why = graph.unsupported() | asked | guarded(graph, _LARGEST[config.precision])
    probe = _Probe(graph, context)
    peaks = {name: seen.peak for name, seen in probe.compare(samples, graph.model).items()}
    why |= _overflowing(graph, peaks, _LARGEST[config.precision] * _HEADROOM) | asked
    why |= probe.stress(samples, set(why))
    if not any(graph.touches(node) and node.name not in why for node in graph.model.graph.node):
        raise StageError(f"nothing was cast: {_why_nothing(graph, why)}", next_step="remove this stage, or narrow keep")
    seen = probe.compare(samples, graph.converted(set(why), emulate=True))
    ranked = _ranked(graph, seen, set(why))
    reference = OrtSession(path, threads=context.environment.cores)

    def holds(count: int) -> bool:
        context.progress(0.5, f"trying {count} nodes in fp32 for their error")
        onnx.save(graph.converted({*why, *ranked[:count]}, emulate=True), str(context.folder / EMULATED))
        candidate = OrtSession(context.folder / EMULATED, threads=context.environment.cores, optimize=False)
        return not any(row.broken for row in compare(reference, candidate, samples, config.parity))

    count = _least(holds, len(ranked))
    why |= dict.fromkeys(ranked[:count], "its rounding breaks the parity contract")
    holds(count)  # writes the emulation of the final choice
    if config.precision == "fp16":
        (context.folder / EMULATED).unlink()  # the CPU runs the real file
    made, fp16 = graph.converted(set(why), emulate=False), config.precision == "fp16"
    _write(made, context.folder / FILE, strict=not valid(graph.model), runs=fp16)
    return Made(
        format="onnx",
        files=(FILE,),
        inputs=parent.inputs,
        outputs=parent.outputs,
        requires=parent.requires if config.precision == "fp16" else {**parent.requires, "kernels": "bfloat16"},
        notes={
            "precision": config.precision,
            "in_fp32": {name: reason for name, reason in why.items() if name in set(graph.names)},
            "nodes": len(graph.names),
            "checked": "executed" if config.precision == "fp16" else "emulated: the CPU has no bf16 kernels",
        },
    )


def _loaded(path: Path) -> onnx.ModelProto:
    try:
        return onnx.load(str(path))
    except Exception as error:  # protobuf's and onnx's errors share no base
        raise StageError(f"not an ONNX model: {error}", where=str(path), next_step="export it again") from error


def _asked(config: CastConfig, graph: FloatGraph) -> dict[str, str]:
    """The nodes that the recipe keeps in fp32."""
    every = list(every_node(graph.model))
    operators = {node.op_type for node in every}
    check(config.keep, {node.name for node in every}, field="keep", where="cast", operators=operators)
    check_operators(config.keep_operators, operators, field="keep_operators", where="cast")
    return {
        node.name: "asked for"
        for node in graph.model.graph.node
        if fits_any(config.keep, (node.name,)) or node.op_type in config.keep_operators
    }


def _why_nothing(graph: FloatGraph, why: Mapping[str, str]) -> str:
    if not any(graph.touches(node) for node in graph.model.graph.node):
        return "no node computes in fp32"
    first = next(name for name in graph.names if name in why)
    return f"all {len(graph.names)} nodes stay in fp32 ({first}: {why[first]})"


def _write(model: onnx.ModelProto, path: Path, *, strict: bool, runs: bool) -> None:
    if strict and (why := valid(model)):
        raise StageError(f"the cast graph is not valid: {why}", next_step="keep the node it names in fp32 (keep)")
    try:
        path.write_bytes(model.SerializeToString(deterministic=True))
        if runs:
            OrtSession(path)
    except StageError as error:
        raise StageError(
            f"the cast graph does not open: {error.what}", next_step="keep the node it names in fp32 (keep)"
        ) from error
    except Exception as error:  # protobuf holds no more than 2 GB
        raise StageError(f"the graph cannot be written: {error}", next_step="cast a smaller model") from error


def _least(holds: Callable[[int], bool], most: int) -> int:
    """The smallest prefix of the ranking that holds, by bisection; more nodes in fp32 are taken to never hurt."""
    if holds(0):
        return 0
    if not holds(most):
        raise StageError(
            "the contract fails even with every node in fp32", next_step="set a wider tolerance under parity"
        )
    low, high = 0, most
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (low, middle) if holds(middle) else (middle, high)
    return high


def _overflowing(graph: FloatGraph, measured: Mapping[str, float], limit: float) -> dict[str, str]:
    """Nodes that touch a tensor beyond the limit: its producer and its consumers."""
    peaks = dict(measured)
    for name, item in graph.weights.items():
        values = numpy_helper.to_array(item)
        peaks[name] = float(np.abs(values[np.isfinite(values)]).max(initial=0))  # fp16 holds infinities
    found = {}
    for node in graph.model.graph.node:
        worst = max([*node.input, *node.output], key=lambda name: peaks.get(name, 0.0), default="")
        if peaks.get(worst, 0.0) > limit:
            found[node.name] = f"{worst} reaches {peaks[worst]:.3g}"
    return found


def _ranked(graph: FloatGraph, seen: Mapping[str, "_Seen"], kept: set[str]) -> list[str]:
    """Low nodes by the relative error that they add to what they were given, worst first."""
    errors = {name: one.error for name, one in seen.items()}
    added = {}
    for node in graph.model.graph.node:
        if node.name not in kept and graph.touches(node):
            given = max((errors.get(name, 0.0) for name in node.input), default=0.0)
            made = max((errors.get(name, 0.0) for name in node.output), default=0.0)
            added[node.name] = made if np.isinf(made) else made - given
    return sorted(added, key=lambda name: -added[name])


@dataclass(slots=True)
class _Seen:
    """One tensor over all batches: greatest magnitude, and greatest difference from the exact value."""

    peak: float = 0.0
    difference: float = 0.0

    @property
    def error(self) -> float:
        """The difference relative to the greatest magnitude; infinite where a finite value became none."""
        return self.difference / max(self.peak, 1e-12)


@dataclass(frozen=True, slots=True)
class _Probe:
    """Runs graphs with every float tensor exposed, batch by batch, so that memory is bounded by one batch."""

    graph: FloatGraph
    context: Context
    _exact: list[OrtSession] = field(default_factory=list)

    def compare(self, samples: Samples, model: onnx.ModelProto) -> dict[str, _Seen]:
        """Every float tensor that the original graph computes, in it and in `model`."""
        seen: dict[str, _Seen] = {}
        for inputs in self._inputs(samples):
            exact, got = self._run(inputs, model)
            for name, values in exact.items():
                one = seen.setdefault(name, _Seen())
                one.peak = max(one.peak, float(np.abs(values[np.isfinite(values)]).max(initial=0.0)))
                one.difference = max(one.difference, _difference(values, got[name]))
        return seen

    def stress(self, samples: Samples, kept: set[str]) -> dict[str, str]:
        """Nodes whose results vanish or overflow in low precision on rows of zeros or of very small numbers."""
        why: dict[str, str] = {}
        cases = stressed(next(self._inputs(samples)))
        for _ in range(_ROUNDS):
            model = self.graph.converted(kept | set(why), emulate=True)
            found: dict[str, str] = {}
            for inputs in cases:
                try:
                    exact, got = self._run(inputs, model)
                except StageError:  # the model refuses rows of zeros, whatever the precision
                    continue
                found |= broken(self.graph, exact, got)
            if not set(found) - set(why) - kept:
                break
            why |= {name: reason for name, reason in found.items() if name not in kept}
        return why

    def _inputs(self, samples: Samples) -> Iterator[dict[str, Array]]:
        """Yield the inputs of each batch of samples, [batch, ...] by name."""
        for batch in batches(self.graph.model, samples):
            yield dict(batch.inputs)

    def _run(self, inputs: Mapping[str, Array], model: onnx.ModelProto) -> tuple[dict[str, Array], dict[str, Array]]:
        """Return the float tensors of the exact graph and of `model` by name, on one batch [batch, ...]."""
        if not self._exact:
            self._exact.append(self._open(self.graph.model))
        exact = self._exact[0].run(inputs)
        got = exact if model is self.graph.model else self._open(model).run(inputs)
        made = {name for node in self.graph.model.graph.node for name in node.output} & self.graph.floats
        return {name: exact[name] for name in made}, {name: got[name] for name in made}

    def _open(self, model: onnx.ModelProto) -> OrtSession:
        shown = onnx.ModelProto()
        shown.CopyFrom(model)
        outputs = {value.name for value in shown.graph.output}
        made = {name for node in self.graph.model.graph.node for name in node.output} & self.graph.floats
        shown.graph.output.extend([onnx.ValueInfoProto(name=name) for name in sorted(made - outputs)])
        path = self.context.folder / "shown.onnx"
        onnx.save(shown, str(path))
        try:
            return OrtSession(path, threads=self.context.environment.cores, optimize=False)
        finally:
            path.unlink()


def _difference(exact: Array, rounded: Array) -> float:
    """Return the largest absolute difference of arrays of one shape; infinite where only `rounded` is not finite."""
    finite = np.isfinite(exact)
    if not np.isfinite(rounded[finite]).all():
        return float("inf")
    return float(np.abs(exact[finite] - rounded[finite]).max(initial=0.0))
