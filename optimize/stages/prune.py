"""Prune: remove whole channels by dependency groups, so that the model is physically smaller, then fine-tune."""

from fnmatch import fnmatch

import torch
import torch_pruning

from ..artifact import Artifact
from ..errors import StageError
from ..samples import Samples
from ..sessions.on_torch import (
    Architecture,
    by_keyword,
    call,
    open_module,
    outputs_of,
    read_architecture,
    resized,
    save_module,
    sizes_of,
)
from .configs import PruneConfig
from .stage import Context, Made
from .training import fit, teacher_answers


def run(config: PruneConfig, parent: Artifact, context: Context) -> Made:
    """Make the pruned module's files; fine-tuning learns from the origin's answers."""
    torch.manual_seed(context.seed)
    torch.set_num_threads(context.environment.cores)
    architecture, source = read_architecture(parent, context.store)
    module = open_module(parent, context.store)
    before, parameters = sizes_of(module), _count(module)
    samples = context.samples("train")
    pruner = _pruner(config, module, samples.take(2), parent)
    for step in range(config.steps):
        pruner.step()
        if config.training.epochs:
            _fine_tune(config, module, samples, context, step)
    after = sizes_of(module)
    _check(config, module, samples.take(2), parent, after)
    merged = {name: dict(changed) for name, changed in architecture.sizes.items()}
    for name, changed in resized(before, after).items():
        merged.setdefault(name, {}).update(changed)
    architecture = Architecture(factory=architecture.factory, arguments=architecture.arguments, sizes=merged)
    files = save_module(module.eval(), architecture, source, context.folder)
    return Made(
        format="torch",
        files=tuple(files),
        inputs=parent.inputs,
        outputs=parent.outputs,
        notes={"parameters": _count(module), "parameters_before": parameters},
    )


def _pruner(
    config: PruneConfig, module: torch.nn.Module, samples: Samples, parent: Artifact
) -> torch_pruning.BasePruner:
    tensors = {name: torch.from_numpy(array) for name, array in samples.inputs.items()}
    example = tensors if by_keyword(module, tensors) else tuple(tensors.values())
    for parameter in module.parameters():
        parameter.requires_grad_(True)
    kept = [layer for name, layer in module.named_modules() if any(fnmatch(name, glob) for glob in config.keep)]
    return torch_pruning.pruner.BasePruner(
        module,
        example,
        importance=torch_pruning.importance.GroupMagnitudeImportance(p=2),
        pruning_ratio=config.ratio,
        iterative_steps=config.steps,
        round_to=config.round_to,
        ignored_layers=[*kept, *_output_layers(module, tensors, parent)],
        forward_fn=lambda model, data: call(model, data) if isinstance(data, dict) else model(*data),
    )


def _output_layers(
    module: torch.nn.Module, tensors: dict[str, torch.Tensor], parent: Artifact
) -> list[torch.nn.Module]:
    """Layers whose result is one of the model's outputs: their channels are the answer and stay."""
    made: list[tuple[torch.nn.Module, torch.Tensor]] = []

    def keep(layer: torch.nn.Module, _: object, result: object) -> None:
        if isinstance(result, torch.Tensor):
            made.append((layer, result))

    hooks = [layer.register_forward_hook(keep) for layer in module.modules() if not list(layer.children())]
    try:
        with torch.no_grad():
            names = tuple(spec.name for spec in parent.outputs)
            results = list(outputs_of(call(module.eval(), tensors), names).values())
    finally:
        for hook in hooks:
            hook.remove()
    return [layer for layer, tensor in made if any(tensor.data_ptr() == result.data_ptr() for result in results)]


def _fine_tune(config: PruneConfig, module: torch.nn.Module, samples: Samples, context: Context, step: int) -> None:
    answers = teacher_answers(context.origin, samples, context.store, lambda share, text: context.progress(0.0, text))
    fit(
        module,
        samples,
        answers,
        config.training,
        output=context.origin.outputs[0].name,
        seed=context.seed + step,
        progress=lambda share, text: context.progress((step + share) / config.steps, text),
    )


def _check(
    config: PruneConfig, module: torch.nn.Module, samples: Samples, parent: Artifact, sizes: dict[str, dict[str, int]]
) -> None:
    """The pruned module still answers in the parent's shape, and every channel count that changed is a multiple."""
    tensors = {name: torch.from_numpy(array) for name, array in samples.inputs.items()}
    with torch.no_grad():
        results = outputs_of(call(module.eval(), tensors), tuple(spec.name for spec in parent.outputs))
    for spec in parent.outputs:
        expected = tuple(dim for dim in spec.shape if isinstance(dim, int))
        got = tuple(results[spec.name].shape)
        if expected and expected != got[-len(expected) :]:
            raise StageError(
                f"pruning changed output {spec.name!r} to {got}",
                next_step="name the layers that make it under keep in this stage",
            )
    odd = {name: size["out_channels"] for name, size in sizes.items() if size.get("out_channels", 0) % config.round_to}
    grown = {name: count for name, count in odd.items() if count > config.round_to}
    if grown:
        raise StageError(
            f"channel counts that are no multiple of {config.round_to}: {grown}",
            next_step="give the module widths that are multiples, or lower round_to",
        )


def _count(module: torch.nn.Module) -> int:
    return sum(parameter.numel() for parameter in module.parameters())
