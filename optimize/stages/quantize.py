"""Quantize: static, dynamic or weight-only integers, in the types and symmetry that the target's kernels take."""

from collections.abc import Callable, Collection, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from fnmatch import fnmatchcase
from typing import Any, cast

import onnx

from ..artifact import Artifact, canonical, digest_bytes
from ..errors import StageError
from ..quantization import on_calibration, on_graph, on_noise, on_static, on_weights
from ..quantization.on_bias import corrected
from ..quantization.on_residual import quantize_residuals, residuals
from ..quantization.on_smooth import smoothed
from ..quantization.statistics import Statistics
from ..targets import TARGETS, Contract, resolve
from .configs import Override, QuantizeConfig
from .stage import Context, Made, code_digest, libraries

FILE = "model.onnx"
_COUNTED = ("QuantizeLinear", "DequantizeLinear", "MatMulInteger", "ConvInteger", "MatMulNBits")


def run(config: QuantizeConfig, parent: Artifact, context: Context) -> Made:
    """Make the quantized ``model.onnx`` for the target; ``auto`` is this machine's.

    Raises:
        ConfigError: an override asks for what the target has no kernels for.
        StageError: nothing could be quantized, or ONNX Runtime's tools refused the graph.
    """
    target = resolve(config.target, context.environment)
    config = replace(config, target=cast("Any", target))  # asks again whether overrides are legal, now by name
    contract = TARGETS[target]
    context.progress(0.1, f"preparing for {target}")
    opset = max(contract.opset, 21 if any(_new_types(override) for override in config.overrides) else 0)
    model = on_graph.prepare(context.store.path(parent, FILE), context.folder, opset)
    work = _Work(config, contract, context)
    method = {"static": work.static, "dynamic": work.dynamic, "weight-only": work.weight_only}[config.method]
    made, notes = method(model)
    count = _count(made)
    if not any(count.values()):
        raise StageError("nothing was quantized", next_step="widen operators or narrow exclude in this stage")
    (context.folder / FILE).write_bytes(made.SerializeToString(deterministic=True))
    return Made(
        format="onnx",
        files=(FILE,),
        inputs=parent.inputs,
        outputs=parent.outputs,
        requires={} if config.method == "weight-only" and not contract.gpu else contract.requires(),
        notes={"target": target, "method": config.method, **notes, **count},
    )


def layers(config: QuantizeConfig, parent: Artifact, context: Context) -> tuple[str, ...]:
    """Names of the nodes with weights or products that the configuration would quantize, in the graph's order."""
    contract = TARGETS[resolve(config.target, context.environment)]
    model = on_graph.prepare(context.store.path(parent, FILE), context.folder, contract.opset)
    chosen = set(_Work(config, contract, context).chosen(model))
    return tuple(node.name for node in model.graph.node if node.name in chosen and node.op_type in on_graph.WEIGHTED)


def noise(config: QuantizeConfig, parent: Artifact, context: Context) -> dict[str, float]:
    """How much static integers disturb each node that has weights: error over variance of its output (`on_noise`)."""
    contract = TARGETS[resolve(config.target, context.environment)]
    model = on_graph.prepare(context.store.path(parent, FILE), context.folder, contract.opset)
    return _Work(config, contract, context).noise(model)


class _Work:
    """One model's quantization: the configuration, the target's contract, and the place to work in."""

    def __init__(self, config: QuantizeConfig, contract: Contract, context: Context) -> None:
        self.config = config
        self.contract = contract
        self.context = context

    def chosen(self, model: onnx.ModelProto) -> list[str]:
        """The nodes that the method quantizes."""
        config = self.config
        if config.method != "static":
            default = on_weights.DYNAMIC if config.method == "dynamic" else on_weights.WEIGHT_ONLY
            return self._nodes(model, frozenset(config.operators or default))
        wanted = on_graph.operators(model, config.operators, self.contract.operators)
        if config.smooth is not None and not wanted:  # integers before a smoothed tensor would undo the smoothing
            wanted = on_graph.WEIGHTED
        chosen = self._nodes(model, on_static.quantizable(wanted))
        if config.products == "all":
            return chosen
        unweighted = on_graph.activation_products(model)
        return [name for name in chosen if name not in unweighted]

    def static(self, model: onnx.ModelProto) -> tuple[onnx.ModelProto, dict[str, object]]:
        """Q/DQ with ranges from the calibration split, smoothed and corrected where the recipe says so."""
        config = self.config
        nodes = self.chosen(model)
        notes: dict[str, object] = {"activations": self.contract.activations, "ranges": config.ranges}
        if config.smooth is not None:
            model, notes["smoothed"] = self._smooth(model, nodes, config.smooth)
        emit = self._emitter(model, nodes)
        made = emit(model)
        if config.bias_correction:
            model, notes["corrected_biases"] = corrected(model, made, nodes, **self._runs())
            made = emit(model)
        return made, notes

    def noise(self, model: onnx.ModelProto) -> dict[str, float]:
        """Noise by node, of the static graph before any correction."""
        nodes = self.chosen(model)
        if self.config.smooth is not None:
            model, _ = self._smooth(model, nodes, self.config.smooth)
        return on_noise.noise(model, self._emitter(model, nodes)(model), nodes, **self._runs())

    def _emitter(self, model: onnx.ModelProto, nodes: Sequence[str]) -> Callable[[onnx.ModelProto], onnx.ModelProto]:
        """What puts Q/DQ around the nodes of this model, or of one that differs from it in biases alone."""
        config, contract = self.config, self.contract
        branches = residuals(model, nodes) if contract.residuals else ()
        tensors = [*on_graph.float_tensors(model, nodes), *(branch.tensor for branch in branches)]
        known = self._statistics(model, list(dict.fromkeys(tensors)), ())
        self.context.progress(0.8, "quantizing")
        ranges = known.ranges(config.ranges, symmetric=contract.activation_symmetric, percentile=config.percentile)

        def emit(source: onnx.ModelProto) -> onnx.ModelProto:
            with _refusals():
                emitted = on_static.quantized(
                    source, nodes, ranges, contract, per_channel=config.per_channel, types=self._override
                )
            return quantize_residuals(emitted, branches, ranges)

        return emit

    def _runs(self) -> dict[str, Any]:
        """On what, where, and with how many threads a graph is run over the calibration split."""
        context = self.context
        return {
            "samples": context.samples("calibration"),
            "folder": context.folder,
            "threads": context.environment.cores,
        }

    def dynamic(self, model: onnx.ModelProto) -> tuple[onnx.ModelProto, dict[str, object]]:
        """8-bit weights, activations measured at run time."""
        nodes = self.chosen(model)
        notes: dict[str, object] = {"activations": "uint8"}
        if self.config.smooth is not None:
            model, notes["smoothed"] = self._smooth(model, nodes, self.config.smooth)
        self.context.progress(0.8, "quantizing")
        with _refusals():
            made = on_weights.dynamic(
                model,
                nodes,
                per_channel=self.config.per_channel,
                reduce_range=self.contract.reduce_range,
                folder=self.context.folder,
            )
        return made, notes

    def weight_only(self, model: onnx.ModelProto) -> tuple[onnx.ModelProto, dict[str, object]]:
        """Weights in blocks, or by channel, under float activations."""
        nodes = self.chosen(model)
        if self.config.storage == "channels":
            return on_weights.channels(model, nodes), {"activations": "float", "bits": [8]}
        bits = {}
        for node in model.graph.node:
            if node.name in nodes:
                override = self._override(node)
                asked = override.weights if override is not None else None
                bits[node.name] = {"int4": 4, "int8": 8}.get(asked or "", self.config.bits)
        with _refusals():
            made = on_weights.weight_only(
                model, bits, block_size=self.config.block_size, accuracy_level=self.config.accuracy_level
            )
        return made, {"activations": "float", "bits": sorted(set(bits.values()))}

    def _nodes(self, model: onnx.ModelProto, operators: frozenset[str]) -> list[str]:
        """The nodes to quantize: of these operators, not excluded, not kept in float by an override."""
        found = []
        for node in model.graph.node:
            override = self._override(node)
            excluded = any(fnmatchcase(node.name, glob) for glob in self.config.exclude)
            if node.op_type in operators and not excluded and not (override is not None and override.keeps_float):
                found.append(node.name)
        return found

    def _override(self, node: onnx.NodeProto) -> Override | None:
        return next((one for one in self.config.overrides if one.fits(node.name, node.op_type)), None)

    def _smooth(
        self, model: onnx.ModelProto, nodes: Sequence[str], strength: float
    ) -> tuple[onnx.ModelProto, dict[str, int]]:
        inputs = {product.node.input[0] for product in on_graph.products(model, nodes)}
        known = self._statistics(
            model, [name for name in on_graph.float_tensors(model, nodes) if name in inputs], inputs
        )
        changed, added = smoothed(model, nodes, known.channels, strength)
        return changed, {"inputs": len(inputs), "explicit": len(added)}

    def _statistics(self, model: onnx.ModelProto, tensors: Sequence[str], channels: Collection[str]) -> Statistics:
        """Statistics of these tensors, from the note about this graph and these samples as far as it has them."""
        samples = self.context.samples("calibration")
        depends = [model.SerializeToString(deterministic=True), samples.digest.encode(), self._code()]
        key = digest_bytes(b"".join(digest_bytes(part).encode() for part in depends))
        known = self.context.store.recall_as("statistics", key, Statistics.from_json) or Statistics()
        missing = [
            name for name in tensors if name not in known.tensors or (name in channels and name not in known.channels)
        ]
        if missing:
            text = f"calibrating {len(missing)} tensors on {len(samples)} samples"
            measured = on_calibration.collect(
                model,
                missing,
                channels,
                samples,
                folder=self.context.folder,
                threads=self.context.environment.cores,
                report=lambda share: self.context.progress(0.2 + 0.5 * share, text),
            )
            known = Statistics(
                tensors={**known.tensors, **measured.tensors}, channels={**known.channels, **measured.channels}
            )
            self.context.store.remember("statistics", key, known.to_json())
        return Statistics(
            tensors={name: known.tensors[name] for name in tensors},
            channels={name: known.channels[name] for name in tensors if name in known.channels},
        )

    def _code(self) -> bytes:
        """What else the statistics depend on: this stage's code and its libraries."""
        return canonical([code_digest(self.config), libraries(self.config, self.context.environment)])


@contextmanager
def _refusals() -> Iterator[None]:
    """What ONNX Runtime's quantizers raise, as one of ours."""
    try:
        yield
    except Exception as error:  # they raise anything from ValueError to bare Exception
        raise StageError(
            f"ONNX Runtime's quantizer refused the graph: {error}", next_step="exclude the node it names"
        ) from error


def _new_types(override: Override) -> bool:
    """Whether it needs types that ONNX knows since opset 21."""
    return override.activations == "uint16" or override.weights == "int4"


def _count(model: onnx.ModelProto) -> dict[str, int]:
    kinds = [node.op_type for node in model.graph.node]
    return {kind: kinds.count(kind) for kind in _COUNTED if kind in kinds}
