"""Adversarial inputs for a suite: made once on the source's gradients, then asked of every served artifact alike.

A transfer attack: quantized and compiled artifacts have no usable gradient, and an attacker has the float model. Only
orders the work; the gradient steps are `quality.on_torch`.
"""

from collections.abc import Callable, Mapping, Sequence

import numpy as np

from optimize.artifact import Artifact
from optimize.errors import ConfigError
from optimize.samples import Samples
from optimize.store import Store

from .checks import AdversarialCheck, Check
from .quantities import Array

Crafted = Mapping[str, Mapping[str, Array]]
"""By variant, whole inputs for the samples that the variant asks."""


def attacks(checks: Sequence[Check]) -> list[AdversarialCheck]:
    """The checks that need attacked inputs."""
    return [check for check in checks if isinstance(check, AdversarialCheck)]


def craft(
    checks: Sequence[Check],
    source: Artifact,
    store: Store,
    samples: Samples,
    rows: Callable[[int, int], Array],
    progress: Callable[[str, float], None] = lambda what, share: None,
) -> dict[str, dict[str, Array]]:
    """The attacked inputs of every adversarial check, `rows(n, count)` saying which samples are asked.

    Raises:
        ConfigError: the source is not a torch module, the samples have no labels, or no input is a float.
    """
    wanted = attacks(checks)
    if not wanted:
        return {}
    if source.format != "torch":
        raise ConfigError(
            f"an attack needs the source's gradients, and {source.short} is {source.format}",
            where=wanted[0].label,
            next_step="drop the adversarial checks, or start the recipe from a torch factory",
        )
    if samples.labels is None:
        raise ConfigError("an attack needs labels to lead away from", where=samples.split)
    if not any(array.dtype.kind == "f" for array in samples.inputs.values()):
        raise ConfigError("no input is a float, so there is nothing to perturb", where=wanted[0].label)
    from .on_torch import attacked, module_of

    module, made = module_of(source, store), {}
    bounds = {name: (float(array.min()), float(array.max())) for name, array in samples.inputs.items() if _float(array)}
    for number, check in enumerate(wanted):
        progress(check.label, number / len(wanted))
        chosen = rows(len(samples), check.samples)
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
