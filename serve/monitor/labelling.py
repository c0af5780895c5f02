"""The queue of cases to label: a random sample, and cases of the segments in which a few more labels would decide.

Only the random part says how good the model is; the selection of each case is kept with it (`chosen_by`). Pure.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from .outcomes import RANDOM
from .quantities import Floats
from .segments import Masks

UNSURE = "unsure"
"""Selection of cases whose answer is the least certain, where no segment is suspected."""
RANDOM_PART = 0.7  # of a queue, where the user says nothing: chosen


@dataclass(frozen=True, slots=True, kw_only=True)
class Case:
    """A case to label: the place of its row, and why it was chosen."""

    place: int
    chosen_by: str


def chosen(
    number: int,
    rows: int,
    draw: np.random.Generator,
    *,
    random_part: float = RANDOM_PART,
    suspects: Mapping[str, tuple[float, Masks]],
    chance: Floats | None,
) -> tuple[Case, ...]:
    """Choose cases among `rows`: first at random among all of them, then those that decide.

    `suspects` are segments by name, with their evidence and which rows lie in them: they share the rest by the
    logarithm of their evidence, at random inside. Without suspects the rest goes to the rows whose `chance` of being
    right is the nearest to one half; without either all are random.
    """
    number = min(number, rows)
    deciding = bool(suspects) or chance is not None
    count = round(number * random_part) if deciding else number
    order = draw.permutation(rows)
    found = [Case(place=int(place), chosen_by=RANDOM) for place in order[:count]]
    left = np.ones(rows, np.bool_)
    left[order[:count]] = False
    parts = _shares({name: evidence for name, (evidence, _) in suspects.items()}, number - count)
    for name, part in parts.items():
        places = np.flatnonzero(suspects[name][1] & left)
        taken = draw.permutation(places)[:part]
        left[taken] = False
        found += [Case(place=int(place), chosen_by=f"segment: {name}") for place in taken]
    missing = number - len(found)
    if missing and chance is not None:
        places = np.flatnonzero(left)
        taken = places[np.argsort(np.abs(chance[places] - 0.5), kind="stable")][:missing]
        found += [Case(place=int(place), chosen_by=UNSURE) for place in taken]
    return tuple(found)


def _shares(evidence: Mapping[str, float], number: int) -> dict[str, int]:
    """Share out a number by the logarithms of the evidence, the remainder to the strongest."""
    weights = {name: float(np.log1p(each)) for name, each in evidence.items() if each > 0}
    total = sum(weights.values())
    if not total:
        return {}
    found = {name: int(number * weight / total) for name, weight in weights.items()}
    strongest: Sequence[str] = sorted(found, key=lambda name: -weights[name])
    for at in range(number - sum(found.values())):
        found[strongest[at % len(strongest)]] += 1
    return found
