"""Options to a schedule: each law gets what it needs, and nothing that it would ignore."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from seatrial.bench.schedule import constant, gamma, poisson, ramp
from seatrial.bench.verbs.schedules import Law, schedule_of
from seatrial.optimize.errors import ConfigError


def made(law: Law | None, **options: Any) -> str:
    return schedule_of(law, **({"rate": 20.0, "seconds": 3.0, "seed": 4} | options)).digest


def test_each_law_is_the_library_s_own() -> None:
    assert made(Law.POISSON) == poisson(20, 3, 4).digest
    assert made(Law.POISSON, rate=None, seconds=None) == poisson(50, 10, 4).digest
    assert made(Law.CONSTANT) == constant(20, 3).digest
    assert made(Law.GAMMA, burstiness=0.5) == gamma(20, 3, 4, 0.5).digest
    assert made(Law.RAMP, to_rate=80.0) == ramp([(0, 20), (3, 80)], 4).digest


def test_a_recording_is_played_as_it_was_unless_told_otherwise(tmp_path: Path) -> None:
    (tmp_path / "log.csv").write_text("time\n5\n6\n9\n")
    options: dict[str, Any] = {"seed": 0, "recorded": tmp_path / "log.csv"}
    assert np.array_equal(schedule_of(Law.REPLAY, rate=None, seconds=None, **options).offsets, [0, 1, 4])
    assert np.array_equal(schedule_of(Law.REPLAY, rate=None, seconds=2.0, **options).offsets, [0, 1])
    assert np.array_equal(schedule_of(Law.REPLAY, rate=1.5, seconds=None, **options).offsets, [0, 0.5, 2])


def test_an_option_that_belongs_to_a_law_implies_it(tmp_path: Path) -> None:
    (tmp_path / "log.csv").write_text("time\n5\n6\n9\n")
    assert made(None) == made(Law.POISSON)
    assert made(None, burstiness=0.5) == made(Law.GAMMA, burstiness=0.5)
    assert made(None, to_rate=80.0) == made(Law.RAMP, to_rate=80.0)
    recorded = {"recorded": tmp_path / "log.csv", "rate": None, "seconds": None}
    assert made(None, **recorded) == made(Law.REPLAY, **recorded)
    with pytest.raises(ConfigError, match="belongs to --law ramp"):
        made(None, burstiness=0.5, to_rate=80.0)


@pytest.mark.parametrize("text", ["0.0\n", "5.0\n", "0\n0\n0\n", "offsets\n0\n", "1.5\n" * 40])
def test_arrivals_at_one_time_are_a_schedule_of_a_second(tmp_path: Path, text: str) -> None:
    (tmp_path / "log.csv").write_text(text)
    options: dict[str, Any] = {"rate": None, "seconds": None, "seed": 0, "recorded": tmp_path / "log.csv"}
    schedule = schedule_of(None, **options)
    count = len([line for line in text.splitlines() if line != "offsets"])
    assert (len(schedule), schedule.seconds, schedule.rate) == (count, 1.0, count)
    assert not np.any(schedule.offsets)
    with pytest.raises(ConfigError, match="omit the rate"):
        schedule_of(None, **(options | {"rate": 5.0}))


def test_a_log_of_whole_seconds_can_be_spread(tmp_path: Path) -> None:
    (tmp_path / "log.csv").write_text("time\n" + "".join(f"{second}\n" * 50 for second in range(4)))
    options: dict[str, Any] = {"rate": None, "seconds": None, "seed": 3, "recorded": tmp_path / "log.csv"}
    burst, spread = schedule_of(None, **options), schedule_of(None, spread=1.0, **options)
    assert len(np.unique(burst.offsets)) == 4
    assert len(np.unique(spread.offsets)) == 200
    assert all(np.count_nonzero(np.floor(spread.offsets) == second) == 50 for second in range(4))
    assert schedule_of(None, spread=1.0, **options).digest == spread.digest
    assert schedule_of(None, spread=1.0, **(options | {"seed": 4})).digest != spread.digest
    with pytest.raises(ConfigError, match="--spread needs --replay"):
        made(None, spread=1.0)


@pytest.mark.parametrize(
    ("law", "options", "said"),
    [
        (Law.GAMMA, {}, "needs --burstiness"),
        (Law.RAMP, {}, "needs --to-rate"),
        (Law.REPLAY, {}, "needs --replay"),
        (Law.POISSON, {"burstiness": 2.0}, "belongs to --law gamma"),
        (Law.CONSTANT, {"to_rate": 2.0}, "belongs to --law ramp"),
    ],
)
def test_missing_and_unused_options_are_refused(law: Law, options: dict[str, Any], said: str) -> None:
    with pytest.raises(ConfigError, match=said):
        made(law, **options)
