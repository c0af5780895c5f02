"""Preflight: a busy machine and a full disk are told before the first slot."""

from dataclasses import replace
from pathlib import Path

from bench.budget import Budget
from bench.preflight import disk_needed, preflight


def test_a_quiet_machine_with_room_is_fine(tmp_path: Path, budget: Budget) -> None:
    assert preflight(budget, tmp_path / "not" / "yet", load=0.1, free=1 << 40) == ()
    assert all("MiB" not in warning for warning in preflight(budget, tmp_path))


def test_other_work_and_too_little_room_are_told(tmp_path: Path, budget: Budget) -> None:
    busy, full = preflight(budget, tmp_path, load=3.0, free=1 << 20)
    assert "3.0 runnable" in busy
    assert "1 MiB free" in full
    longer = replace(budget, design=replace(budget.design, pairs=20))
    assert disk_needed(longer) > disk_needed(budget)
