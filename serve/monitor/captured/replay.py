"""Replay of one captured request on the artifact that answered it, and what its answer hangs on. Pure.

Attribution is by occlusion: the change of the decision's score where one field takes its usual value. The
counterfactual is the smallest step of one field towards its usual value at which the decision is another.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from seatrial.optimize.parity.measures import relative_error

from .rows import Tensors, tensor

Array = NDArray[Any]
Answers = Callable[[Tensors], Tensors]
TOLERANCES: Mapping[str, float] = {"float16": 2e-2, "float32": 1e-4, "float64": 1e-6}
COARSE = 5e-2  # of a model that computes in fewer bits than its tensors say
_STEPS = 20


class IncompleteError(ValueError):
    """The capture lacks what a replay needs; the text says which."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Compared:
    """One output of a replay: the largest difference relative to the larger magnitude, or to 1, and what is allowed."""

    output: str
    error: float
    tolerance: float

    @property
    def equal(self) -> bool:
        """Return whether it is within what is allowed."""
        return self.error <= self.tolerance


@dataclass(frozen=True, slots=True, kw_only=True)
class Effect:
    """One field of an input: its value, the usual one, and how the decision's score falls without the value.

    `flips_at` is the value at which another decision is made, the nearest on the way to the usual one; None: nowhere.
    """

    field: str
    value: float
    usual: float
    effect: float
    flips_at: float | None = None


def rebuilt(
    columns: Mapping[str, Sequence[str | None]], policy: Mapping[str, Any], shapes: Mapping[str, Any], side: str
) -> dict[str, Array]:
    """Return the tensors of one side of a request from its captured rows, in the order of the samples.

    Raises:
        IncompleteError: a tensor is not wholly kept; says which fields are missing.
    """
    found = {}
    for name, (dtype, shape) in shapes[side].items():
        fields = {
            field: told for field, told in policy["fields"].items() if (told["tensor"], told["side"]) == (name, side)
        }
        found[name] = _rebuilt(name, columns, fields, dtype, tuple(shape))
    return found


def _rebuilt(
    name: str,
    columns: Mapping[str, Sequence[str | None]],
    fields: Mapping[str, Any],
    dtype: str,
    shape: tuple[int, ...],
) -> Array:
    allowed = {field: told for field, told in fields.items() if told["keep"] == "allow"}
    for field, told in allowed.items():
        if told["index"] is None and (whole := tensor(list(columns[field]), dtype, whole=True)) is not None:
            made: Array = whole.reshape(shape)
            return made
    width = int(np.prod(shape)) // max(1, len(next(iter(columns.values()), ())))
    by_index = {told["index"]: field for field, told in allowed.items()}
    if missing := [at for at in range(width) if at not in by_index]:
        lost = [field for field, told in fields.items() if told["index"] in missing]
        named = ", ".join(sorted(lost)) or f"elements {', '.join(map(str, missing[:8]))}"
        raise IncompleteError(f"the policy does not keep {named} of {name!r} as they are")
    parts = [tensor(list(columns[by_index[at]]), dtype, whole=False) for at in range(width)]
    whole_parts = [part for part in parts if part is not None]
    if len(whole_parts) != width or not width:
        raise IncompleteError(f"values of {name!r} are missing")
    joined: Array = np.concatenate(whole_parts, axis=1).reshape(shape)
    return joined


def compared(answered: Tensors, again: Tensors, *, coarse: bool) -> list[Compared]:
    """Hold what was answered then against what the artifact answers now. `coarse` for a model of fewer bits."""
    return [
        Compared(
            output=name,
            error=_error(each, again[name]) if name in again else float("inf"),
            tolerance=COARSE if coarse else TOLERANCES.get(str(each.dtype), 0.0),
        )
        for name, each in answered.items()
    ]


def _error(one: Array, other: Array) -> float:
    """Return the greatest difference over the greatest value of what was answered; infinite for other whole numbers."""
    if one.shape != other.shape:
        return float("inf")
    if one.dtype.kind != "f":
        return 0.0 if np.array_equal(one, other) else float("inf")
    return relative_error(one, other)


def effects(
    inputs: Tensors, fields: Mapping[str, tuple[str, int]], usual: Mapping[str, float], answers: Answers, output: str
) -> list[Effect]:
    """Return what each field did to the decision about the first sample, strongest first.

    `fields` gives tensor and element of each, `usual` the value that takes its place.
    """
    first = {name: each[:1] for name, each in inputs.items()}
    decide = _decision(np.asarray(answers(first)[output])[0])
    base = decide(np.asarray(answers(first)[output])[0])
    found = []
    for field, (name, index) in fields.items():
        if field not in usual:
            continue
        value = float(first[name].reshape(1, -1)[0, index])
        score, _ = decide(_with(first, name, index, usual[field], answers, output))
        flips = _flip(first, (name, index), (value, usual[field]), lambda given: decide(given)[1], (answers, output))
        found.append(Effect(field=field, value=value, usual=usual[field], effect=base[0] - score, flips_at=flips))
    return sorted(found, key=lambda each: -abs(each.effect))


def _decision(answer: Array) -> Callable[[Array], tuple[float, bool]]:
    """Return what gives the score of the decision of this answer, and whether another answer still decides so.

    The decision is the largest element; of a single one, the side of a half or, beyond 0 to 1, of zero.
    """
    flat = answer.astype(np.float64).reshape(-1)
    if flat.size > 1:
        top = int(flat.argmax())
        return lambda given: (float(given.reshape(-1)[top]), int(given.astype(np.float64).reshape(-1).argmax()) == top)
    bound = 0.5 if 0 <= flat[0] <= 1 else 0.0
    above = bool(flat[0] > bound)
    return lambda given: (float(given.reshape(-1)[0]), bool(given.reshape(-1)[0] > bound) == above)


def _with(first: Tensors, name: str, index: int, value: float, answers: Answers, output: str) -> Array:
    changed = first[name].copy()
    changed.reshape(1, -1)[0, index] = value
    answer: Array = np.asarray(answers({**first, name: changed})[output])[0]
    return answer


def _flip(
    first: Tensors,
    at: tuple[str, int],
    way: tuple[float, float],
    same: Callable[[Array], bool],
    how: tuple[Answers, str],
) -> float | None:
    """Return the value nearest to the present one, on the way to the usual one, at which the decision is another."""
    value, usual = way

    def still(share: float) -> bool:
        return same(_with(first, *at, value + share * (usual - value), *how))

    far = next((step / _STEPS for step in range(1, _STEPS + 1) if not still(step / _STEPS)), None)
    if far is None:
        return None
    near = far - 1 / _STEPS
    for _ in range(12):
        middle = (near + far) / 2
        near, far = (middle, far) if still(middle) else (near, middle)
    return value + far * (usual - value)
