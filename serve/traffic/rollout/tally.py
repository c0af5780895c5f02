"""Blocks as columns, so that a look at a day of them costs no more than a look at a minute.

Pure. It counts nothing new and judges nothing.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields, replace

import numpy as np
from numpy.typing import NDArray

from .blocks import BY_GROUP, Arm, Block
from .plan import Metric
from .sequential import Floats, dispersion

FIELDS = tuple(each.name for each in fields(Arm) if each.name != "groups")
TAILS: Mapping[Metric, tuple[str, str]] = {"p95": ("slow95", "beyond95"), "p99": ("slow99", "beyond99")}


@dataclass(frozen=True, slots=True)
class Tally:
    """Blocks in their order: per block a row of `FIELDS` of each arm, the step, and whether thresholds stood.

    `groups` are rows of `BY_GROUP` of both arms, candidate first, by group of clients.
    """

    candidate: Floats
    baseline: Floats
    steps: NDArray[np.int64]
    tails: NDArray[np.bool_]
    groups: Mapping[str, tuple[Floats, Floats]] = field(default_factory=dict)

    @staticmethod
    def of(blocks: Sequence[Block]) -> "Tally":
        """The same blocks as columns."""
        shape = (-1, len(FIELDS))
        rows = [np.array([_row(arm) for arm in side], dtype=np.float64).reshape(shape) for side in _sides(blocks)]
        return Tally(
            rows[0],
            rows[1],
            np.array([block.step for block in blocks], dtype=np.int64),
            np.array([block.tails for block in blocks], dtype=np.bool_),
            _grouped(blocks),
        )

    def first(self, count: int) -> "Tally":
        """The first so many blocks."""
        return self._where(np.arange(len(self)) < count)

    def without(self, clients: Sequence[str]) -> "Tally":
        """The same without some clients, as far as `BY_GROUP` goes."""
        places, sides = [FIELDS.index(name) for name in BY_GROUP], [self.candidate.copy(), self.baseline.copy()]
        for name in clients:
            for rest, gone in zip(sides, self.groups[name], strict=True):
                rest[:, places] -= gone
        return replace(self, candidate=sides[0], baseline=sides[1])

    def at(self, step: int) -> "Tally":
        """The blocks of one step."""
        return self._where(self.steps == step)

    def __len__(self) -> int:
        return self.steps.size

    def columns(self, name: str) -> tuple[Floats, Floats]:
        """One field of both arms, candidate first: [blocks] each, in the field's unit."""
        index = FIELDS.index(name)
        return self.candidate[:, index], self.baseline[:, index]

    def totals(self, name: str) -> tuple[int, int]:
        """The sums of one field of both arms."""
        candidate, baseline = self.columns(name)
        return int(candidate.sum()), int(baseline.sum())

    def differences(self) -> Floats:
        """Differences of mean log latency (of seconds), [n]: of the n blocks whose arms both answered like requests."""
        both = self._where(np.logical_and(*(column > 0 for column in self.columns("matched"))))
        means = [logs / of for logs, of in zip(both.columns("log_seconds"), both.columns("answered"), strict=True)]
        return means[0] - means[1]

    def counts(self, metric: Metric) -> "Counts":
        """One kind of event, of the blocks in which it could be counted for both arms."""
        event, beyond = TAILS.get(metric, (metric, metric))
        asked = "measured" if metric in TAILS else "requests"
        usable = np.logical_and(*(column > 0 for column in self.columns(asked)))
        chosen = self._where(usable & self.tails if metric in TAILS else usable)
        candidate, baseline = chosen.columns(event)
        return Counts(candidate, chosen.columns(beyond)[0], baseline, *chosen.columns(asked))

    def _where(self, chosen: NDArray[np.bool_]) -> "Tally":
        """Return the tally of the blocks that `chosen`, [blocks], says."""
        groups = {name: (rows[0][chosen], rows[1][chosen]) for name, rows in self.groups.items()}
        return Tally(self.candidate[chosen], self.baseline[chosen], self.steps[chosen], self.tails[chosen], groups)


@dataclass(frozen=True, slots=True)
class Counts:
    """Events and requests of both arms per block; `beyond` are the candidate's events that no margin excuses."""

    candidate: Floats
    beyond: Floats
    baseline: Floats
    asked_candidate: Floats
    asked_baseline: Floats

    def __len__(self) -> int:
        return self.candidate.size

    @property
    def share(self) -> Floats:
        """The candidate's share of the requests, as it was and not as it was ordered."""
        return self.asked_candidate / (self.asked_candidate + self.asked_baseline)

    @property
    def rates(self) -> tuple[float, float]:
        """Of the candidate (beyond the margin) and of the baseline; 0 without requests."""
        of = float(self.asked_candidate.sum()), float(self.asked_baseline.sum())
        return (float(self.beyond.sum()) / of[0], float(self.baseline.sum()) / of[1]) if all(of) else (0.0, 0.0)

    def effective(self) -> tuple[int, int, int, int]:
        """Sums, fewer by the factor by which events come in clusters: ten of one stall are hardly one."""
        factor = dispersion(self.candidate, self.baseline, self.share)
        asked = [math.floor(float(each.sum()) / factor) for each in (self.asked_candidate, self.asked_baseline)]
        events = [math.ceil(float(each.sum()) / factor) for each in (self.beyond, self.baseline)]
        return min(events[0], asked[0]), asked[0], min(events[1], asked[1]), asked[1]


def _grouped(blocks: Sequence[Block]) -> Mapping[str, tuple[Floats, Floats]]:
    """Return by group the candidate's and the baseline's rows, each [blocks, len(BY_GROUP)]."""
    names = sorted({name for block in blocks for arm in (block.candidate, block.baseline) for name in arm.groups})
    none = (0,) * len(BY_GROUP)
    return {
        name: (
            np.array([block.candidate.groups.get(name, none) for block in blocks], dtype=np.float64),
            np.array([block.baseline.groups.get(name, none) for block in blocks], dtype=np.float64),
        )
        for name in names
    }


def _sides(blocks: Sequence[Block]) -> tuple[list[Arm], list[Arm]]:
    return [block.candidate for block in blocks], [block.baseline for block in blocks]


def _row(arm: Arm) -> tuple[float, ...]:
    return tuple(arm.of(name) for name in FIELDS)
