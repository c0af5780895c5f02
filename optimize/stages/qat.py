"""QAT: fine-tune a torch module under fake quantization, and write what it learnt as Q/DQ that the kernels fuse.

torch.fx places the fake quantizers and folds batch normalization; ranges are observed on calibration samples and kept
up to date while the module is trained on the origin's answers. The file holds int8 weights and int32 biases.
"""

import warnings
from functools import partial
from pathlib import Path

import onnx
import torch
from torch.ao.nn.intrinsic.qat import freeze_bn_stats
from torch.ao.quantization import (
    FakeQuantize,
    MovingAverageMinMaxObserver,
    MovingAveragePerChannelMinMaxObserver,
    QConfig,
    QConfigMapping,
    disable_fake_quant,
    enable_fake_quant,
)
from torch.ao.quantization.quantize_fx import prepare_qat_fx

from ..artifact import Artifact
from ..errors import ConfigError, StageError
from ..parity.parity import compare, enforce
from ..pruning import on_pattern
from ..pruning.on_graphs import sparse_weights
from ..pruning.on_layers import check_globs, kept_by
from ..recipe.configs import QatConfig, Tolerance
from ..recipe.targets import TARGETS, Contract, resolve
from ..samples import Samples
from ..sessions.on_ort import OrtSession
from ..sessions.on_torch import TorchSession, call, open_module
from .export import FILE, to_onnx
from .fake_quantization import fix
from .stage import Context, Made
from .training import fit, teacher_answers

_BATCH = 64
_SAME = {"*": Tolerance(cosine=0.999, spread_error=0.1)}  # integer kernels round ties otherwise than torch, by one step
_NEVER_ALONE = (torch.nn.modules.batchnorm._NormBase, torch.nn.Dropout, torch.nn.Identity)
_KEPT_IN_FLOAT = (  # modules that the targets' kernels do not run in int8, or only slower
    torch.nn.LayerNorm,
    torch.nn.GroupNorm,
    torch.nn.Embedding,
    torch.nn.EmbeddingBag,
    torch.nn.GELU,
    torch.nn.Softmax,
    torch.nn.functional.layer_norm,
    torch.nn.functional.gelu,
    torch.nn.functional.softmax,
    torch.matmul,
)


def run(config: QatConfig, parent: Artifact, context: Context) -> Made:
    """Make ``model.onnx``; fine-tuning learns from the origin's outputs.

    Raises:
        StageError: the module cannot be traced, nothing in it can be quantized, or training diverged.
        ParityError: ONNX Runtime's outputs differ from the fake-quantized module's.
    """
    torch.manual_seed(context.seed)
    torch.set_num_threads(context.environment.cores)
    contract = TARGETS[resolve(config.target, context.environment)]
    calibration, samples = context.samples("calibration"), context.samples("train")
    source = open_module(parent, context.store)
    pattern = tuple(on_pattern.sparse(source))
    module = prepare(source, calibration, contract, config.exclude)
    context.progress(0.02, f"observing {len(calibration)} samples")
    calibrate(module, calibration)
    loss = None
    if config.training.epochs:
        answers = teacher_answers(context.origin, samples, context.store, lambda share, text: None)
        with on_pattern.held(module, pattern):
            loss = fit(
                module,
                samples,
                answers,
                config.training,
                output=context.origin.outputs[0].name,
                seed=context.seed,
                progress=lambda share, text: context.progress(0.05 + 0.85 * share, text),
                checkpoint=context.checkpoints,
            )
    fixed = fix(module.eval(), contract)
    context.progress(0.92, "exporting")
    model, inputs, outputs = to_onnx(fixed, parent, context.source, config.opset)
    onnx.save_model(model, str(context.folder / FILE), save_as_external_data=False)
    prove(context.folder / FILE, len(pattern))
    session = TorchSession(fixed, parent.inputs, parent.outputs, threads=context.environment.cores)
    agreements = compare(session, OrtSession(context.folder / FILE), calibration.take(_BATCH), _SAME)
    enforce(agreements, "the file against the fake-quantized module")
    kinds = [node.op_type for node in model.graph.node]
    return Made(
        format="onnx",
        files=(FILE,),
        inputs=inputs,
        outputs=outputs,
        requires=contract.requires(),
        notes={
            "target": resolve(config.target, context.environment),
            "activations": contract.activations,
            "opset": config.opset,
            **({} if loss is None else {"loss": round(loss, 4)}),
            **({"sparse_weights": len(pattern)} if pattern else {}),
            **{kind: kinds.count(kind) for kind in ("QuantizeLinear", "DequantizeLinear")},
        },
    )


def prove(path: Path, layers: int) -> None:
    """Hold the file against the number of layers that came in the 2:4 pattern.

    Raises:
        StageError: fewer weights keep it in the file.
    """
    kept = sum(weight.holds for weight in sparse_weights(path))
    if kept < layers:
        raise StageError(
            f"{layers} layers keep the 2:4 pattern, but only {kept} weights of the file",
            where="qat",
            next_step="exclude the layers that the export changes, or export and quantize after training",
        )


def prepare(
    module: torch.nn.Module, samples: Samples, contract: Contract, exclude: tuple[str, ...]
) -> torch.fx.GraphModule:
    """The module with fake quantizers in the target's integer types, batch normalization folded and frozen.

    Raises:
        ConfigError: a glob under exclude has no effect.
        StageError: tracing refused the module, or nothing is left to quantize.
    """
    tensors = {name: torch.from_numpy(array) for name, array in samples.take(2).inputs.items()}
    mapping = QConfigMapping().set_global(_types(contract))
    for kind in _KEPT_IN_FLOAT:
        mapping.set_object_type(kind, None)
    for name in _excluded(module, exclude):
        mapping.set_module_name(name, None)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of the deprecation, and of operators without an int8 kernel
            prepared = prepare_qat_fx(module.train(), mapping, tuple(tensors.values()))
    except Exception as error:  # tracing runs the user's forward on proxies, which may raise anything
        raise StageError(
            f"the module cannot be traced for fake quantization: {error}",
            next_step="remove shape-dependent Python code from its forward, or use the quantize stage after export",
        ) from error
    if not any(hasattr(layer, "weight_fake_quant") for layer in prepared.modules()):
        raise StageError("nothing can be quantized", next_step="narrow exclude in this stage")
    _spare(prepared)
    for parameter in prepared.parameters():
        parameter.requires_grad_(True)
    prepared.apply(freeze_bn_stats)
    return prepared


def _excluded(module: torch.nn.Module, globs: tuple[str, ...]) -> list[str]:
    """Names of the modules that stay in float, themselves or by what they lie in.

    Raises:
        ConfigError: a glob fits no module, or only such as are never quantized by themselves.
    """
    check_globs(module, globs, "qat.exclude")
    layers = dict(module.named_modules())
    for glob in globs:
        fitting = [layer for name, layer in layers.items() if name and kept_by(name, [glob])]
        leaves = [layer for layer in fitting if not list(layer.children())]
        if all(isinstance(layer, _NEVER_ALONE) for layer in leaves):
            kinds = sorted({type(layer).__name__ for layer in leaves})
            raise ConfigError(
                f"{glob!r} fits only {', '.join(kinds)}, which are not quantized on their own",
                where="qat.exclude",
                next_step="name the convolution or linear layer that it belongs to",
            )
    return [name for name in layers if name and kept_by(name, globs)]


def calibrate(module: torch.nn.Module, samples: Samples) -> None:
    """Let the observers see the samples before anything is rounded."""
    module.eval().apply(disable_fake_quant)
    with torch.no_grad():
        for batch in samples.batches(_BATCH):
            call(module, {name: torch.from_numpy(array) for name, array in batch.inputs.items()})
    module.apply(enable_fake_quant)


def _types(contract: Contract) -> QConfig:
    """Quantizers of the target's types; S8 activations are trained as U8 around 128, which is the same arithmetic."""
    activation = partial(
        FakeQuantize,
        observer=MovingAverageMinMaxObserver,  # of quint8 in full: with limits of its own its middle would be 127
        dtype=torch.quint8,
        qscheme=torch.per_tensor_symmetric if contract.activation_symmetric else torch.per_tensor_affine,
        reduce_range=False,
    )
    weight = partial(
        FakeQuantize,
        observer=MovingAveragePerChannelMinMaxObserver,
        quant_min=-64 if contract.reduce_range else -128,
        quant_max=63 if contract.reduce_range else 127,
        dtype=torch.qint8,
        qscheme=torch.per_channel_symmetric,
        ch_axis=0,
        reduce_range=False,
    )
    return QConfig(activation=activation, weight=weight)  # type: ignore[no-untyped-call]


def _spare(prepared: torch.fx.GraphModule) -> None:
    """Take out the quantizers that the kernels do without: before a ReLU (they clip while rounding), at the output."""
    for node in list(prepared.graph.nodes):
        source = node.args[0] if node.args and isinstance(node.args[0], torch.fx.Node) else None
        if source is None or not _is_quantizer(prepared, source) or len(source.users) > 1:
            continue
        if node.op == "output" or _is_relu(prepared, node):
            node.replace_input_with(source, source.args[0])
            prepared.graph.erase_node(source)
    prepared.delete_all_unused_submodules()
    prepared.recompile()


def _is_quantizer(module: torch.fx.GraphModule, node: torch.fx.Node) -> bool:
    return node.op == "call_module" and isinstance(module.get_submodule(str(node.target)), FakeQuantize)


def _is_relu(module: torch.fx.GraphModule, node: torch.fx.Node) -> bool:
    if node.op == "call_module":
        return isinstance(module.get_submodule(str(node.target)), torch.nn.ReLU)
    return node.target in (torch.relu, torch.nn.functional.relu, "relu", "relu_")
