"""Growth of memory: slopes that are known, steps of an arena, and noise that is no leak."""

import json
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from seatrial.bench.measurement import NOTHING
from seatrial.bench.measuring.growth import Floats, Growth, growth, theil_sen
from seatrial.bench.measuring.usage import Memory, MemorySeries, parts_of
from seatrial.optimize.errors import IntegrityError

MIB = 1 << 20
REQUESTS = np.arange(0, 3000, 10)


def noise(scale: float, seed: int = 0) -> np.ndarray[tuple[int], np.dtype[np.float64]]:
    return np.random.default_rng(seed).normal(0, scale, REQUESTS.size)


def test_a_leak_is_told_in_bytes_per_thousand_requests_and_is_sure() -> None:
    found = growth(REQUESTS, 300 * MIB + REQUESTS * 2048.0 + noise(MIB / 4))
    assert found is not None
    assert found.slope == pytest.approx(2048e3, rel=0.1)
    assert 0 < found.lower < found.slope
    assert found.note == "grew with the requests"


def test_an_arena_that_grew_in_one_step_is_named_so_and_its_step_is_counted() -> None:
    held = np.where(REQUESTS < 700, 300 * MIB, 364 * MIB) + noise(1000)
    found = growth(REQUESTS, held)
    assert found is not None
    assert found.steps == 1
    assert found.stepped == pytest.approx(64 * MIB, rel=0.01)
    assert "1 step and released nothing" in found.note


def test_noise_alone_is_a_leak_about_as_seldom_as_promised() -> None:
    sure = [found.lower > 0 for seed in range(30) if (found := growth(REQUESTS, noise(MIB, seed))) is not None]
    assert len(sure) == 30
    assert sum(sure) <= 6  # beyond 6 of 30 the probability is under 0.2 %


def late(begin: float) -> Floats:
    """10 MiB a thousand requests, from that share of the run on."""
    return np.asarray(np.maximum(0.0, REQUESTS - begin * REQUESTS[-1]) * 10 * MIB / 1000, np.float64)


@pytest.mark.parametrize("begin", [0.0, 0.3, 0.5, 0.7])
def test_a_leak_that_begins_late_is_a_leak(begin: float) -> None:
    found = growth(REQUESTS, 300 * MIB + late(begin) + noise(MIB / 20))
    assert found is not None
    assert found.lower > MIB
    assert found.upper > 10 * MIB
    assert found.note == "grew with the requests"


def test_what_grew_at_first_alone_is_bounded_close_to_nothing() -> None:
    warming = 64 * MIB * -np.expm1(-REQUESTS / 100)
    found = growth(REQUESTS, 300 * MIB + warming + noise(MIB / 20))
    assert found is not None
    assert found.upper < MIB / 2
    assert found.note == "grew at first, but not in the last third of the requests"


def test_one_late_step_is_neither_a_leak_nor_the_proof_of_none() -> None:
    found = growth(REQUESTS, np.where(REQUESTS < 2500, 300 * MIB, 320 * MIB) + noise(1000))
    assert found is not None
    assert found.upper > 20 * MIB


def test_a_collector_s_last_rise_is_no_leak_while_its_floor_stands() -> None:
    for phase in range(0, 900, 100):
        found = growth(REQUESTS, 300 * MIB + 20 * MIB * ((REQUESTS + phase) % 900) / 900 + noise(MIB / 20))
        assert found is not None
        assert found.lower <= 0, phase
        assert found.upper > 0


def test_parts_are_those_of_the_series_where_they_were_not_kept() -> None:
    held = 300 * MIB + late(0.5) + noise(MIB / 20)
    found = growth(REQUESTS, held)
    assert found is not None
    memory = Memory(peak=1, last=1, growth=Growth.from_json(json.loads(json.dumps(found.to_json()))))
    assert parts_of(memory) == found.parts
    looks = (1, 2, *held.astype(int).tolist(), 3)
    served = (0, 0, *(REQUESTS + 1).astype(int).tolist(), 2991)
    series = MemorySeries(
        at=tuple(map(float, range(len(looks)))), resident=looks, anonymous=looks, file=looks, pss=looks, requests=served
    )
    earlier = {key: item for key, item in found.to_json().items() if key not in ("upper", "parts")}
    recomputed = parts_of(replace(memory, growth=Growth.from_json(earlier), series=series))
    assert [part.slope for part in recomputed] == pytest.approx([part.slope for part in found.parts], rel=0.05)
    without = replace(memory, growth=NOTHING)
    assert parts_of(NOTHING) == parts_of(without) == parts_of(replace(without, series=replace(series, requests=None)))
    assert parts_of(without) == ()


def test_memory_is_read_in_every_form_that_was_stored() -> None:
    first = {"peak": 5, "last": 4, "peak_pss": 3, "high_water": {"7": 5}, "processes": 1, "looks": 9}
    memory = Memory.from_json(first)
    assert (memory.high_water, memory.running, memory.growth) == ({7: 5}, None, NOTHING)
    with pytest.raises(IntegrityError, match="peak"):
        Memory.from_json(first | {"peak": "5"})


def test_what_says_nothing_is_none() -> None:
    assert growth([1, 2, 3], [1, 2, 3]) is None
    assert growth([5] * 20, range(20)) is None


@given(st.floats(-1e6, 1e6), st.floats(0, 1e9), st.integers(8, 40))
def test_the_slope_of_a_line_is_exact_and_ignores_where_it_starts(slope: float, start: float, count: int) -> None:
    x = np.arange(count, dtype=np.float64)
    assert theil_sen(x, (start + slope * x)[None, :])[0] == pytest.approx(slope, rel=1e-6, abs=1e-3)


def test_a_quarter_of_wild_points_does_not_move_it_far() -> None:
    x = np.arange(100.0)
    y = 3 * x
    y[::5] += 1e6
    assert theil_sen(x, y[None, :])[0] == pytest.approx(3, rel=0.1)
