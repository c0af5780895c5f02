"""The history of gates: appended once, by model and class of machine, and shown with its steps."""

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
import typer
from typer.testing import CliRunner

from seatrial.bench.budget import Budget
from seatrial.bench.gating import pairs
from seatrial.bench.gating.judge import judge
from seatrial.bench.gating.pairs import GateRun
from seatrial.bench.measuring.machine_class import MachineClass
from seatrial.bench.records import history
from seatrial.bench.records.history import Point, points, record
from seatrial.bench.report import trend_page
from seatrial.bench.verbs.trend import trend as verb
from seatrial.optimize.environment import environment
from seatrial.optimize.errors import IntegrityError, MissingError

RunMaker = Callable[..., GateRun]
app = typer.Typer()
app.command()(verb)
HERE = MachineClass.of(environment().to_json())


def at(run: GateRun, day: int) -> GateRun:
    """The run as if measured on this machine on that day."""
    when = f"2026-{1 + day // 28:02d}-{1 + day % 28:02d}T03:00:00+00:00"
    return replace(run, header=replace(run.header, at=when, environment=environment().to_json()))


def test_a_gate_is_written_down_once(make_run: RunMaker, budget: Budget, home: Path) -> None:
    run = at(make_run(latency=0.6), 0)
    verdict = judge(run, budget)
    made = record(home, run, verdict, "sha256:1")
    assert {point.metric for point in made} == {finding.metric for finding in verdict.findings}
    assert record(home, run, verdict, "sha256:1") == ()
    assert len(record(home, run, verdict, "sha256:2")) == len(made)
    back = points(home, "scenes-int8", HERE)
    assert back[: len(made)] == list(made)
    p50 = next(point for point in made if point.metric == "p50")
    finding = verdict.finding("p50")
    assert finding is not None
    assert (p50.ratio, p50.candidate, p50.interval) == (finding.ratio, finding.candidate, finding.interval)
    assert points(home, "scenes-int8", MachineClass.of({})) == []
    assert history.models(home, HERE) == ["scenes-int8"]


def test_an_invalid_run_leaves_no_line(make_run: RunMaker, budget: Budget, home: Path) -> None:
    whole = at(make_run(), 0)
    run = replace(whole, records=whole.records[:4])
    assert record(home, run, judge(run, budget), "sha256:1") == ()
    assert not (home / "history").exists()


def test_a_line_that_cannot_be_read_is_said_to_be(home: Path) -> None:
    path = history.path_of(home, HERE, "scenes")
    path.parent.mkdir(parents=True)
    path.write_text('{"schema": 1, "model": "scenes"}\n')
    with pytest.raises(IntegrityError):
        points(home, "scenes", HERE)


@pytest.fixture
def stepped(make_run: RunMaker, budget: Budget, home: Path) -> list[Point]:
    """Twenty gates, from the eleventh on 40 % slower, one spike in the fourth."""
    for day in range(20):
        run = at(make_run(latency=(1.4 if day >= 10 else 1.0) * (2.5 if day == 3 else 1.0), seed=day, count=240), day)
        record(home, run, judge(run, budget), f"sha256:{day}")
    return points(home, "scenes-int8", HERE)


@pytest.mark.slow
def test_the_step_is_shown_and_the_spike_is_not(stepped: list[Point], home: Path, tmp_path: Path) -> None:
    for ratio in (False, True):
        found = {each.metric: each for each in trend_page.series(stepped, ratio=ratio)}
        assert [step.index for step in found["p50"].trend.steps] == [10]
        assert found["peak_memory"].trend.steps == ()
    done = CliRunner().invoke(app, ["scenes-int8", "--html", str(tmp_path / "trend.html"), "--metric", "p50"])
    assert done.exit_code == 0, done.exception
    lines = done.output.splitlines()
    assert lines[0].startswith("p50  ")
    assert lines[1].index("▲") == 5 + 10
    assert "step of +" in lines[2]
    assert "20 gates" in done.output
    page = (tmp_path / "trend.html").read_text()
    assert page.count('class="plotly-graph-div"') == 1
    assert "step of +" in page
    found_json = json.loads(CliRunner().invoke(app, ["scenes-int8", "--of", "ratio", "--json"]).output)
    p50 = next(each for each in found_json["series"] if each["metric"] == "p50")
    assert [step["index"] for step in p50["trend"]["steps"]] == [10]


def test_the_verb_appends_runs_and_says_what_is_known(make_run: RunMaker, home: Path, tmp_path: Path) -> None:
    for day in range(2):
        run = at(make_run(seed=day), day)
        pairs.write_header(tmp_path / str(day), run.header)
        for each in run.records:
            pairs.write_record(tmp_path / str(day), each)
    given = ["--add", str(tmp_path / "0"), "--add", str(tmp_path / "1"), "--add", str(tmp_path / "1")]
    assert "scenes-int8" in CliRunner().invoke(app, given).output
    done = CliRunner().invoke(app, ["scenes-int8"])
    assert done.exit_code == 0, done.exception
    assert "2 gates" in done.output
    assert "too few points for a trend" in done.output
    gone = CliRunner().invoke(app, ["nobody"])
    assert isinstance(gone.exception, MissingError)
    assert "known: scenes-int8" in gone.exception.next_step
