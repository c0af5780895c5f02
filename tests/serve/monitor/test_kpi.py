"""Business figures: a fall beyond the minimum effect alarms although nothing else does, one within it does not."""

import json
from dataclasses import replace
from pathlib import Path

import duckdb
import numpy as np
import pytest
from typer.testing import CliRunner

from scripts.benchmarks.monitor_streams import HOUR, MONDAY
from seatrial.serve.cli import app
from seatrial.serve.monitor.judging import Judgement, judge_business
from seatrial.serve.monitor.kpi import KpiState, learn_kpi, windows_of
from seatrial.serve.monitor.plan import Feature, Plan
from seatrial.serve.monitor.plan_answers import Kpi, Outcomes
from seatrial.serve.monitor.quantities import Floats
from seatrial.serve.monitor.window import Window

REPAID = Kpi(name="repaid", outcome="conversion", unit="loans", minimum_effect=0.05, worth=100.0, owner="Ann")
PLAN = Plan(
    schema=1,
    model="loans",
    features={"age": Feature(kind="number")},
    outcomes=Outcomes(request="request"),
    kpi=(REPAID,),
)
WEEKS = 4 * 168


def drawn(first: int, last: int, share: float) -> tuple[Floats, Floats, Floats]:
    """Times of 400 requests an hour, of those that converted, and their values, with a daily season."""
    draw = np.random.default_rng(first + 10_000)
    times = MONDAY + np.sort(draw.uniform(first, last, (last - first) * 400)) * HOUR
    wave = 1 + 0.2 * np.sin(2 * np.pi * times / 86_400)
    converted = draw.random(len(times)) < share * wave
    return times, times[converted], np.ones(int(converted.sum()))


def windows(first: int, last: int, share: float, kpi: Kpi = REPAID) -> list[Window]:
    return windows_of(PLAN, kpi, *drawn(first, last, share), start=MONDAY + first * HOUR, until=MONDAY + last * HOUR)


def judged(share: float, kpi: Kpi = REPAID, hours: int = 24 * 7) -> Judgement:
    quiet = windows(-WEEKS, 0, 0.3, kpi)
    state = KpiState(name=kpi.name, baseline=learn_kpi(PLAN, kpi, quiet), until=quiet[-1].end)
    kept = Judgement(said="", segments=(), kpi=(state,))
    return judge_business(replace(PLAN, kpi=(kpi,)), kept, {kpi.name: windows(0, hours, share, kpi)}, 9600.0)


def test_a_figure_that_falls_opens_an_investigation() -> None:
    found = judged(0.26)
    alarm = found.business.alarms[0]
    assert alarm.began - MONDAY <= 48 * HOUR
    assert (alarm.cause.kind, alarm.cause.advice, alarm.cause.features) == ("business", "unknown", ("repaid",))
    assert "a day; ask Ann" in alarm.cause.reasons[0]
    assert "usually 0.3" in alarm.cause.reasons[0]
    assert found.answers.alarms == ()
    assert found.kpi[0].until == MONDAY + 168 * HOUR


@pytest.mark.parametrize("share", [0.3, 0.292, 0.36])
def test_no_change_a_small_one_or_a_better_one_does_not(share: float) -> None:
    assert judged(share).business.alarms == ()


def test_the_direction_is_the_plans() -> None:
    fewer_is_better = replace(REPAID, direction="down")
    assert judged(0.26, fewer_is_better).business.alarms == ()
    assert judged(0.36, fewer_is_better).business.alarms


def test_a_figure_that_never_came_has_no_usual_course() -> None:
    times = drawn(-WEEKS, 0, 0.3)[0]
    none = np.zeros(0)
    quiet = windows_of(PLAN, REPAID, times, none, none, start=MONDAY - WEEKS * HOUR, until=MONDAY)
    with pytest.raises(ValueError, match="no conversion came"):
        learn_kpi(PLAN, REPAID, quiet)


def test_reviews_are_a_mean_over_those_that_there_are() -> None:
    times = MONDAY + np.arange(400) * 9.0
    review = replace(REPAID, outcome="review")
    [one] = windows_of(
        replace(PLAN, rows=2), review, times, times[:2], np.array([4.0, 5.0]), start=MONDAY, until=MONDAY + HOUR
    )
    assert (one.rows, float(one.sums[0])) == (2, 9.0)
    [all_] = windows_of(PLAN, REPAID, times, times[:2], np.ones(2), start=MONDAY, until=MONDAY + HOUR)
    assert (all_.rows, float(all_.sums[0])) == (400, 2.0)


def test_figures_are_judged_by_the_verb_without_any_label(tmp_path: Path) -> None:
    plan = tmp_path / "loans.toml"
    plan.write_text(
        'schema = 1\nmodel = "loans"\nrows = 30\nreference = 345600.0\n[features.age]\nkind = "number"\n'
        '[outcomes]\nrequest = "request"\ndelay = 3600.0\n[[kpi]]\nname = "repaid"\noutcome = "conversion"\n'
        'unit = "loans"\n'
    )
    draw, rows = np.random.default_rng(3), 40 * 24 * 8
    hours = np.arange(rows) / 40
    names = np.array([f"r{at}" for at in range(rows)], dtype=object)
    times = MONDAY + hours * HOUR
    with duckdb.connect() as connection:
        connection.register("rows", {"time": times, "request": names, "age": draw.normal(size=rows)})
        connection.execute(f"copy (select * from rows where time < {MONDAY + 72 * HOUR}) to '{tmp_path}/few.parquet'")
        connection.execute(f"copy rows to '{tmp_path}/all.parquet'")
    came = draw.random(rows) < np.where(hours < 144, 0.3, 0.1)
    late = np.where(np.arange(rows) % 7 == 0, 7200, 60)  # a seventh comes too late to count
    lines = [f"{names[at]},yes,{times[at] + late[at]}" for at in np.flatnonzero(came)]
    (tmp_path / "a.csv").write_text("\n".join(["request,value,at", *lines]))
    run = CliRunner().invoke
    assert run(app, ["outcomes", "add", "loans", str(tmp_path / "a.csv"), "--kind", "conversion"]).exit_code == 0
    early = run(app, ["outcomes", "judge", str(plan), str(tmp_path / "few.parquet")])
    assert early.exit_code == 3
    assert "its usual course is not known yet" in " ".join(early.stdout.split())
    found = run(app, ["outcomes", "judge", str(plan), str(tmp_path / "all.parquet"), "--json"])
    assert found.exit_code == 1, found.output
    document = json.loads(found.stdout)
    [alarm] = document["alarms"]
    assert alarm["cause"]["kind"] == "business"
    assert 144 * HOUR < alarm["began"] - MONDAY < 168 * HOUR
    [figure] = document["figures"]
    assert figure["until"] == MONDAY + 190 * HOUR
    again = json.loads(run(app, ["outcomes", "judge", str(plan), str(tmp_path / "all.parquet"), "--json"]).stdout)
    assert again["figures"] == document["figures"]
