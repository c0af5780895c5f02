"""The plan from a curve: what it takes, what it refuses, how far it trusts itself, and the profile it gives."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from seatrial.bench.capacity.slo import Slo
from seatrial.optimize.artifact import Artifact, File, TensorSpec
from seatrial.optimize.errors import ConfigError, IntegrityError
from seatrial.optimize.recipe.configs import CompileConfig
from seatrial.optimize.store import Store
from seatrial.optimize.tensorrt.plan import PLAN, plan_engine
from seatrial.serve.deployment import Batching, Deployment
from seatrial.serve.errors import ObjectiveError
from seatrial.serve.plan.choose import Model, choose
from seatrial.serve.plan.curve import Curve, Executions, Window
from seatrial.serve.plan.profile import BatchProfile, batch_profiles, engine_profiles, missing, profile_of, warning
from seatrial.serve.plan.setting import Layout, Setting, batches, layouts, settings
from tests.support.graphs import pictures
from tests.support.made_by import MADE_BY

SLO = Slo(quantile=0.99, seconds=0.030)
SINGLE, DOUBLE = Layout(instances=1, threads=1), Layout(instances=2, threads=1)


def window(layout: Layout, round_: int, concurrency: int, seconds: dict[int, float], rows: int = 1) -> Window:
    """A second of batches of these sizes, 100 each; the server never stands still."""
    executions = tuple(Executions(size=size, count=100, seconds=100 * each) for size, each in seconds.items())
    busy = sum(each.seconds for each in executions)
    answered = sum(each.size * each.count for each in executions)
    noise = np.random.default_rng(round_).normal(0, 1e-4, 200)
    return Window(
        layout=layout,
        round=round_,
        concurrency=concurrency,
        rows=rows,
        seconds=busy / layout.instances,
        completed=answered // rows,
        executions=executions,
        latencies=tuple((seconds[1] + 0.001 + noise).tolist()) if concurrency == 1 and rows == 1 else (),
    )


def curve(flat: bool = True, drift: float = 1.0, sizes: tuple[int, ...] = (1, 4, 16, 32)) -> Curve:
    """Batching pays (flat) or does not; a second instance costs the first one a third."""
    windows = []
    for round_ in range(2):
        for layout, slower in ((SINGLE, 1.0), (DOUBLE, 1.33)):
            one = 0.004 * slower * (drift if round_ else 1.0)
            seconds = {size: one * (1 + 0.02 * (size - 1) if flat else size) for size in sizes}
            windows += [window(layout, round_, 1, {1: one}), window(layout, round_, 64, seconds)]
            windows.append(window(layout, round_, 1, {16: seconds[16] * 0.8} | {1: one}, rows=16))
    return Curve(subject="sha256:0", largest=sizes[-1], cores=2, windows=tuple(windows), environment={})


def test_a_curve_survives_its_file_and_says_what_a_batch_costs() -> None:
    made = curve()
    again = Curve.from_json(json.loads(json.dumps(made.to_json())))
    assert again == made
    service = again.service(SINGLE)
    assert service.of(1) == pytest.approx(0.004)
    assert service.of(32) == pytest.approx(0.004 * 1.62)
    assert service.of(10) == pytest.approx(0.004 * 1.18)  # straight between 4 and 16
    assert service.gap == pytest.approx(0.0, abs=1e-9)
    assert service.path == pytest.approx(0.001, abs=1e-4)
    assert service.error < 0.001
    with pytest.raises(IntegrityError):
        Curve.from_json({**made.to_json(), "schema": 99})
    with pytest.raises(IntegrityError):
        made.service(Layout(instances=7, threads=7))


@pytest.mark.slow
def test_rounds_that_differ_are_told_and_widen_the_prediction() -> None:
    still, drifting = (choose(Model.of(curve(drift=drift), SLO), 300) for drift in (1.0, 1.4))
    assert drifting.tail[1] / drifting.tail[0] > 1.2 * still.tail[1] / still.tail[0]
    assert any("differ" in note for note in drifting.notes)
    assert not any("differ" in note for note in still.notes)
    assert still.tail[0] <= still.prediction.tail <= still.tail[1]


@pytest.mark.slow
def test_where_batching_pays_the_plan_batches_and_where_it_does_not_it_bears_no_less_for_it() -> None:
    pays = choose(Model.of(curve(flat=True), SLO), 1500)
    assert pays.setting.max_batch >= 8
    assert pays.met
    assert pays.sustains > 1500
    model = Model.of(curve(flat=False), SLO)
    some = [setting for setting in model.settings() if not setting.delay_us and setting.max_batch in (1, 4, 16)]
    plain = choose(model, 150, some)
    best = max(model.sustains(setting) for setting in some if model.keeps(setting, 150))
    assert plain.sustains >= 0.95 * best


@pytest.mark.slow
def test_a_rate_too_high_is_refused_with_one_that_is_not() -> None:
    model = Model.of(curve(), SLO)
    with pytest.raises(ObjectiveError, match="no setting meets") as caught:
        choose(model, 100_000)
    assert caught.value.exit_code == 1
    rate = float(caught.value.next_step.split("at most ")[1].split(" ")[0])
    assert choose(model, 0.95 * rate).sustains >= 0.95 * rate
    with pytest.raises(ObjectiveError, match="at any rate"):
        choose(Model.of(curve(), Slo(quantile=0.99, seconds=0.002)), 10)


@pytest.mark.slow
def test_a_delay_is_taken_where_it_pays_and_not_where_its_gain_cannot_be_told_from_luck() -> None:
    model = Model.of(curve(), SLO)
    none, short, long = (Setting(max_batch=32, delay_us=delay, layout=DOUBLE) for delay in (0, 900, 3000))
    at_ease, busy = 600.0, 3000.0
    assert 1.0 < model.predict(none, at_ease).tail / model.predict(short, at_ease).tail < 1.1
    assert choose(model, at_ease, (none, short)).setting == none
    assert model.predict(none, busy).tail > 1.2 * model.predict(long, busy).tail
    assert choose(model, busy, (none, short, long)).setting == long


def test_only_the_settings_that_are_given_are_considered() -> None:
    only = (Setting(max_batch=4, delay_us=0, layout=SINGLE), Setting(max_batch=8, delay_us=0, layout=SINGLE))
    plan = choose(Model.of(curve(), SLO), 300, only)
    assert plan.setting in only
    assert plan.considered == 2
    bearing = Model.of(curve(), SLO).bearing(only, plan.sustains * 0.9)
    assert bearing[plan.setting] >= plan.sustains * 0.9
    assert Model.of(curve(), SLO).bearing(only, 1e6) == {}
    assert json.loads(json.dumps(plan.to_json(), allow_nan=False))["setting"] == plan.setting.to_json()


@given(cores=st.integers(1, 256))
def test_threads_of_all_instances_find_a_core(cores: int) -> None:
    some = layouts(cores)
    assert all(each.instances * each.threads <= cores for each in some)
    assert {Layout(instances=1, threads=cores), Layout(instances=cores, threads=1), SINGLE} <= set(some)
    assert len(some) == len(set(some)) <= 20  # each costs seconds to measure


@given(largest=st.integers(1, 300))
def test_settings_are_distinct_and_wait_for_nothing_without_batching(largest: int) -> None:
    some = list(settings((SINGLE,), largest, 0.03))
    assert len(set(some)) == len(some)
    assert {each.max_batch for each in some} == set(batches(largest))
    assert all(each.delay_us == 0 for each in some if each.max_batch == 1)


def test_a_setting_changes_of_a_deployment_what_it_names_and_keeps_the_rest() -> None:
    batching = Batching(preferred_sizes=(4,), preserve_ordering=True)
    deployment = Deployment(schema=1, name="a", max_batch_size=32, batching=batching)
    made = Setting(max_batch=2, delay_us=300, layout=DOUBLE).applied(deployment)
    assert made.batching == Batching(max_queue_delay_us=300, preserve_ordering=True)
    assert Setting.of(made) == Setting(max_batch=2, delay_us=300, layout=DOUBLE)


def test_nonsense_is_refused() -> None:
    for wrong in ({"max_batch": 0}, {"delay_us": -1}):
        values: dict[str, Any] = {"max_batch": 1, "delay_us": 0, "layout": SINGLE} | wrong
        with pytest.raises(ConfigError):
            Setting(**values)
    with pytest.raises(ConfigError):
        Layout(instances=0, threads=1)
    with pytest.raises(ConfigError):
        BatchProfile(low=4, opt=2, high=8)


def test_the_profile_is_tuned_for_where_most_requests_are_and_the_compile_stage_takes_it() -> None:
    profile = profile_of({1: 0.5, 8: 0.3, 16: 0.2}, 16)
    assert profile.range == (1, 16, 16)
    assert profile_of({1: 0.9, 8: 0.1}, 16).range == (1, 1, 16)
    config = CompileConfig(kind="compile", batch=profile.range)
    engine = plan_engine(config, (TensorSpec(name="x", dtype="float32", shape=("n", 3)),), "sha256:0")
    assert batch_profiles(engine.profiles) == (profile,)


def test_batches_outside_an_engine_s_profiles_are_warned_of_beyond_a_share() -> None:
    profiles = (BatchProfile(low=1, opt=4, high=8), BatchProfile(low=16, opt=16, high=32))
    sizes = {1: 0.5, 12: 0.02, 16: 0.48}
    assert missing(sizes, profiles) == pytest.approx(0.02)
    assert "2.0%" in warning(sizes, profiles)
    assert warning(sizes, profiles, most=0.05) == ""
    assert missing({}, profiles) == 0.0
    assert missing(sizes, ()) == 1.0


def test_a_curve_of_one_round_admits_how_little_it_knows() -> None:
    whole = curve()
    one = replace(whole, windows=tuple(each for each in whole.windows if each.round == 0))
    assert one.service(SINGLE).error >= 0.1


def test_an_engine_s_profiles_come_from_the_plan_that_it_was_built_by(tmp_path: Path) -> None:
    store, folder = Store(tmp_path / "store"), tmp_path / "engine"
    folder.mkdir()
    spec = TensorSpec(name="x", dtype="float32", shape=("n", 3))
    engine = plan_engine(CompileConfig(kind="compile", batch=(1, 8, 16)), (spec,), "sha256:0")
    (folder / PLAN).write_text(json.dumps(engine.to_json()))
    made = Artifact(
        name="engine",
        format="tensorrt",
        files=(File.of(folder / PLAN),),
        inputs=(spec,),
        outputs=(spec,),
        requires={},
        made_by=MADE_BY,
    )
    assert engine_profiles(store.put(made, folder), store) == (BatchProfile(low=1, opt=8, high=16),)
    with pytest.raises(ConfigError, match="must be a TensorRT engine"):
        engine_profiles(pictures(store, tmp_path / "pictures"), store)
