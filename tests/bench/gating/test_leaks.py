"""The limit on growth: PASS needs the upper bound within it, whatever shape the growth has."""

import numpy as np
import pytest

from seatrial.bench.gating.leaks import leak_finding
from seatrial.bench.gating.pairs import Slot, SlotRecord
from seatrial.bench.measurement import NOTHING
from seatrial.bench.measuring.growth import Floats, growth
from seatrial.bench.measuring.usage import Memory
from seatrial.bench.verdict import Finding

MIB = float(1 << 20)
LIMIT = 2 * MIB
BLANK = Finding(metric="leak", unit="B/1k", rule="at_most", gating=True, outcome="INVALID", reason="", margin=LIMIT)


def finding(shape: Floats, x: Floats, *, noise: float = 0.05, slots: int = 6) -> Finding:
    records = []
    for index in range(slots):
        found = growth(x, 300 * MIB + shape + np.random.default_rng(index).normal(0, noise * MIB, x.size))
        slot = Slot(index=2 * index, pair=index, arm="candidate", position=0, seed=0)
        memory = Memory(peak=1, last=1, growth=found or NOTHING)
        records.append(SlotRecord(slot=slot, attempt=0, memory=memory))
    return leak_finding(BLANK, records[:0], records, 0.05)


X = np.linspace(0, 5000, 250)
TEN = 10 * MIB * X / 1000


@pytest.mark.parametrize(
    ("shape", "outcome", "surely"),
    [
        (np.zeros_like(X), "PASS", False),
        (TEN, "INCONCLUSIVE", True),
        (0.11 * TEN, "PASS", False),
        (0.3 * TEN, "INCONCLUSIVE", True),
        (np.floor(X / 700) * 7 * MIB, "INCONCLUSIVE", True),
        (np.maximum(0, TEN - 30 * MIB), "INCONCLUSIVE", True),
        (64 * MIB * -np.expm1(-X / 150), "PASS", False),
        (np.where(X > 800, 64 * MIB, 0.0), "PASS", False),
        (TEN + 5 * MIB * (X % 300) / 300, "INCONCLUSIVE", True),
        (5 * MIB * (X % 100) / 100, "PASS", False),
        (30 * MIB * (X % 1700) / 1700, "INCONCLUSIVE", False),
    ],
    ids=["flat", "10x", "0.55x", "1.5x", "stairs", "late", "warming", "arena", "saw 5x", "saw", "slow saw"],
)
def test_growth_of_every_shape(shape: Floats, outcome: str, surely: bool) -> None:
    found = finding(shape, X)
    assert found.outcome == outcome, found.reason
    assert ((found.p or 0.0) <= 0.01) == surely, found.p
    assert f"allowed at most {2:.1f} MiB per 1,000 requests" in found.reason


def test_a_run_too_short_or_too_noisy_to_tell_says_how_to_tell() -> None:
    found = finding(np.zeros_like(X), X, noise=20)
    assert found.outcome == "INCONCLUSIVE"
    assert "design.seconds" in found.reason


def test_slots_without_a_record_of_growth_are_invalid() -> None:
    assert finding(np.zeros(3), np.arange(3.0)).outcome == "INVALID"
    assert finding(np.zeros_like(X), X, slots=1).outcome == "INVALID"
