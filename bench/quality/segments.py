"""Weak segments: where a model is worse than its mean says, found on one half of the samples and judged on the other.

Pure. A search over hundreds of conjunctions always finds something on the samples that it searched; what is reported
comes from samples that it never saw, corrected for how many segments were carried over.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Annotated, Literal

import numpy as np
from pydantic import Field

from seatrial.optimize.errors import ConfigError
from seatrial.optimize.samples import Samples

from ..checks import Check, Plot, informational
from .evidence import Evidence
from .quantities import Array, Quantity, Scores, Worst

_QUANTILES = 4  # ranges that a numeric column is cut into
_DISTINCT = 20  # numbers with at most as many values are categories
_ALIKE = 0.7  # segments that share more of their members are one


@dataclass(frozen=True, kw_only=True)
class Segment:
    """A conjunction of conditions and its members, bool [n]."""

    text: str
    columns: tuple[str, ...]
    members: Array


@dataclass(frozen=True, slots=True, kw_only=True)
class SegmentsCheck(Check):
    """The worst segment that a search finds: conjunctions of up to `depth` conditions on `columns`.

    Without columns named: the loader's, or where it gives none, the class and simple statistics of the inputs. A
    segment holds at least `support` samples in either half of the evaluation set: it is found on one half and judged on
    the other. PASS says that none of the `beam` worst found is beyond the margin there, not that there is none.
    """

    kind: Literal["segments"] = "segments"
    columns: tuple[str, ...] = ()
    depth: Annotated[int, Field(ge=1, le=2)] = 2
    support: Annotated[int, Field(ge=10)] = 30
    beam: Annotated[int, Field(ge=1, le=50)] = 5

    @property
    def label(self) -> str:
        return "worst segment"

    def quantity(self, evidence: Evidence, rule: str) -> Quantity:
        """The worst of the segments found: by what the candidate lost there, or by its score alone.

        Raises:
            ConfigError: a column that is not there, or no segment large enough.
        """
        return Worst(name=self.label, parts=confirmed(self, evidence, against_base=rule == "max_drop"))

    def plot(self, evidence: Evidence) -> Plot:
        """Return the segments found, in both arms."""
        from . import on_plotly

        found = confirmed(self, evidence, against_base=evidence.base is not None)
        lead = "Segments found on one half of the samples, with their scores on the other half."
        return Plot(title="Segments", lead=lead, data=[part.means for part in found], draw=on_plotly.groups)

    @classmethod
    def unprompted(cls, samples: Samples, *, against: bool, attack: bool) -> "tuple[SegmentsCheck, ...]":
        """Return the search with its usual settings."""
        return (cls(**informational(against=against)),)


def confirmed(check: SegmentsCheck, evidence: Evidence, *, against_base: bool) -> list[Scores]:
    """The segments found on the search half, as scores of their members on the other.

    Raises: as `SegmentsCheck.quantity`.
    """
    base, candidate = evidence.scores()
    badness = base - candidate if against_base and base is not None else -candidate
    parts = []
    confirm = ~search_half(len(candidate))
    for segment in search(badness, columns_of(check, evidence), check):
        members = segment.members & confirm
        first = None if base is None else base[members]
        parts.append(Scores(name=segment.text, base=first, candidate=candidate[members]))
    if not parts:
        raise ConfigError(
            f"no segment has {check.support} samples in either half of {len(candidate)}",
            where=check.label,
            next_step="use more evaluation samples, or lower support",
        )
    return parts


def columns_of(check: SegmentsCheck, evidence: Evidence) -> dict[str, Array]:
    """The columns to search over: those named, else the loader's, else class and statistics of the inputs.

    Raises:
        ConfigError: one that is named is not there.
    """
    known = {**evidence.derived, **evidence.columns}
    if missing := [name for name in check.columns if name not in known]:
        raise ConfigError(
            f"there is no column {missing[0]!r} in the samples",
            where=check.label,
            next_step=f"available columns: {', '.join(known)}",
        )
    if check.columns:
        return {name: known[name] for name in check.columns}
    return dict(evidence.columns or evidence.derived)


def search_half(n: int) -> Array:
    """Select the samples for the search: a seeded half, bool [n]."""
    chosen = np.zeros(n, dtype=bool)
    chosen[np.random.default_rng(n).permutation(n)[: n // 2]] = True
    return chosen


def search(badness: Array, columns: Mapping[str, Array], check: SegmentsCheck) -> list[Segment]:
    """The `beam` segments whose members fare worst on the search half, at most `depth` conditions each.

    `badness` and every column are [samples]. Beam search: the best single conditions are extended by every other.
    """
    half = search_half(len(badness))
    large = [atom for atom in atoms(columns) if _large(atom.members, half, check.support)]
    best = _best(large, badness, half, check.beam * 2)
    found = list(large)
    if check.depth > 1:
        found += [each for each in _joined(best, large) if _large(each.members, half, check.support)]
    return _best(found, badness, half, check.beam)


def atoms(columns: Mapping[str, Array]) -> Iterator[Segment]:
    """Single conditions on columns [samples]: each value of a category, each quarter of a number."""
    for name, values in columns.items():
        distinct = np.unique(values)
        if values.dtype.kind not in "iuf" or len(distinct) <= _DISTINCT:
            for value in distinct:
                yield Segment(text=f"{name} = {value}", columns=(name,), members=values == value)
            continue
        edges = np.unique(np.quantile(values, np.linspace(0, 1, _QUANTILES + 1)))
        for number, (low, high) in enumerate(pairwise(edges)):
            last = number == len(edges) - 2
            members = (values >= low) & ((values <= high) if last else (values < high))
            yield Segment(text=f"{name} {low:.3g} to {high:.3g}", columns=(name,), members=members)


def _joined(best: Sequence[Segment], large: Sequence[Segment]) -> Iterator[Segment]:
    seen = set()
    for one in best:
        for other in large:
            names = tuple(sorted((one.text, other.text)))
            if set(one.columns) & set(other.columns) or names in seen:
                continue
            seen.add(names)
            yield Segment(
                text=" and ".join(names), columns=(*one.columns, *other.columns), members=one.members & other.members
            )


def _large(members: Array, half: Array, support: int) -> bool:
    """Tell whether a segment, a mask [samples], has `support` members in each half."""
    return bool((members & half).sum() >= support and (members & ~half).sum() >= support)


def _best(segments: Sequence[Segment], badness: Array, half: Array, count: int) -> list[Segment]:
    """The worst by how many standard errors their mean lies above everyone's, without those nearly the same.

    `badness` is [samples], `half` the mask [samples] of the search half.
    """
    everyone = badness[half]
    spread = float(everyone.std()) or 1.0

    def excess(segment: Segment) -> float:
        inside = badness[segment.members & half]
        return float((inside.mean() - everyone.mean()) / spread * np.sqrt(inside.size))

    kept: list[Segment] = []
    for segment in sorted(segments, key=lambda each: (-excess(each), each.text)):
        if all(_likeness(segment.members, other.members) <= _ALIKE for other in kept):
            kept.append(segment)
        if len(kept) == count:
            break
    return kept


def _likeness(one: Array, other: Array) -> float:
    """Return the Jaccard index of two masks, [samples] each: a ratio of 0 to 1."""
    return float((one & other).sum() / (one | other).sum())


def derived(inputs: Mapping[str, Array], labels: Array) -> dict[str, Array]:
    """Columns for samples that carry none: the class, and per input its mean and spread, or its length."""
    found: dict[str, Array] = {}
    if labels.ndim == 1 and labels.dtype.kind in "iub":
        found["class"] = labels
    for name, array in inputs.items():
        if array.dtype.kind in "SUO":
            found[f"{name} length"] = np.array([sum(map(len, np.ravel(row).tolist())) for row in array])
            continue
        flat = array.reshape(len(array), -1)
        if array.dtype.kind == "f" or array.dtype == np.uint8:
            found[f"{name} mean"], found[f"{name} spread"] = flat.mean(axis=1), flat.std(axis=1)
        elif flat.shape[1] > 1:
            found[f"{name} length"] = (flat != 0).sum(axis=1)
    return found
