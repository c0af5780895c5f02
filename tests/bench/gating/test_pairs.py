"""Order and records of a run: balance, reproducibility, and a folder that reads back what was written."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from seatrial.bench.budget import Budget
from seatrial.bench.gating import pairs
from seatrial.bench.gating.judge import judge
from seatrial.bench.gating.pairs import GateRun
from seatrial.optimize.errors import ConfigError, IntegrityError, MissingError


@given(st.integers(1, 10).map(lambda half: 2 * half), st.integers(0, 10_000))
def test_every_block_of_two_pairs_is_abba_or_baab(count: int, seed: int) -> None:
    slots = pairs.plan(count, seed)
    arms = "".join("A" if slot.arm == "base" else "B" for slot in slots)
    assert {arms[i : i + 4] for i in range(0, len(arms), 4)} <= {"ABBA", "BAAB"}
    assert [slot.index for slot in slots] == list(range(2 * count))
    assert sum(1 if slot.position else -1 for slot in slots if slot.arm == "candidate") == 0


def test_both_slots_of_a_pair_share_a_seed_and_pairs_differ() -> None:
    slots = pairs.plan(6, 4)
    assert slots == pairs.plan(6, 4)
    seeds = {slot.pair: {each.seed for each in slots if each.pair == slot.pair} for slot in slots}
    assert all(len(each) == 1 for each in seeds.values())
    assert len(set.union(*seeds.values())) == 6


def test_the_coin_falls_both_ways() -> None:
    assert {pairs.plan(2, seed)[0].arm for seed in range(20)} == {"base", "candidate"}


def test_a_linear_drift_cancels() -> None:
    value = {(slot.pair, slot.arm): 1 + 0.1 * slot.index / 12 for slot in pairs.plan(6, 3)}
    drift = np.mean([value[pair, "candidate"] - value[pair, "base"] for pair in range(6)])
    assert drift == pytest.approx(0, abs=1e-12)


@pytest.mark.parametrize("count", [0, 1, 5])
def test_odd_or_no_pairs_are_refused(count: int) -> None:
    with pytest.raises(ConfigError):
        pairs.plan(count, 0)


def written(folder: Path, run: GateRun) -> Path:
    pairs.write_header(folder, run.header)
    for record in run.records:
        pairs.write_record(folder, record)
    return folder


def test_a_folder_reads_back_what_was_written_and_gives_the_same_verdict(
    tmp_path: Path, make_run: Callable[..., GateRun], budget: Budget
) -> None:
    run = make_run(latency=0.8)
    read = pairs.read_run(written(tmp_path, run))
    for old, new in zip(run.records, read.records, strict=True):
        assert old.slot == new.slot
        for name in ("latency", "service", "lag", "status", "quality"):
            assert np.array_equal(getattr(old, name), getattr(new, name))
    assert judge(read, budget) == judge(run, budget)


def test_an_interrupted_folder_stays_readable(tmp_path: Path, make_run: Callable[..., GateRun]) -> None:
    run = make_run()
    pairs.write_header(tmp_path, run.header)
    assert pairs.read_run(tmp_path).records == ()
    pairs.write_record(tmp_path, run.records[0])
    (tmp_path / "slot-01.npz").write_bytes(b"half")  # the JSON that says "whole" was not written
    assert len(pairs.read_run(tmp_path).records) == 1


def test_a_run_is_never_overwritten(tmp_path: Path, make_run: Callable[..., GateRun]) -> None:
    run = make_run()
    pairs.write_header(tmp_path, run.header)
    with pytest.raises(ConfigError, match="already"):
        pairs.write_header(tmp_path, run.header)


def test_foreign_or_missing_folders_are_named(tmp_path: Path, make_run: Callable[..., GateRun]) -> None:
    with pytest.raises(MissingError):
        pairs.read_run(tmp_path)
    (tmp_path / "run.json").write_text('{"schema": 99}')
    with pytest.raises(IntegrityError):
        pairs.read_run(tmp_path)
