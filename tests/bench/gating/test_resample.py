"""Pseudo-gates: whole blocks, no slot twice, arms dealt anew only where they are the same thing."""

from collections.abc import Callable
from dataclasses import replace

import pytest

from seatrial.bench.budget import Budget
from seatrial.bench.gating.noise import noise_of
from seatrial.bench.gating.pairs import GateRun, SlotRecord
from seatrial.bench.gating.resample import blocks_of, distinct, outcomes, pseudo_gates
from seatrial.bench.gating.trials import Rate, rate

RunMaker = Callable[..., GateRun]


@pytest.fixture
def session(make_run: RunMaker) -> list[GateRun]:
    """Two A/A sessions of six pairs; a slot is known by its throughput."""
    return [make_run(seed=seed) for seed in (1, 2)]


def test_blocks_follow_each_other_and_spoiled_ones_are_left_out(session: list[GateRun]) -> None:
    assert [[r.slot.index for r in block] for block in blocks_of(session[0])] == [
        [0, 1, 2, 3],
        [4, 5, 6, 7],
        [8, 9, 10, 11],
    ]

    def spoil(record: SlotRecord) -> SlotRecord:
        return replace(record, breaches=("lag: late",)) if record.slot.index == 5 else record

    spoiled = replace(session[0], records=tuple(map(spoil, session[0].records)))
    assert len(blocks_of(spoiled)) == 2


@pytest.mark.parametrize("exchange", [True, False])
def test_a_pseudo_gate_is_a_balanced_run_of_slots_that_were(
    session: list[GateRun], budget: Budget, exchange: bool
) -> None:
    known = {record.throughput: record for run in session for record in run.records}
    deals = set()
    for run in pseudo_gates(session, budget, count=60, seed=3, exchange=exchange):
        arms = "".join("B" if record.slot.arm == "base" else "C" for record in run.records)
        deals.add(arms)
        assert {arms[at : at + 4] for at in range(0, 12, 4)} <= {"BCCB", "CBBC"}
        assert [record.slot.index for record in run.records] == list(range(12))
        assert len({record.throughput for record in run.records}) == 12
        for at in range(0, 12, 4):
            found = [known[record.throughput].slot.index for record in run.records[at : at + 4]]
            assert found == list(range(found[0], found[0] + 4))
        if not exchange:
            assert all(known[record.throughput].slot.arm == record.slot.arm for record in run.records)
    assert len(deals) > 1


def test_as_many_pseudo_gates_as_there_are_different_ones(session: list[GateRun], budget: Budget) -> None:
    assert distinct(session, budget, exchange=True) == 20 * 8
    assert distinct(session[:1], budget, exchange=False) == 1
    assert outcomes(session[:1], budget, count=50, seed=1, exchange=False).total() == 1
    with pytest.raises(ValueError, match="blocks"):
        list(pseudo_gates([session[0].first(4)], budget, count=1, seed=1, exchange=True))


@pytest.mark.slow
def test_identical_arms_hardly_ever_fail_and_slow_ones_do(
    make_run: RunMaker, session: list[GateRun], budget: Budget
) -> None:
    same = outcomes(session, budget, count=100, seed=4, exchange=True)
    assert same["FAIL"] <= 1
    assert same.total() == 100
    slow = [make_run(seed=seed, latency=1.3) for seed in (1, 2)]
    assert outcomes(slow, budget, count=20, seed=4, exchange=False)["FAIL"] == 20
    assert outcomes(session, budget, count=30, seed=5, exchange=True) == outcomes(
        session, budget, count=30, seed=5, exchange=True
    )


def test_noise_is_the_spread_about_each_run_s_own_effect(make_run: RunMaker) -> None:
    quiet = noise_of([make_run(seed=seed) for seed in range(6)])["p50"]
    slow = noise_of([make_run(seed=seed, latency=1.3) for seed in range(6)])["p50"]
    assert quiet.df == slow.df == 24
    assert slow.sd == pytest.approx(quiet.sd, rel=0.02)
    assert 0.01 < quiet.sd < 0.025  # two slots of 1 % each, and the median's own error
    assert noise_of([]) == {}


def test_rates_are_exact_and_leave_invalid_gates_out() -> None:
    found = rate({"PASS": 299, "FAIL": 1, "INVALID": 5}, "FAIL")
    assert (found.count, found.n) == (1, 300)
    assert Rate.of(0, 300).high == pytest.approx(1 - 0.025 ** (1 / 300))
    assert (Rate.of(0, 0).low, Rate.of(0, 0).high) == (0.0, 1.0)
