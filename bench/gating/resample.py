"""Pseudo-gates from recorded slots: an estimate of the false-alarm rate from few real runs.

Pure; judges with the real judge. What is resampled, exactly: whole slots with all their raw values, in blocks of four
that followed each other in one session. A pseudo-gate takes as many blocks as it needs, each at most once (a block
taken twice would look like agreement) and in the order in which they ran; within a block the arms are dealt anew, ABBA
or BAAB by a seeded coin (A/A runs, where the arms are the same thing), or stay as they were (drills, where they are
not). So a pseudo-gate keeps each slot's own noise, the drift within four slots exactly and that over the session in its
direction. It shows what these sessions could have given, not what another day would: its bounds are about the
resampling alone, and only real gates are evidence about the machine.
"""

import math
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import replace

import numpy as np

from ..budget import Budget
from .judge import judge
from .pairs import ARMS, GateRun, SlotRecord

BLOCK = 4  # slots: the shortest run of them in which both arms come twice and a linear drift cancels


def blocks_of(run: GateRun) -> list[tuple[SlotRecord, ...]]:
    """A session's usable slots, last attempts only, cut into blocks of four in the order taken; a rest is left out."""
    slots = sorted(run.final().values(), key=lambda record: record.slot.index)
    cut = [tuple(slots[at : at + BLOCK]) for at in range(0, len(slots) - BLOCK + 1, BLOCK)]
    return [block for block in cut if all(record.usable for record in block)]


def distinct(runs: Sequence[GateRun], budget: Budget, *, exchange: bool) -> int:
    """Return the number of distinct pseudo-gates; 0 if the sessions are too short."""
    blocks, needed = sum(len(blocks_of(run)) for run in runs), budget.design.first_look // 2
    return math.comb(blocks, needed) * (2**needed if exchange else 1)


def pseudo_gates(
    runs: Sequence[GateRun], budget: Budget, *, count: int, seed: int, exchange: bool
) -> Iterator[GateRun]:
    """`count` runs of the pairs of the budget's first look, from the blocks of recorded ones.

    `exchange` deals the arms anew. Quality scores go along as the shares that they were, so quality is left to the real
    gates.

    Raises:
        ValueError: fewer blocks than one pseudo-gate needs.
    """
    blocks = [block for run in runs for block in blocks_of(run)]
    design = replace(budget.design, pairs=budget.design.first_look, looks=())
    if len(blocks) < design.pairs // 2:
        raise ValueError(f"{design.pairs // 2} blocks of four usable slots are needed, got {len(blocks)}")
    random = np.random.default_rng(seed)
    header = replace(runs[0].header, budget=replace(budget, design=design))
    for _ in range(count):
        records: list[SlotRecord] = []
        for choice in sorted(random.choice(len(blocks), size=design.pairs // 2, replace=False)):
            records += _dealt(blocks[choice], len(records), swap=bool(random.integers(2)) if exchange else None)
        yield GateRun(header=header, records=tuple(records))


def _dealt(block: Sequence[SlotRecord], start: int, *, swap: bool | None) -> list[SlotRecord]:
    """The block as two pairs from slot `start` on; with `swap` given, as ABBA (False) or BAAB (True)."""
    made = []
    for place, record in enumerate(block):
        arm = record.slot.arm if swap is None else ARMS[(place in (1, 2)) != swap]
        index = start + place
        slot = replace(record.slot, index=index, pair=index // 2, arm=arm, position=index % 2)
        made.append(replace(record, slot=slot, attempt=0))
    return made


def outcomes(runs: Sequence[GateRun], budget: Budget, *, count: int, seed: int, exchange: bool) -> Counter[str]:
    """Judge `count` pseudo-gates, or as many as are distinct: one look, all limits except quality's."""
    kept = tuple(limit for limit in budget.limits if limit.metric != "quality")
    single = replace(budget, limits=kept, ledger=None)
    count = min(count, distinct(runs, budget, exchange=exchange))
    drawn = pseudo_gates(runs, budget, count=count, seed=seed, exchange=exchange)
    return Counter(judge(run, single).outcome for run in drawn)
