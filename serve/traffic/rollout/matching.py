"""Matching: latencies of two versions compared over like requests only, so that no caller can steer the comparison.

Pure. A caller chooses which version its requests go to (by the users it names) and how much work they are. Requests of
one form and of about as many elements are alike; where only one version had any of a kind, that kind says nothing. And
each client's requests are compared with its own: what most clients see is what counts.
"""

import math
import zlib
from collections import defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

from ..seen import Seen

PER_OCTAVE = 6  # kinds for each doubling of a request's size: alike is within 12 %
GROUPS = 7  # of clients, so that many small ones can be compared too

Sums = tuple[int, float]
"""Requests, and the sum of their log latencies."""


def kind_of(seen: Seen) -> str:
    """The kind of a request: its form and its size to within 12 %; empty if unknown."""
    if not seen.kind:
        return ""
    return f"{seen.kind}:{math.floor(PER_OCTAVE * math.log2(max(seen.size, 1)))}"


def group_of(client: str) -> int:
    """The group of a client: the same one always."""
    return zlib.crc32(client.encode(errors="replace")) % GROUPS if client else -1


@dataclass(slots=True)
class Matched:
    """Answers of one block, of both arms, by group of clients and kind."""

    arms: dict[str, dict[tuple[int, str], Sums]] = field(default_factory=lambda: {"candidate": {}, "baseline": {}})

    def add(self, arm: str, kind: str, seconds: float, client: str = "") -> None:
        """Count one answer."""
        key = group_of(client), kind
        count, logs = self.arms[arm].get(key, (0, 0.0))
        self.arms[arm][key] = count + 1, logs + math.log(max(seconds, 1e-6))

    def counts(self) -> dict[str, int]:
        """Answers of each arm in what both arms have."""
        both = self._both
        return {arm: sum(cells[cell][0] for cell in both) for arm, cells in self.arms.items()}

    def means(self) -> dict[str, float]:
        """Mean log latency of each arm over what both have, with the same weights; empty where there is none.

        A cell with n and m answers has the weight ``nm / (n + m)``, which gives the difference the least variance. The
        difference of the two means is the weighted median over the groups of clients: of a few of them it takes half
        to move it.
        """
        weights: dict[tuple[int, str], float] = {}
        for cell in self._both:
            n, m = (self.arms[arm][cell][0] for arm in ("candidate", "baseline"))
            weights[cell] = n * m / (n + m)
        if not weights:
            return {}
        baseline = self._mean("baseline", weights)
        groups: dict[int, dict[tuple[int, str], float]] = defaultdict(dict)
        for cell, weight in weights.items():
            groups[cell[0]][cell] = weight
        differences = [
            (self._mean("candidate", part) - self._mean("baseline", part), math.fsum(part.values()))
            for part in groups.values()
        ]
        return {"candidate": baseline + weighted_median(differences), "baseline": baseline}

    def _mean(self, arm: str, weights: Mapping[tuple[int, str], float]) -> float:
        cells = self.arms[arm]
        total = math.fsum(weights.values())
        return math.fsum(weights[cell] * cells[cell][1] / cells[cell][0] for cell in weights) / total

    @property
    def _both(self) -> list[tuple[int, str]]:
        return sorted(set(self.arms["candidate"]) & set(self.arms["baseline"]))


def weighted_median(values: Iterable[tuple[float, float]]) -> float:
    """The value, of those with weights, below and above which at most half of the weight lies."""
    ordered = sorted(values)
    half, below = math.fsum(weight for _, weight in ordered) / 2, 0.0
    for index, (value, weight) in enumerate(ordered):
        below += weight
        if below > half or index + 1 == len(ordered):
            return value
        if below == half:
            return (value + ordered[index + 1][0]) / 2
    raise ValueError("no values")


def typical_factors(answers: list[tuple[str, float]], *, least: int = 20) -> Mapping[str, float]:
    """How many times the median latency of all answers each kind's median is; kinds with fewer than `least` left out.

    `answers` are kinds and seconds.
    """
    by_kind: dict[str, list[float]] = defaultdict(list)
    for kind, seconds in answers:
        by_kind[kind].append(max(seconds, 1e-6))
    middle = _median([max(seconds, 1e-6) for _, seconds in answers])
    if len(by_kind) == 1:
        return {next(iter(by_kind)): 1.0}
    return {kind: _median(values) / middle for kind, values in by_kind.items() if len(values) >= least}


def _median(values: list[float]) -> float:
    return sorted(values)[(len(values) - 1) // 2]
