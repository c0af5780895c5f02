"""Adversarial inputs for a suite: made once on the source's gradients, then asked of every served artifact alike.

A transfer attack: quantized and compiled artifacts have no usable gradient, and an attacker has the float model. Only
orders the work; the gradient steps are `quality.on_torch`.
"""

from collections.abc import Callable, Sequence

import numpy as np

from seatrial.optimize.artifact import Artifact
from seatrial.optimize.errors import ConfigError
from seatrial.optimize.samples import Samples
from seatrial.optimize.store import Store

from ..checks import Check
from . import served
from .quantities import Array
from .suite import Suite, attacks, spread

Progress = Callable[[str, float], None]


def source_of(targets: Sequence[object], store: Store) -> Artifact | None:
    """The source that the first artifact among `targets` was made from; None where there is none."""
    artifacts = [each for each in targets if isinstance(each, Artifact)]
    return store.history(artifacts[0])[-1] if artifacts else None


def prepared(
    checks: tuple[Check, ...],
    samples: Samples,
    metric: served.Metric,
    source: Artifact | None,
    store: Store,
    progress: Progress = lambda what, share: None,
) -> Suite:
    """A suite with its attacked inputs made, where it has attacks.

    Raises:
        ConfigError: it has, and there is no torch source, no labels, or no float input.
    """
    crafted = craft(checks, source, store, samples, progress) if attacks(checks) else {}
    return Suite(checks=checks, samples=samples, metric=metric, crafted=crafted)


def craft(
    checks: Sequence[Check],
    source: Artifact | None,
    store: Store,
    samples: Samples,
    progress: Progress = lambda what, share: None,
) -> dict[str, dict[str, Array]]:
    """The attacked inputs of every adversarial check, for the samples that a suite asks.

    Raises:
        ConfigError: the source is not a torch module, the samples have no labels, or no input is a float.
    """
    wanted = attacks(checks)
    if source is None or source.format != "torch":
        given = (
            "no artifact is available to find it" if source is None else f"{source.short} has format {source.format}"
        )
        raise ConfigError(
            f"an attack needs the source's gradients, and {given}",
            where=wanted[0].label,
            next_step="drop the adversarial checks, or start the recipe from a torch factory",
        )
    if samples.labels is None:
        raise ConfigError("an attack needs labels", where=samples.split)
    if not any(array.dtype.kind == "f" for array in samples.inputs.values()):
        raise ConfigError("an attack needs a float input, and there is none", where=wanted[0].label)
    from .on_torch import attacked, module_of

    module, made = module_of(source, store), {}
    bounds = {name: (float(array.min()), float(array.max())) for name, array in samples.inputs.items() if _float(array)}
    for number, check in enumerate(wanted):
        progress(check.label, number / len(wanted))
        chosen = spread(len(samples), check.samples)
        inputs = {name: array[chosen] for name, array in samples.inputs.items()}
        steps = 1 if check.attack == "fgsm" else check.steps
        (variant,) = check.variants
        made[variant] = attacked(
            module,
            inputs,
            np.asarray(samples.labels)[chosen],
            tuple(spec.name for spec in source.outputs),
            epsilon=check.epsilon,
            steps=steps,
            bounds=bounds,
        )
    return made


def _float(array: Array) -> bool:
    return array.dtype.kind == "f"
