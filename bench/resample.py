"""Pseudo-gates from recorded slots: many answers to "how often would this gate have cried wolf" out of few real runs.

Pure; judges with the real judge. What is resampled, exactly: whole slots with all their raw values, in blocks of four
that followed each other in one session, in the order in which they ran. Blocks are drawn with replacement from all
sessions; within a block the arms are dealt anew, ABBA or BAAB by a seeded coin (A/A runs, where the arms are the same
thing), or stay as they were (drills, where they are not). So a pseudo-gate keeps each slot's own noise and the drift
within four slots, which is all that a balanced comparison can feel of a drift; it does not keep what links one block to
the next. It shows what these sessions could have given, not what another day would: its bounds are about the resampling
alone, and only real gates count as evidence about the machine.
"""

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import replace

import numpy as np

from .budget import Budget
from .judge import judge
from .pairs import ARMS, GateRun, SlotRecord

BLOCK = 4  # slots: the shortest run of them in which both arms come twice and a linear drift cancels


def blocks_of(run: GateRun) -> list[tuple[SlotRecord, ...]]:
    """A session's usable slots, last attempts only, cut into blocks of four in the order taken; a rest is left out."""
    slots = sorted(run.final().values(), key=lambda record: record.slot.index)
    cut = [tuple(slots[at : at + BLOCK]) for at in range(0, len(slots) - BLOCK + 1, BLOCK)]
    return [block for block in cut if all(record.usable for record in block)]


def pseudo_gates(
    runs: Sequence[GateRun], budget: Budget, *, count: int, seed: int, exchange: bool
) -> Iterator[GateRun]:
    """`count` runs of the budget's design, drawn from the blocks of recorded ones; `exchange` deals the arms anew.

    The evaluation set's scores go along as the pair's share that they were, so quality is left to the real gates.

    Raises:
        ValueError: no block to draw from.
    """
    blocks = [block for run in runs for block in blocks_of(run)]
    if not blocks:
        raise ValueError("no four usable slots in a row")
    random = np.random.default_rng(seed)
    design = replace(budget.design, pairs=budget.design.first_look, looks=())
    header = replace(runs[0].header, budget=replace(budget, design=design).to_json())
    for _ in range(count):
        records: list[SlotRecord] = []
        for choice in random.integers(len(blocks), size=design.pairs // 2):
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
    """How `count` pseudo-gates end: one look at the first look's pairs, over all limits but quality's."""
    kept = tuple(limit for limit in budget.limits if limit.metric != "quality")
    single = replace(budget, limits=kept, ledger=None)
    drawn = pseudo_gates(runs, budget, count=count, seed=seed, exchange=exchange)
    return Counter(judge(run, single).outcome for run in drawn)
