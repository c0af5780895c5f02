"""Baselines: raw values by name, model and class of machine; comparisons across classes are refused."""

import json
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from typer.testing import CliRunner

from seatrial.bench.budget import load_budget
from seatrial.bench.gating import pairs
from seatrial.bench.gating.pairs import GateRun
from seatrial.bench.measuring.machine_class import MachineClass
from seatrial.bench.records import baseline
from seatrial.bench.records.baseline import (
    Baseline,
    as_limits,
    compare,
    digest_of,
    measurements_of,
    read,
    record,
    spread,
)
from seatrial.bench.verbs.baseline import app
from seatrial.optimize.environment import environment
from seatrial.optimize.errors import ConfigError, IntegrityError, MissingError

RunMaker = Callable[..., GateRun]
LARGE = {"cpu": "Grace", "cores": 72, "gpus": ["GPU-1, NVIDIA H100, 560.1"]}


def elsewhere(run: GateRun, machine: dict[str, Any]) -> GateRun:
    return replace(run, header=replace(run.header, environment=dict(run.header.environment) | machine))


def kept(run: GateRun, home: Path, name: str = "main") -> Baseline:
    return record(home, name, measurements_of(run, "candidate"), model="scenes-int8", run="sha256:0")


def test_a_baseline_keeps_every_slot_s_value(make_run: RunMaker, tmp_path: Path) -> None:
    run = make_run()
    made = kept(run, tmp_path)
    back = read(tmp_path, "scenes-int8", "main", made.machine)
    assert back == made
    throughput = back.of("throughput")
    assert throughput is not None
    assert throughput.values == tuple(record.throughput for record in run.arm("candidate"))
    assert back.of("cost") is None
    assert spread(back, "throughput") == pytest.approx(float(np.std(np.log(throughput.values), ddof=1)))
    assert spread(back, "quality") is None


def test_the_newest_of_a_name_counts_and_the_older_stay(make_run: RunMaker, tmp_path: Path) -> None:
    first, second = kept(make_run(), tmp_path), kept(make_run(latency=2.0), tmp_path)
    assert read(tmp_path, "scenes-int8", "main", first.machine) == second
    assert baseline.known(tmp_path) == [first, second]


def test_across_classes_of_machine_nothing_is_compared(make_run: RunMaker, tmp_path: Path) -> None:
    here, there = make_run(), elsewhere(make_run(), LARGE)
    stored = kept(here, tmp_path)
    with pytest.raises(ConfigError, match="another machine class"):
        compare(stored, measurements_of(there, "candidate"))
    with pytest.raises(ConfigError, match="another machine class"):
        read(tmp_path, "scenes-int8", "main", MachineClass.of(there.header.environment))
    both = [*measurements_of(here, "base"), *measurements_of(there, "base")]
    with pytest.raises(ConfigError, match="2 machine classes"):
        record(tmp_path, "both", both, model="scenes", run="x")
    with pytest.raises(MissingError, match="no baseline 'other'"):
        read(tmp_path, "scenes-int8", "other", stored.machine)


def test_movements_are_those_of_the_medians(make_run: RunMaker, tmp_path: Path) -> None:
    stored = kept(make_run(noise=0.001), tmp_path)
    moved = {
        each.metric: each for each in compare(stored, measurements_of(make_run(latency=1.3, noise=0.001), "candidate"))
    }
    assert moved["p50"].ratio == pytest.approx(1.3, rel=0.06)
    assert moved["p50"].outside
    assert moved["throughput"].ratio == pytest.approx(1.0, rel=0.01)
    assert set(moved) == {"p50", "p99", "throughput", "peak_memory", "startup"}


def test_limits_made_of_a_baseline_are_a_budget_s(make_run: RunMaker, tmp_path: Path) -> None:
    stored = kept(make_run(), tmp_path)
    (tmp_path / "budget.toml").write_text("[design]\nrate = 120.0\nseconds = 9.0\n\n" + as_limits(stored, 0.1))
    limits = {limit.metric: limit for limit in load_budget(tmp_path / "budget.toml").limits}
    for measured in stored.measurements:
        limit = limits[measured.metric.name]
        if measured.metric.direction == "lower":
            assert limit.at_most == pytest.approx(1.1 * max(measured.values), rel=1e-3)
        else:
            assert limit.at_least == pytest.approx(min(measured.values) / 1.1, rel=1e-3)


def test_nothing_measured_is_no_baseline(make_run: RunMaker, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="nothing was measured"):
        kept(replace(make_run(), records=()), tmp_path)
    assert not (tmp_path / "baselines").exists()


def test_a_damaged_line_is_said_to_be(make_run: RunMaker, tmp_path: Path) -> None:
    made = kept(make_run(), tmp_path)
    path = baseline.path_of(tmp_path, made.machine, "scenes-int8")
    path.write_text(json.dumps({"schema": 1, "name": "main"}) + "\n")
    with pytest.raises(IntegrityError):
        baseline.known(tmp_path)


def test_a_run_s_digest_is_of_its_raw_files_wherever_they_lie(make_run: RunMaker, tmp_path: Path) -> None:
    run, folder = make_run(), tmp_path / "run"
    pairs.write_header(folder, run.header)
    pairs.write_record(folder, run.records[0])
    before = digest_of(folder)
    (folder / "verdict.json").write_text("{}")
    (folder / "report.html").write_text("<html>")
    shutil.copytree(folder, tmp_path / "moved")
    assert digest_of(tmp_path / "moved") == before
    (folder / "slot-00.json").write_text("{}")
    assert digest_of(folder) != before


def test_a_class_is_what_speed_depends_on() -> None:
    here = environment().to_json()
    one = MachineClass.of(here)
    assert one == MachineClass.of(here | {"libraries": {"numpy": "9"}, "commit": "x", "memory_bytes": 1})
    assert one.key != MachineClass.of(here | {"cores": here["cores"] + 1}).key
    assert one.key != MachineClass.of(here | {"cpu_flags": ["amx_int8"]}).key
    cards = [
        MachineClass.of(here | {"gpus": [f"GPU-{uuid}, NVIDIA H100, {driver}"]}) for uuid, driver in ((1, 5), (2, 6))
    ]
    assert cards[0] == cards[1] != one
    assert "NVIDIA H100" in str(cards[0])
    assert MachineClass.of({}).cpu == "unknown"


@given(st.text(min_size=1, max_size=40))
@pytest.mark.slow
def test_no_model_s_name_leaves_the_folder(model: str) -> None:
    path = baseline.path_of(Path("/home"), MachineClass.of({}), model)
    assert path.parent.parent == Path("/home/baselines")


@pytest.mark.slow
def test_the_verbs_record_show_and_compare(make_run: RunMaker, tmp_path: Path, home: Path) -> None:
    def folder(name: str, run: GateRun) -> str:
        pairs.write_header(tmp_path / name, run.header)
        for record_ in run.records:
            pairs.write_record(tmp_path / name, record_)
        return str(tmp_path / name)

    def ask(*arguments: str) -> str:
        done = CliRunner().invoke(app, arguments)
        assert done.exit_code == 0, (done.output, done.exception)
        return done.output

    first, second = folder("a", make_run()), folder("b", make_run(latency=1.3))
    assert "There are no baselines yet" in ask("show")
    assert "main of scenes-int8: 5 metrics" in ask("record", first)
    assert "throughput" in ask("show")
    assert "at_most" in ask("show", "--as-limits", "0.1")
    assert ask("show", "other") == "There are no baselines yet: seatrial baseline record RUN\n"
    assert "+" in ask("compare", second)
    found = json.loads(ask("compare", second, "--json"))
    assert found["metrics"]["p50"]["ratio"] > 1.2
    assert len(json.loads(ask("show", "--json"))["baselines"]) == 1
    other = CliRunner().invoke(app, ["compare", folder("c", elsewhere(make_run(), LARGE))])
    assert isinstance(other.exception, ConfigError)
    assert "another machine class" in other.exception.what
