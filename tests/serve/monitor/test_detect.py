"""Baseline and detector on streams whose truth is known: quiet stays quiet, each kind of change is found and named."""

from dataclasses import replace
from functools import cache

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from scripts.benchmarks.monitor_streams import HOUR, MONDAY, Drift, Mode, Stream
from seatrial.serve.monitor.baseline import Baseline, learn_baseline
from seatrial.serve.monitor.detect import State, bet, fresh, ranked_features, restarted, step
from seatrial.serve.monitor.diagnosis import Cause, diagnose
from seatrial.serve.monitor.power import followed, smallest_changes
from seatrial.serve.monitor.quantities import Columns
from seatrial.serve.monitor.season import cell, design, hours
from seatrial.serve.monitor.sketch import Sketch, learn_sketch
from seatrial.serve.monitor.window import Window

ROWS, FEATURES, REFERENCE = 500, 10, 672


def windows(stream: Stream, sketch: Sketch, first: int, count: int) -> list[Window]:
    return [
        sketch.window(stream.at(hour), start=MONDAY + hour * HOUR, seconds=HOUR) for hour in range(first, first + count)
    ]


def sample(stream: Stream) -> Columns:
    parts = [stream.at(hour, 60) for hour in range(-REFERENCE, 0)]
    return {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}


@cache
def learned(mode: Mode, seed: int) -> tuple[Stream, Sketch, Baseline]:
    stream = Stream(features=FEATURES, rows=ROWS, mode=mode, seed=seed)
    sketch = learn_sketch(stream.plan(), sample(stream))
    quiet = windows(stream, sketch, -REFERENCE, REFERENCE)
    return stream, sketch, learn_baseline(stream.plan(), sketch.quantities, quiet)


def delay(mode: Mode, drift: Drift, size: float, *, seed: int = 3, most: int = 60) -> tuple[int, str, Cause] | None:
    """Windows until the alarm, the feature named first, and the cause."""
    stream, sketch, baseline = learned(mode, seed)
    state = fresh(baseline)
    drifting = replace(stream, drift=drift, size=size, begin=24)
    for count, window in enumerate(windows(drifting, sketch, 0, 24 + most)):
        state, evidence = step(baseline, state, window)
        if evidence.alarms:
            assert count >= 24, "an alarm before the change"
            return count - 23, ranked_features(baseline, evidence)[0][0], diagnose(baseline, evidence)
    return None


@pytest.mark.parametrize("mode", ["iid", "season", "memory"])
@pytest.mark.slow
def test_quiet_traffic_stays_quiet(mode: Mode) -> None:
    stream, sketch, baseline = learned(mode, 3)
    state, highest = fresh(baseline), 0.0
    for window in windows(stream, sketch, 0, 240):
        state, evidence = step(baseline, state, window)
        highest = max(highest, evidence.total)
    assert highest < baseline.threshold / 10


@pytest.mark.parametrize(
    ("drift", "size", "within", "feature", "advice"),
    [
        ("mean", 0.3, 10, "f0", "label"),
        ("spread", 1.4, 6, "f0", "label"),
        ("unit", 1000.0, 1, "f0", "patch"),
        ("missing", 0.10, 3, "f0", "patch"),
        ("dependence", -0.4, 3, "f0", "patch"),
        ("swap", 1.0, 20, "f3", "label"),
    ],
)
def test_each_kind_of_change_is_found_named_and_told_apart(
    drift: Drift, size: float, within: int, feature: str, advice: str
) -> None:
    found = delay("season", drift, size)
    assert found is not None
    windows_, first, cause = found
    assert windows_ <= within
    assert feature in (first, cause.features[0])
    assert cause.advice == advice
    assert cause.reasons


def test_many_small_changes_add_up() -> None:
    found = delay("iid", "mean-all", 0.2)
    assert found is not None
    assert found[0] <= 6


@pytest.mark.parametrize("rows", [500, 5_000])
@pytest.mark.slow
def test_a_change_within_tolerance_is_no_news_at_any_size(rows: int) -> None:
    stream = Stream(features=8, rows=rows, mode="iid", seed=8)
    sketch = learn_sketch(stream.plan(), sample(stream))
    baseline = learn_baseline(stream.plan(), sketch.quantities, windows(stream, sketch, -200, 200))
    state = fresh(baseline)
    for window in windows(replace(stream, drift="mean", size=0.04, begin=0), sketch, 0, 72):
        state, evidence = step(baseline, state, window)
        assert not evidence.alarms


@pytest.mark.slow
def test_the_smallest_change_promised_is_found_about_when_promised() -> None:
    _, _, baseline = learned("iid", 3)
    at = [str(each) for each in baseline.quantities].index("f0: location")
    sizes = smallest_changes(baseline, (1, 4, 24))
    assert sizes[1][at] > sizes[4][at] > sizes[24][at] > baseline.tolerance[at]
    for within in (4, 24):
        times = [delay("iid", "mean", float(sizes[within][at]), seed=3, most=5 * within)]
        assert times[0] is not None
        assert within / 4 <= times[0][0] <= 3 * within
    assert np.all(sizes[24] <= sizes[4] * (1 + 1e-9))


def test_a_bet_is_worth_at_most_one_on_average() -> None:
    draws = np.random.default_rng(1).normal(size=200_000)
    assert np.all(bet(draws).mean(axis=1) < 1.02)


def test_a_gap_forgets_the_error_and_a_restart_spends_the_evidence() -> None:
    stream, sketch, baseline = learned("memory", 3)
    first, later = windows(stream, sketch, 0, 1)[0], windows(stream, sketch, 100, 1)[0]
    state, _ = step(baseline, fresh(baseline), first)
    _, near = step(baseline, state, windows(stream, sketch, 1, 1)[0])
    _, far = step(baseline, state, later)
    _, alone = step(baseline, fresh(baseline), later)
    np.testing.assert_allclose(far.surprise, alone.surprise, atol=1e-3)
    assert not np.allclose(near.surprise, step(baseline, fresh(baseline), windows(stream, sketch, 1, 1)[0])[1].surprise)
    again = restarted(state)
    assert isinstance(again, State)
    assert again.up.sum() == 0
    assert again.at == state.at


def test_constant_columns_and_short_references() -> None:
    stream, sketch, _ = learned("iid", 3)
    parts = windows(stream, sketch, -60, 60)
    baseline = learn_baseline(stream.plan(), sketch.quantities, parts)
    assert not baseline.seasonal
    with pytest.raises(ValueError, match="47 windows, and at least 48"):
        learn_baseline(stream.plan(), sketch.quantities, parts[:47])
    still = [replace(each, sums=np.zeros_like(each.sums)) for each in parts]
    flat = learn_baseline(stream.plan(), sketch.quantities, still)
    assert flat.weight[[str(each) for each in flat.quantities].index("f0: location")] == 0
    _, evidence = step(flat, fresh(flat), still[-1])
    assert np.isfinite(evidence.total)
    assert not evidence.alarms


def test_the_week_begins_on_monday() -> None:
    assert hours(np.array([MONDAY]))[0] == 0
    assert cell(np.array([MONDAY + 25.5 * HOUR]))[0] == 25
    assert design(np.array([MONDAY]), seasonal=False).shape == (1, 1)
    assert design(np.array([MONDAY, MONDAY + HOUR]), seasonal=True).shape == (2, 11)


@given(
    st.floats(0.0, 1e6),
    st.one_of(st.floats(1e-6, 8.0), st.just(1.0), st.floats(1 - 1e-7, 1 + 1e-7)),
    st.integers(1, 400),
)
def test_many_windows_at_once_are_the_same_as_one_by_one(start: float, ratio: float, count: int) -> None:
    expected = start
    for _ in range(count):
        expected = min((expected + 1) * ratio, 1e30)
    assert float(followed(np.array(start), np.array(ratio), count)) == pytest.approx(expected, rel=1e-3)


@pytest.mark.slow
def test_a_week_of_seconds_costs_no_more_than_a_week_of_hours() -> None:
    baseline = learned("iid", 11)[2]
    found = smallest_changes(baseline, [168, 604_800])
    assert (found[604_800] <= found[168] * 1.001).all()
