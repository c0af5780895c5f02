"""Prune: make the module physically smaller, to a ratio or a measured latency, or sparse by pattern; then fine-tune."""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch

from ..artifact import Artifact
from ..errors import StageError
from ..pruning import on_blocks, on_layers, on_pattern
from ..pruning.latency import TOLERANCE, Found, Reading, search
from ..pruning.on_cut import ties
from ..pruning.on_flow import Group
from ..pruning.on_graphs import sparse_weights
from ..pruning.widths import rungs
from ..recipe.configs import PruneConfig
from ..record import as_json
from ..samples import Samples
from ..sessions.on_torch import (
    WEIGHTS,
    Architecture,
    call,
    open_module,
    outputs_of,
    read_architecture,
    rebuild,
    resized,
    save_module,
    sizes_of,
)
from .shrinking import Shrinker
from .stage import Context, Made
from .timing import Stopwatch
from .training import fit, teacher_answers

_PAIRS, _FINAL_PAIRS = 12, 24
_GLOBAL_RUNGS = tuple(number / 64 for number in range(1, 64))  # across layers, widths follow no simple staircase


@dataclass(frozen=True, slots=True, kw_only=True)
class _Job:
    """State that all parts of the stage share."""

    config: PruneConfig
    parent: Artifact
    context: Context
    architecture: Architecture
    source: Path | None
    samples: Samples

    def tensors(self, rows: int) -> dict[str, torch.Tensor]:
        return {name: torch.from_numpy(array) for name, array in self.samples.take(rows).inputs.items()}

    @property
    def outputs(self) -> tuple[str, ...]:
        return tuple(spec.name for spec in self.parent.outputs)

    def open(self) -> tuple[torch.nn.Module, Architecture]:
        """The parent's module, without the blocks that go, and its record."""
        module = open_module(self.parent, self.context.store)
        if self.config.layers is None:
            return module, self.architecture
        stays = on_blocks.prune_blocks(module, self.tensors(64), self.outputs, self.config.layers, self.config.keep)
        return module, self.recorded(on_blocks.without(self.architecture.sizes, stays))

    def recorded(self, sizes: Mapping[str, Mapping[str, Any]]) -> Architecture:
        return Architecture(factory=self.architecture.factory, arguments=self.architecture.arguments, sizes=sizes)

    def shrink(
        self, module: torch.nn.Module, ratio: float | None, steps: int, groups: tuple[Group, ...] = ()
    ) -> Shrinker:
        return Shrinker(self.config, module, self.parent, self.samples, ratio=ratio, steps=steps, groups=groups)


def run(config: PruneConfig, parent: Artifact, context: Context) -> Made:
    """Make the pruned module's files; fine-tuning learns from the origin's outputs.

    Raises:
        ConfigError: a glob under keep fits no module.
        StageError: the module cannot lose the requested units, or reloads with other outputs.
    """
    torch.manual_seed(context.seed)
    torch.set_num_threads(context.environment.cores)
    architecture, source = read_architecture(parent, context.store)
    job = _Job(
        config=config,
        parent=parent,
        context=context,
        architecture=architecture,
        source=source,
        samples=context.samples("train"),
    )
    whole = open_module(parent, context.store)
    on_layers.check_globs(whole, config.keep, "prune.keep")
    before = _cost(job, whole)
    if config.sparsity is not None:
        module, record, notes = _sparse(job)
    else:
        module, record, notes = _smaller(job)
    _check_outputs(job, module)
    files = save_module(module.eval(), record, source, context.folder)
    _check_reopening(job, module, record)
    return Made(
        format="torch",
        files=tuple(files),
        inputs=parent.inputs,
        outputs=parent.outputs,
        notes=_cost(job, module) | {f"{name}_before": value for name, value in before.items()} | notes,
    )


def _smaller(job: _Job) -> tuple[torch.nn.Module, Architecture, dict[str, Any]]:
    """Remove units in steps, fine-tuning after each; a latency target is turned into a ratio first."""
    config, notes = job.config, dict[str, Any]()
    ratio, watch, found = config.ratio, None, None
    if config.target_latency_ratio is not None:
        samples = job.samples.take(config.latency_batch)
        watch = Stopwatch(
            job.parent,
            job.context,
            samples,
            batch=config.latency_batch,
            engine=config.engine,
            device=config.device,
        )
        found = _search(job, watch, config.target_latency_ratio)
        ratio = found.best.ratio
    module, record = job.open()
    sizes = sizes_of(module)
    shrinker = job.shrink(module, ratio, config.steps)
    for step in range(config.steps):
        shrinker.step()
        _fine_tune(job, module, step, config.steps)
    record = job.recorded(_merged(record.sizes, resized(sizes, sizes_of(module))))
    _check_widths(config, sizes, sizes_of(module))
    if watch is not None and found is not None and config.target_latency_ratio is not None:
        final = watch.time(module, record, job.source, pairs=_FINAL_PAIRS)
        watch.close()
        notes["latency"] = _told(
            config, found, Reading(ratio=ratio or 0, share=final.ratio, low=final.low, high=final.high)
        ) | {"ran_on": as_json(watch.ran_on)}
    return module, record, notes


def _search(job: _Job, watch: Stopwatch, target: float) -> Found:
    """The ratio whose module, not yet fine-tuned, is measured nearest to the target."""

    def measure(ratio: float) -> Reading:
        module, record = job.open()
        sizes = sizes_of(module)
        job.shrink(module, ratio, 1, groups).step()
        record = job.recorded(_merged(record.sizes, resized(sizes, sizes_of(module))))
        pace = watch.time(module, record, job.source, pairs=_PAIRS)
        job.context.progress(0.02, f"ratio {ratio:.3f} runs in {pace.ratio:.2f} of the parent's time")
        return Reading(ratio=ratio, share=pace.ratio, low=pace.low, high=pace.high)

    module, _ = job.open()
    first = job.shrink(module, None, 1)
    widths, groups = first.widths(), first.groups()
    shares = _GLOBAL_RUNGS if job.config.scope == "global" else rungs(widths)
    if not shares:
        raise StageError(
            f"no width above round_to = {job.config.round_to} can become smaller", next_step="lower round_to"
        )
    return search(measure, shares, target)


def _told(config: PruneConfig, found: Found, final: Reading) -> dict[str, Any]:
    """Return the notes about the latency target: measured on the final model, not during the search.

    ``met`` takes the whole 95 % interval within tolerance; ``met_by_estimate`` looks at its middle alone.
    """
    target = config.target_latency_ratio or 0.0
    return {
        "target": target,
        "reached": round(final.share, 4),
        "interval": [round(final.low, 4), round(final.high, 4)],
        "met": final.misses_at_most(target) <= TOLERANCE,
        "met_by_estimate": final.misses(target) <= TOLERANCE,
        "ratio": round(final.ratio, 4),
        "batch": config.latency_batch,
        "tries": [reading.to_json() for reading in found.tries],
    }


def _sparse(job: _Job) -> tuple[torch.nn.Module, Architecture, dict[str, Any]]:
    """Zero two of every four weights, train under the mask, prove the pattern in the module and in its export."""
    module = open_module(job.parent, job.context.store)
    layers = on_pattern.eligible(module, job.config.keep)
    if not layers:
        raise StageError("no weight's input axis is a multiple of four", next_step="remove sparsity")
    for parameter in module.parameters():
        parameter.requires_grad_(True)
    with on_pattern.masked(layers):
        _fine_tune(job, module, 0, 1)
    if broken := on_pattern.broken(layers):
        raise StageError(f"training broke the 2:4 pattern in {', '.join(broken)}", next_step="report this")
    watch = Stopwatch(job.parent, job.context, job.samples.take(1), batch=1)
    weights = sparse_weights(watch.candidate(module, job.architecture, job.source))
    watch.close()
    exported = sum(weight.holds for weight in weights)
    if exported < len(layers):
        raise StageError(
            f"{len(layers)} weights keep the 2:4 pattern, but only {exported} of {len(weights)} in the exported graph",
            next_step="name the layers that the exporter changes under keep",
        )
    told = "two of four weights are zero; this is faster only on sparse tensor cores, not on a CPU"
    counts = {"pattern": job.config.sparsity, "sparse_weights": len(layers), "sparse_weights_exported": exported}
    return module, job.architecture, counts | {"weights_exported": len(weights), "about": told}


def _fine_tune(job: _Job, module: torch.nn.Module, step: int, steps: int) -> None:
    context, training = job.context, job.config.training
    if not training.epochs:
        return
    ask = partial(teacher_answers, context.origin, job.samples, context.store)
    fit(
        module,
        job.samples,
        ask(lambda share, text: context.progress(0.05, text)),
        training,
        output=context.origin.outputs[0].name,
        seed=context.seed + step,
        progress=lambda share, text: context.progress(0.1 + 0.9 * (step + share) / steps, text),
    )


def _check_outputs(job: _Job, module: torch.nn.Module) -> None:
    """Check that the pruned module keeps the parent's output shapes."""
    with torch.no_grad():
        names = job.outputs
        results = outputs_of(call(module.eval(), job.tensors(2)), names)
    for spec in job.parent.outputs:
        expected = tuple(dim for dim in spec.shape if isinstance(dim, int))
        got = tuple(results[spec.name].shape)
        if expected and expected != got[-len(expected) :]:
            raise StageError(
                f"pruning changed output {spec.name!r} to {got}",
                next_step="name the layers that make it under keep in this stage",
            )


def _check_widths(config: PruneConfig, before: Mapping[str, Any], after: Mapping[str, Any]) -> None:
    """Every channel count that changed is a multiple."""
    odd = {
        name: size["out_channels"]
        for name, size in resized(before, after).items()
        if size.get("out_channels", 0) % config.round_to and size["out_channels"] > config.round_to
    }
    if odd:
        raise StageError(
            f"these channel counts are not multiples of {config.round_to}: {odd}",
            next_step="use widths in the module that are multiples, or lower round_to",
        )


def _check_reopening(job: _Job, module: torch.nn.Module, record: Architecture) -> None:
    """Check that the saved module can be reloaded, with the same outputs bit for bit."""
    names = job.outputs
    again = rebuild(record, job.source, job.context.folder / WEIGHTS)
    one, other = (on_layers.answers(each, job.tensors(4), names) for each in (module, again))
    if wrong := [name for name in names if not np.array_equal(one[name].numpy(), other[name].numpy(), equal_nan=True)]:
        raise StageError(
            f"the saved module gives different outputs when it is reloaded: {', '.join(wrong)}",
            next_step="name the modules with sizes of their own under keep",
        )
    if (shared := ties(module)) != ties(again):
        raise StageError(
            f"shared parameters are separate when the module is reloaded: {shared}",
            next_step="tie them in the factory, not in code that runs after it",
        )


def _merged(earlier: Mapping[str, Any], later: Mapping[str, Any]) -> dict[str, dict[str, Any]]:
    return {name: {**earlier.get(name, {}), **later.get(name, {})} for name in (*earlier, *later)}


def _cost(job: _Job, module: torch.nn.Module) -> dict[str, int]:
    return {"parameters": on_layers.parameters_of(module), "macs": on_layers.macs_of(module, job.tensors(2))}
