"""Quantize: static, dynamic or weight-only integers, in the types and symmetry that the target's kernels take."""

from collections.abc import Callable, Collection, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any, cast

import onnx

from ..artifact import Artifact, canonical, digest_bytes
from ..errors import StageError
from ..globs import check, check_operators, fits_any
from ..quantization import (
    on_awq,
    on_calibration,
    on_dynamic,
    on_fp8,
    on_graph,
    on_narrow,
    on_noise,
    on_origin,
    on_result,
    on_static,
    on_weights,
)
from ..quantization.on_bias import corrected
from ..quantization.on_residual import quantize_residuals, residuals
from ..quantization.on_smooth import smoothed
from ..quantization.ranges import too_wide
from ..quantization.statistics import Statistics
from ..quiet import quiet
from ..recipe.configs import Override, QuantizeConfig
from ..recipe.kinds import STAGES
from ..recipe.targets import TARGETS, Contract, resolve
from .stage import Context, Made, libraries

FILE = "model.onnx"
_COUNTED = (
    "QuantizeLinear",
    "DequantizeLinear",
    "MatMulInteger",
    "ConvInteger",
    "MatMulNBits",
    "DynamicQuantizeLSTM",
    "QAttention",
)


def run(config: QuantizeConfig, parent: Artifact, context: Context) -> Made:
    """Make the quantized ``model.onnx`` for the target; ``auto`` is this machine's.

    Raises:
        ConfigError: an override asks for what the target has no kernels for.
        StageError: nothing could be quantized, or ONNX Runtime's tools refused the graph.
    """
    target = resolve(config.target, context.environment)
    config = replace(config, target=cast("Any", target))  # checks overrides again, now for the named target
    contract = TARGETS[target]
    context.progress(0.1, f"preparing for {target}")
    opset = max(contract.opset, 21 if any(_new_types(override) for override in config.overrides) else 0)
    opset = max(opset, on_narrow.OPSETS.get(config.precision, 0))
    work = _Work(config, contract, context, context.store.path(parent, FILE), opset)
    method = {"static": work.static, "dynamic": work.dynamic, "weight-only": work.weight_only}[config.method]
    made, notes = method()
    count = _count(made)
    if not any(count.values()):
        raise work.nothing()
    on_result.write(made, context.folder / FILE, strict=not on_result.valid(work.model))
    if work.left:
        notes["in_float"] = {work.called(name): why for name, why in work.left.items()}
    return Made(
        format="onnx",
        files=(FILE,),
        inputs=parent.inputs,
        outputs=parent.outputs,
        requires=_requires(config, contract),
        notes={"target": target, "method": config.method, "precision": config.precision, **notes, **count},
    )


def _requires(config: QuantizeConfig, contract: Contract) -> dict[str, Any]:
    """Return what the artifact needs of its hardware."""
    if config.method == "weight-only" and not contract.gpu:
        return {}
    return contract.requires() | ({"compute_capability_least": "8.9"} if config.precision == "fp8" else {})


def layers(config: QuantizeConfig, parent: Artifact, context: Context) -> tuple[str, ...]:
    """Names of the nodes with weights or products that the configuration would quantize, in the graph's order."""
    contract = TARGETS[resolve(config.target, context.environment)]
    work = _Work(config, contract, context, context.store.path(parent, FILE), contract.opset)
    chosen = set(work.chosen())
    return tuple(
        node.name for node in work.model.graph.node if node.name in chosen and node.op_type in on_origin.WEIGHTED
    )


def noise(config: QuantizeConfig, parent: Artifact, context: Context) -> dict[str, float]:
    """Measure the int8 noise of each node with weights: error over variance of its output (`on_noise`)."""
    contract = TARGETS[resolve(config.target, context.environment)]
    return _Work(config, contract, context, context.store.path(parent, FILE), contract.opset).noise()


class _Work:
    """One model's quantization: the configuration, the target's contract, the prepared graph, and a place to work in.

    `left` are nodes that stay in float although they were to be quantized, with the reason.
    """

    def __init__(self, config: QuantizeConfig, contract: Contract, context: Context, source: Path, opset: int) -> None:
        self.config = config
        self.contract = contract
        self.context = context
        self.source = source
        self.model, self.origins = on_graph.traced(source, context.folder, opset)
        self.left: dict[str, str] = {}
        _check_names(config, self.origins)

    def called(self, name: str) -> str:
        """Return what the user calls a node: its name, or those of what is fused in it."""
        own = self.origins.nodes[name].names if name in self.origins.nodes else frozenset({name})
        return " + ".join(sorted(own - {name})) or name

    def nothing(self) -> StageError:
        """The refusal of a stage that would change nothing."""
        there = sorted({operator for node in self.model.graph.node for operator in self.origins.of(node).operators})
        why = [f"{self.called(name)}: {reason}" for name, reason in list(self.left.items())[:4]]
        return StageError(
            "nothing was quantized" + (f" ({'; '.join(why)})" if why else ""),
            where=f"operators of the graph: {', '.join(there)}",
            next_step="widen operators or narrow exclude in this stage",
        )

    def chosen(self) -> list[str]:
        """The nodes that the method quantizes."""
        config, model = self.config, self.model
        if config.method == "dynamic":
            chosen = self._nodes(model, frozenset(config.operators or on_dynamic.DYNAMIC))
            why = {node.name: on_dynamic.why_not(model, node) for node in model.graph.node if node.name in set(chosen)}
            self.left |= {name: reason for name, reason in why.items() if reason}
            return [name for name in chosen if not why[name]]
        if config.method == "weight-only":
            return self._nodes(model, frozenset(config.operators or on_weights.default(config.storage)))
        wanted = on_graph.operators(model, config.operators, self.contract.operators)
        if config.precision == "fp8":
            wanted = tuple(name for name in wanted if name in on_fp8.WEIGHTED)
        if config.smooth is not None and not wanted:  # integers before a smoothed tensor would undo the smoothing
            wanted = on_origin.WEIGHTED
        chosen = self._nodes(model, on_static.quantizable(wanted))
        self.left |= {name: why for name, why in on_static.unfit(model).items() if name in set(chosen)}
        chosen = [name for name in chosen if name not in self.left]
        if config.products == "all":
            return chosen
        unweighted = on_graph.activation_products(model)
        return [name for name in chosen if name not in unweighted]

    def static(self) -> tuple[onnx.ModelProto, dict[str, object]]:
        """Q/DQ with ranges from the calibration split, smoothed and corrected where the recipe says so."""
        config, model = self.config, self.model
        nodes = self.chosen()
        activations = "fp8" if config.precision == "fp8" else self.contract.activations
        notes: dict[str, object] = {"activations": activations, "ranges": config.ranges}
        if config.smooth is not None:
            model, notes["smoothed"] = self._smooth(model, nodes, config.smooth)
        on_result.prove(self.source, model, **self._runs())
        emit, nodes = self._emitter(model, nodes)
        if not nodes:
            raise self.nothing()
        made = emit(model)
        if config.bias_correction:
            model, notes["corrected_biases"] = corrected(model, made, nodes, **self._runs())
            made = emit(model)
        return made, notes

    def noise(self) -> dict[str, float]:
        """Noise by node, of the static graph before any correction."""
        nodes, model = self.chosen(), self.model
        if self.config.smooth is not None:
            model, _ = self._smooth(model, nodes, self.config.smooth)
        emit, nodes = self._emitter(model, nodes)
        return on_noise.noise(model, emit(model), nodes, **self._runs())

    def _emitter(
        self, model: onnx.ModelProto, nodes: Sequence[str]
    ) -> tuple[Callable[[onnx.ModelProto], onnx.ModelProto], list[str]]:
        """A function that puts Q/DQ around the nodes of this model, or of one with other biases, and those nodes.

        Nodes at a tensor that no 8-bit scale holds (`too_wide`) are left out.
        """
        config, contract = self.config, self.contract
        branches = residuals(model, nodes) if contract.residuals and config.precision == "int8" else ()
        tensors = [*on_graph.float_tensors(model, nodes), *(branch.tensor for branch in branches)]
        known = self._statistics(model, list(dict.fromkeys(tensors)), ())
        self.context.progress(0.8, "quantizing")
        symmetric = contract.activation_symmetric
        ranges = known.ranges(config.ranges, symmetric=symmetric, percentile=config.percentile)
        if config.precision == "fp8":
            return lambda source: on_fp8.quantized(source, nodes, ranges, per_channel=config.per_channel), [*nodes]
        why = {name: too_wide(known.tensors[name], ranges[name], symmetric=symmetric) for name in ranges}
        for node in model.graph.node:
            wide = next((name for name in (*node.input, *node.output) if why.get(name)), None)
            if wide is not None and node.name in set(nodes):
                self.left[node.name] = f"no 8-bit scale holds {wide}: {why[wide]}"
        nodes = [name for name in nodes if name not in self.left]
        branches = tuple(branch for branch in branches if not why[branch.tensor])

        def emit(source: onnx.ModelProto) -> onnx.ModelProto:
            with _refusals():
                emitted = on_static.quantized(
                    source, nodes, ranges, contract, per_channel=config.per_channel, types=self._override
                )
            return quantize_residuals(emitted, branches, ranges)

        return emit, nodes

    def _runs(self) -> dict[str, Any]:
        """On what, where, and with how many threads a graph is run over the calibration split."""
        context = self.context
        return {
            "samples": context.samples("calibration"),
            "folder": context.folder,
            "threads": context.environment.cores,
        }

    def dynamic(self) -> tuple[onnx.ModelProto, dict[str, object]]:
        """8-bit weights, activations measured at run time."""
        nodes, model = self.chosen(), self.model
        notes: dict[str, object] = {"activations": "uint8"}
        if self.config.smooth is not None:
            model, notes["smoothed"] = self._smooth(model, nodes, self.config.smooth)
            on_result.prove(self.source, model, **self._runs())
        self.context.progress(0.8, "quantizing")
        made = on_dynamic.dynamic(
            model, nodes, per_channel=self.config.per_channel, reduce_range=self.contract.reduce_range
        )
        return made, notes

    def weight_only(self) -> tuple[onnx.ModelProto, dict[str, object]]:
        """Weights in blocks, or by channel, under float activations."""
        nodes, model = self.chosen(), self.model
        if self.config.narrow:
            return self._narrow(nodes)
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

    def _narrow(self, nodes: Sequence[str]) -> tuple[onnx.ModelProto, dict[str, object]]:
        """Weights in fp8 or int4 under float activations, scaled by activations where the recipe says so."""
        config, model = self.config, self.model
        fitting = list(on_graph.products(model, nodes))
        why = {one.node.name: on_narrow.why_not(one, config.precision, config.block_size) for one in fitting}
        self.left |= {name: "it multiplies by no constant matrix" for name in nodes if name not in why}
        self.left |= {name: reason for name, reason in why.items() if reason}
        nodes = [name for name in nodes if name not in self.left]
        if not nodes:
            raise self.nothing()
        notes: dict[str, object] = {"activations": "float"}
        if config.awq:
            read = list(dict.fromkeys(one.node.input[0] for one in fitting if not why[one.node.name]))
            self.context.progress(0.3, f"scaling the inputs of {len(nodes)} products")
            seen = on_calibration.rows(model, read, **self._runs())
            model, notes["awq"] = on_awq.scaled(
                model, nodes, seen, lambda weights: on_narrow.round_trip(weights, config.precision, config.block_size)
            )
            on_result.prove(self.source, model, **self._runs())
        return on_narrow.narrowed(model, nodes, config.precision, block_size=config.block_size), notes

    def _nodes(self, model: onnx.ModelProto, operators: frozenset[str]) -> list[str]:
        """The nodes to quantize: of these operators, not excluded, not kept in float by an override."""
        found = []
        for node in model.graph.node:
            override, origin = self._override(node), self.origins.of(node)
            excluded = fits_any(self.config.exclude, origin.names) or origin.operators & set(
                self.config.exclude_operators
            )
            kept = override is not None and override.keeps_float
            if origin.operators & operators and not excluded and not kept:
                found.append(node.name)
        return found

    def _override(self, node: onnx.NodeProto) -> Override | None:
        """The first override that means the node by its own name and operator or by those of what is fused in it."""
        origin = self.origins.of(node)
        meant = [(name, operator) for name in sorted(origin.names) for operator in sorted(origin.operators)]
        return next((one for one in self.config.overrides if any(one.fits(*pair) for pair in meant)), None)

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
        """Return the other dependencies of the statistics: this stage's code and its libraries."""
        return canonical([STAGES.get(self.config.kind).code_digest, libraries(self.config, self.context.environment)])


def _check_names(config: QuantizeConfig, origins: on_origin.Origins) -> None:
    """Refuse what names nothing in the graph.

    Raises:
        ConfigError: with names that come near.
    """
    where = config.kind
    matches = [override.match for override in config.overrides if override.match != "*"]
    kinds = [override.operator for override in config.overrides if override.operator is not None]
    check(config.exclude, origins.names, field="exclude", where=where, operators=origins.operators)
    check(matches, origins.names, field="overrides: match", where=where)
    check_operators([*config.exclude_operators], origins.operators, field="exclude_operators", where=where)
    check_operators(kinds, origins.operators, field="overrides: operator", where=where)
    if config.operators and not origins.operators & set(config.operators):
        check_operators(config.operators, origins.operators, field="operators", where=where)
    check_operators(
        [operator for operator in config.operators if not on_static.known_operator(operator)],
        origins.operators,
        field="operators",
        where=where,
    )


@contextmanager
def _refusals() -> Iterator[None]:
    """Return what ONNX Runtime's quantizers raise, as one of ours; what they write goes nowhere."""
    try:
        with quiet():
            yield
    except StageError:
        raise
    except Exception as error:  # they raise anything from ValueError to bare Exception
        raise StageError(
            f"ONNX Runtime's quantizer refused the graph: {error or type(error).__name__}",
            next_step="exclude the node it names, or narrow operators",
        ) from error


def _new_types(override: Override) -> bool:
    """Return True if the model needs types that ONNX has since opset 21."""
    return override.activations == "uint16" or override.weights == "int4"


def _count(model: onnx.ModelProto) -> dict[str, int]:
    kinds = [node.op_type for node in model.graph.node]
    found = {kind: kinds.count(kind) for kind in _COUNTED if kind in kinds}
    whole = (onnx.TensorProto.INT8, onnx.TensorProto.UINT8, onnx.TensorProto.INT4)
    constants = [one for one in model.graph.initializer if one.data_type in whole and len(one.dims) > 1]
    integers = sum(bool(onnx.numpy_helper.to_array(one).astype("int8").any()) for one in constants)  # no zero points
    return found | ({"integer_weights": integers} if integers else {})
