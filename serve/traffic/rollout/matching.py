"""Matching: latencies of two versions compared over like requests only, so that no caller can steer the comparison.

Pure. A caller chooses which version its requests go to (by the users it names) and how much work they are. Requests of
one form and of about one size are alike; where only one version had any of a kind, that kind says nothing.
"""

import math
from collections import defaultdict
from collections.abc import Mapping
from dataclasses import dataclass, field

from ..seen import Seen

PER_OCTAVE = 2  # kinds for each doubling of a request's size

Sums = tuple[int, float]
"""Requests, and the sum of their log latencies."""


def kind_of(seen: Seen) -> str:
    """The kind of a request: its form and its size to within a factor of the square root of 2; empty if unknown."""
    if not seen.kind:
        return ""
    return f"{seen.kind}:{math.floor(PER_OCTAVE * math.log2(max(seen.size, 1)))}"


@dataclass(slots=True)
class Matched:
    """Answers of one block, of both arms, by kind."""

    arms: dict[str, dict[str, Sums]] = field(default_factory=lambda: {"candidate": {}, "baseline": {}})

    def add(self, arm: str, kind: str, seconds: float) -> None:
        """Count one answer."""
        count, logs = self.arms[arm].get(kind, (0, 0.0))
        self.arms[arm][kind] = count + 1, logs + math.log(max(seconds, 1e-6))

    def counts(self) -> dict[str, int]:
        """Answers of each arm in kinds that both arms have."""
        both = self._both
        return {arm: sum(kinds[kind][0] for kind in both) for arm, kinds in self.arms.items()}

    def means(self) -> dict[str, float]:
        """Mean log latency of each arm over the common kinds, with the same weights; empty where there is none.

        A kind with n and m answers has the weight ``nm / (n + m)``, which gives the difference the least variance.
        """
        weights: dict[str, float] = {}
        for kind in self._both:
            n, m = (self.arms[arm][kind][0] for arm in ("candidate", "baseline"))
            weights[kind] = n * m / (n + m)
        total = math.fsum(weights.values())
        if not total:
            return {}
        return {
            arm: math.fsum(weights[kind] * kinds[kind][1] / kinds[kind][0] for kind in weights) / total
            for arm, kinds in self.arms.items()
        }

    @property
    def _both(self) -> list[str]:
        return sorted(set(self.arms["candidate"]) & set(self.arms["baseline"]))


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
