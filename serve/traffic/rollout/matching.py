"""Matching: latencies of two versions compared over like requests only, so that no caller can steer the comparison.

Pure. A caller chooses which version its requests go to (by the users it names) and how much work they are. Requests of
one form and of about as many elements are alike; where only one version had any of a kind, that kind says nothing. And
each client's requests are compared with its own: what most clients see is what counts.
"""

import math
from collections import defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

from ..seen import Seen

PER_OCTAVE = 6  # kinds for each doubling of a request's size: alike is within 12 %
CLIENTS = 256  # distinct clients in a block
LEAST_WEIGHT = 2.0  # of a client that is compared with itself alone: four answers of each version
OTHERS = ""  # the clients that are too small for that, and callers without a name, compared together

Sums = tuple[int, float]
"""Number of requests, and the sum of their log latencies."""


def kind_of(seen: Seen) -> str:
    """The kind of a request: its form and its size to within 12 %; empty if unknown."""
    if not seen.kind:
        return ""
    return f"{seen.kind}:{math.floor(PER_OCTAVE * math.log2(max(seen.size, 1)))}"


@dataclass(slots=True)
class Matched:
    """Answers of one block, of both arms, by client and kind."""

    arms: dict[str, dict[tuple[str, str], Sums]] = field(default_factory=lambda: {"candidate": {}, "baseline": {}})
    clients: set[str] = field(default_factory=set)

    def add(self, arm: str, kind: str, seconds: float, client: str = OTHERS) -> None:
        """Count one answer."""
        if client not in self.clients:
            client = OTHERS if len(self.clients) >= CLIENTS else client
            self.clients.add(client)
        count, logs = self.arms[arm].get((client, kind), (0, 0.0))
        self.arms[arm][client, kind] = count + 1, logs + math.log(max(seconds, 1e-6))

    def counts(self) -> dict[str, int]:
        """Answers of each arm of kinds that both arms have."""
        cells = self._pooled(set())
        return {arm: sum(cells[arm][cell][0] for cell in _both(cells)) for arm in self.arms}

    def means(self) -> dict[str, float]:
        """Mean log latency of each arm over what both have, with the same weights; empty where there is none.

        A cell with n and m answers has the weight ``nm / (n + m)``, which gives the difference the least variance. The
        difference of the two means is the weighted median over the clients, small ones taken together: it takes half of
        the weight to move it.
        """
        whole = self._pooled(set())
        weights = _weights(whole)
        if not weights:
            return {}
        large = {client for client, weight in self._by_client().items() if weight >= LEAST_WEIGHT}
        cells = self._pooled(large)
        parts: dict[str, dict[tuple[str, str], float]] = defaultdict(dict)
        for cell, weight in _weights(cells).items():
            parts[cell[0]][cell] = weight
        differences = [
            (_mean(cells["candidate"], part) - _mean(cells["baseline"], part), math.fsum(part.values()))
            for part in parts.values()
        ]
        baseline = _mean(whole["baseline"], weights)
        return {"candidate": baseline + weighted_median(differences), "baseline": baseline}

    def _by_client(self) -> dict[str, float]:
        weights: dict[str, float] = defaultdict(float)
        for (client, _), weight in _weights(self.arms).items():
            weights[client] += weight
        weights.pop(OTHERS, None)
        return weights

    def _pooled(self, apart: set[str]) -> dict[str, dict[tuple[str, str], Sums]]:
        """The cells with all clients together but those who stand apart."""
        found: dict[str, dict[tuple[str, str], Sums]] = {}
        for arm, cells in self.arms.items():
            pool = found.setdefault(arm, {})
            for (client, kind), (count, logs) in cells.items():
                key = (client if client in apart else OTHERS), kind
                more, sums = pool.get(key, (0, 0.0))
                pool[key] = more + count, sums + logs
        return found


def _both(cells: Mapping[str, Mapping[tuple[str, str], Sums]]) -> list[tuple[str, str]]:
    return sorted(set(cells["candidate"]) & set(cells["baseline"]))


def _weights(cells: Mapping[str, Mapping[tuple[str, str], Sums]]) -> dict[tuple[str, str], float]:
    weights = {}
    for cell in _both(cells):
        n, m = (cells[arm][cell][0] for arm in ("candidate", "baseline"))
        weights[cell] = n * m / (n + m)
    return weights


def _mean(cells: Mapping[tuple[str, str], Sums], weights: Mapping[tuple[str, str], float]) -> float:
    total = math.fsum(weights.values())
    return math.fsum(weights[cell] * cells[cell][1] / cells[cell][0] for cell in weights) / total


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
    raise ValueError("there are no values")


def typical_factors(answers: list[tuple[str, float]], *, least: int = 20) -> Mapping[str, float]:
    """Return the median latency of each kind relative to all answers; kinds with fewer than `least` are omitted.

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
