"""A measured run's folder: figures from raw values, the same bytes each time, and folders that are no run."""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from seatrial.bench.measurement import NOTHING, Measurement, Metric
from seatrial.bench.measuring import measured
from seatrial.bench.measuring.growth import Growth
from seatrial.bench.measuring.measured import LATENCY
from seatrial.bench.measuring.usage import Memory, MemorySeries
from seatrial.bench.metrics import metric_of
from seatrial.optimize.errors import ConfigError, IntegrityError, MissingError

LOOKS = MemorySeries(at=(1.0,), resident=(5,), anonymous=(3,), file=(2,), pss=(5,))
GROWTH = Growth(slope=0.0, lower=0.0, grown=0.0, stepped=0.0, steps=0, shrunk=0.0, note="did not grow")
ABOUT = measured.MeasuredHeader(
    subject=measured.ArtifactSubject(name="m", digest="d", format="onnx"),
    memory=Memory(peak=5, last=5, series=LOOKS, growth=replace(GROWTH, upper=1.0)),
    device=NOTHING,
    environment={},
    at="2026-11-24T10:00:00+00:00",
)
RATES = np.random.default_rng(1).normal(1000, 50, 200)
TIMES = np.random.default_rng(2).exponential(0.01, 2000)


def taken(metric: Metric, *values: float, scenario: str = "SingleStream") -> Measurement:
    return Measurement(subject="d", metric=metric, scenario=scenario, values=values, environment={}, at="")


@pytest.fixture
def run(tmp_path: Path) -> Path:
    values = [
        taken(LATENCY, *TIMES.tolist()),
        taken(metric_of("throughput"), *RATES.tolist(), scenario="Offline"),
        taken(metric_of("load_time"), 1 / 3),
    ]
    measured.open_run(tmp_path)
    measured.write(tmp_path, ABOUT, values)
    return tmp_path


def test_every_figure_comes_again_from_the_folder_to_the_last_bit(run: Path) -> None:
    first = (run / "summary.json").read_bytes()
    (run / "summary.json").unlink()
    summary = measured.recompute(run)
    assert (run / "summary.json").read_bytes() == first
    latency, throughput, load_time = summary.figures
    assert latency.value == float(np.median(TIMES))
    assert latency.interval is not None
    assert latency.interval[0] < 0.01 * np.log(2) < latency.interval[1]
    assert latency.p99_upper is not None
    assert latency.p99 is not None
    assert latency.p99 < latency.p99_upper
    assert throughput.value == pytest.approx(200 / np.sum(1 / RATES))
    assert throughput.interval is not None
    assert throughput.interval[0] < throughput.value < throughput.interval[1]
    assert (load_time.value, load_time.n, load_time.interval) == (1 / 3, 1, None)
    assert summary.exit_code == 0
    assert "memory did not grow" in summary.notes
    assert "series" not in summary.to_json()["about"]["memory"]
    assert json.loads((run / "measure.json").read_bytes())["memory"]["series"]["at"] == [1.0]


def test_too_few_values_for_a_bound_are_noted_and_failed_requests_are_exit_code_1(tmp_path: Path) -> None:
    summary = measured.write(tmp_path, ABOUT, [taken(LATENCY, *TIMES[:200].tolist()), taken(metric_of("errors"), 0, 1)])
    assert summary.figures[0].p99_upper is None
    assert any("too few to bound p99" in note for note in summary.notes)
    assert summary.figures[1].value == 0.5
    assert summary.exit_code == 1


def test_a_folder_with_a_run_is_not_written_over(run: Path) -> None:
    with pytest.raises(ConfigError, match="holds a run"):
        measured.open_run(run)


def test_folders_that_are_no_run_say_so(run: Path, tmp_path: Path) -> None:
    with pytest.raises(MissingError):
        measured.recompute(tmp_path / "gone")
    whole = (run / "measurements.json").read_text()
    for broken in (whole[:-20], whole.replace('"schema":1', '"schema":2'), "[]", whole.replace("0.0", "NaN", 1)):
        (run / "measurements.json").write_text(broken)
        with pytest.raises(IntegrityError):
            measured.recompute(run)


def test_nodes_that_were_left_to_the_cpu_stand_in_the_header(tmp_path: Path) -> None:
    used = measured.EngineUsed(
        name="onnxruntime-cuda", provider="CUDAExecutionProvider", device="cuda:0", on_cpu=("a",)
    )
    measured.open_run(tmp_path)
    measured.write(tmp_path, replace(ABOUT, engine=used), [taken(metric_of("load_time"), 1 / 3)])
    path = tmp_path / measured.HEADER
    assert json.loads(path.read_text())["engine"]["on_cpu"] == ["a"]
    assert measured.MeasuredHeader.read(path).engine == used
    before = {"name": "a", "provider": "b", "device": "cpu"}
    assert measured.EngineUsed.from_json(before).to_json() == before
