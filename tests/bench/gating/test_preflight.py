"""Preflight: a busy machine and a full disk are told before the first slot."""

from dataclasses import replace
from pathlib import Path

import pytest

from seatrial.bench.budget import Budget
from seatrial.bench.gating.preflight import disk_needed, preflight


@pytest.fixture
def roomy(budget: Budget) -> Budget:
    return replace(budget, design=replace(budget.design, seconds=60.0))


def test_a_quiet_machine_with_room_is_fine(tmp_path: Path, roomy: Budget) -> None:
    assert preflight(roomy, tmp_path / "not" / "yet", load=0.1, free=1 << 40) == ()
    assert all("MiB" not in warning for warning in preflight(roomy, tmp_path))


def test_other_work_and_too_little_room_are_told(tmp_path: Path, roomy: Budget) -> None:
    busy, full = preflight(roomy, tmp_path, load=3.0, free=1 << 20)
    assert "3.0 runnable" in busy
    assert "1 MiB free" in full
    longer = replace(roomy, design=replace(roomy.design, pairs=20))
    assert disk_needed(longer) > disk_needed(roomy)


def test_a_p99_of_few_requests_is_told(tmp_path: Path, budget: Budget) -> None:
    (few,) = preflight(budget, tmp_path, load=0.0, free=1 << 40)
    assert few.startswith("p99 of 1080 requests per slot: sampling alone moves it by about 6%")
    advisory = replace(budget, limits=tuple(replace(limit, gating=limit.metric != "p99") for limit in budget.limits))
    assert preflight(advisory, tmp_path, load=0.0, free=1 << 40) == ()
