"""Adversarial inputs for a suite: made once on the source's gradients, then asked of every served artifact alike.

A transfer attack: quantized and compiled artifacts have no usable gradient, and an attacker has the float model. Only
orders the work; the gradient steps are `quality.on_torch`.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Annotated, Any, ClassVar, Literal

import numpy as np
from pydantic import Field

from seatrial.optimize.artifact import Artifact
from seatrial.optimize.errors import ConfigError
from seatrial.optimize.samples import Samples
from seatrial.optimize.store import Store

from ..checks import Check, informational
from . import served
from .evidence import Evidence
from .quantities import Array, Quantity
from .suite import Suite, attacks, spread
from .variants import spoiled

_EPSILON = 0.03  # of the input's range
Progress = Callable[[str, float], None]


@dataclass(frozen=True, slots=True, kw_only=True)
class AdversarialCheck(Check):
    """The recipe's score under an attack made on the source's gradients and carried over to the served artifacts.

    `epsilon` is the largest change of any input element (L-infinity), in the input's own unit.
    """

    needs_source: ClassVar[bool] = True

    kind: Literal["adversarial"] = "adversarial"
    attack: Literal["fgsm", "pgd"] = "fgsm"
    epsilon: Annotated[float, Field(gt=0)]
    steps: Annotated[int, Field(ge=1, le=200)] = 10
    samples: Annotated[int, Field(ge=30)] = 256

    @property
    def label(self) -> str:
        return f"adversarial {self.attack} {self.epsilon:g}"

    @property
    def variants(self) -> tuple[str, ...]:
        """The name under which its answers are kept."""
        steps = f":{self.steps}" if self.attack == "pgd" else ""
        return (f"{self.attack}:{self.epsilon:g}{steps}",)

    @property
    def asked(self) -> int:
        return self.samples

    def craft(
        self,
        module: Any,
        inputs: Mapping[str, Array],
        labels: Array,
        outputs: tuple[str, ...],
        bounds: Mapping[str, tuple[float, float]],
    ) -> dict[str, dict[str, Array]]:
        """Return the attacked inputs, [n, ...] as given, by the gradients of the module."""
        from .on_torch import attacked

        (variant,) = self.variants
        steps = 1 if self.attack == "fgsm" else self.steps
        made = attacked(module, inputs, labels, outputs, epsilon=self.epsilon, steps=steps, bounds=bounds)
        return {variant: made}

    def quantity(self, evidence: Evidence, rule: str) -> Quantity:
        """The score under the attack.

        Raises:
            ConfigError: it was not asked.
        """
        return spoiled(self, evidence)

    @classmethod
    def unprompted(cls, samples: Samples, *, against: bool, attack: bool) -> "tuple[AdversarialCheck, ...]":
        """Return both attacks, where there is a source and an input of floats."""
        floats = [array for array in samples.inputs.values() if _float(array)]
        if not (attack and floats):
            return ()
        epsilon = float(f"{_EPSILON * max(float(np.ptp(array)) for array in floats):.2g}") or _EPSILON
        rule = informational(against=against)
        return cls(attack="fgsm", epsilon=epsilon, **rule), cls(attack="pgd", epsilon=epsilon, **rule)


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
    """The attacked inputs, [samples, ...], of every adversarial check by variant, for the samples that a suite asks.

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
    from .on_torch import module_of

    module, made = module_of(source, store), dict[str, dict[str, Array]]()
    bounds = {name: (float(array.min()), float(array.max())) for name, array in samples.inputs.items() if _float(array)}
    for number, check in enumerate(wanted):
        progress(check.label, number / len(wanted))
        chosen = spread(len(samples), check.asked)
        inputs = {name: array[chosen] for name, array in samples.inputs.items()}
        outputs = tuple(spec.name for spec in source.outputs)
        made |= check.craft(module, inputs, np.asarray(samples.labels)[chosen], outputs, bounds)
    return made


def _float(array: Array) -> bool:
    """Tell whether an input, of any shape, holds floats."""
    return array.dtype.kind == "f"
