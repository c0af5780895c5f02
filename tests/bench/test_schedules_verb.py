"""Options to a schedule: each law gets what it needs, and nothing that it would ignore."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from bench.schedule import constant, gamma, poisson, ramp
from bench.verbs.schedules import Law, schedule_of
from optimize.errors import ConfigError


def made(law: Law, **options: Any) -> str:
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


@pytest.mark.parametrize(
    ("law", "options", "said"),
    [
        (Law.GAMMA, {}, "needs --burstiness"),
        (Law.RAMP, {}, "needs --to-rate"),
        (Law.REPLAY, {}, "needs --replay"),
        (Law.POISSON, {"burstiness": 2.0}, "goes with --law gamma"),
        (Law.CONSTANT, {"to_rate": 2.0}, "goes with --law ramp"),
    ],
)
def test_missing_and_unused_options_are_refused(law: Law, options: dict[str, Any], said: str) -> None:
    with pytest.raises(ConfigError, match=said):
        made(law, **options)
