"""The capacity search against the real Triton: a model that sleeps, a small budget of time, everything kept."""

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from scripts.benchmarks.sleeper import sleeper as serve_sleeper
from seatrial.bench.capacity.run import CapacitySetup, capacity, recompute
from seatrial.bench.capacity.search import Plan
from seatrial.bench.capacity.show import headline, rows, write_html
from seatrial.bench.capacity.slo import Slo
from seatrial.bench.cost import bill, price_list
from seatrial.bench.errors import TargetError
from seatrial.bench.load.payload import Payload
from seatrial.bench.load_limits import LoadLimits
from seatrial.bench.targets import Endpoint

pytestmark = pytest.mark.system

SHARED = LoadLimits(lag=0.05, arrival_distance=0.2, client_cpu=1.0)  # a test machine has neighbours
ROOT = Path(__file__).parents[2]
PLAN = Plan(seconds=10, probe_seconds=2, shortest=2, step=3, resolution=1.5, replicates=0, shares=(0.5,))


@pytest.fixture(scope="module")
def sleeper(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Endpoint]:
    """A real server whose model takes ten milliseconds, one request at a time: long beside what neighbours take."""
    folder = tmp_path_factory.mktemp("sleeper")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("SEATRIAL_HOME", str(folder / "home"))
        with serve_sleeper(folder, 0.01) as endpoint:
            yield endpoint


def test_a_server_s_capacity_is_found_kept_and_computed_again(sleeper: Endpoint, tmp_path: Path) -> None:
    payload = Payload.build(sleeper, {"x": np.zeros((4, 4), np.float32)})
    told: list[str] = []
    found = capacity(
        sleeper,
        payload,
        Slo(quantile=0.9, seconds=0.04),
        folder=tmp_path,
        plan=PLAN,
        setup=CapacitySetup(limits=SHARED),
        progress=lambda what, _: told.append(what),
    )
    assert found.load_seconds <= PLAN.seconds
    assert found.header.saturation < 100  # one at a time, ten milliseconds each
    assert {"saturating"} < set(told)
    assert found.probes[0].rate == pytest.approx(0.3 * found.header.saturation)
    easy, hard = (pick(found.probes, key=lambda probe: probe.share) for pick in (min, max))
    assert easy.share < 0.1 < hard.share  # it went on until the objective was held, and until it was missed
    assert easy.rate < hard.rate
    assert found.outcome in ("found", "unsettled")
    if found.rate is not None:
        assert min(probe.rate for probe in found.probes) < found.rate < 1.05 * found.header.saturation
    assert set(found.header.cores["server"]) <= set(range(os.cpu_count() or 0))
    assert found.header.cores["server"]  # found by the port it listens on
    again = recompute(tmp_path)
    assert json.loads(json.dumps(again.to_json())) == json.loads(json.dumps(found.to_json()))
    write_html(tmp_path / "report.html", found, bill(price_list().of("aws-c7i-large"), 100.0, traffic=250.0))
    page = (tmp_path / "report.html").read_text()
    assert headline(found).split(":")[0].replace("<", "&lt;") in page
    assert all(f"<td>{value}</td>" in page for _, value, _ in rows(found) if "<" not in value)


def test_the_verb_prints_what_it_kept(sleeper: Endpoint, tmp_path: Path) -> None:
    """Whatever a busy machine makes of a short probe: exit code, document, folder and page agree."""
    target = f"http://{sleeper.url}/v2/models/sleeper"
    options = ["--slo", "p90<=40ms", "--seconds", "5", "--probe-seconds", "4", "--price", "aws-c7i-large"]
    done = subprocess.run(
        [sys.executable, "-m", "seatrial.serve.cli", "capacity", target, *options, "--out", str(tmp_path), "--json"],
        env=os.environ | {"PYTHONPATH": str(ROOT)},
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=120,
    )
    said = json.loads(done.stdout)
    assert done.returncode == said["exit_code"], done.stderr
    assert "Traceback" not in done.stderr
    assert json.loads(json.dumps(recompute(tmp_path).to_json())).items() <= said.items()
    assert (said["cost"] is None) == (said["rate"] is None)
    assert (tmp_path / "report.html").is_file()


def test_what_cannot_be_loaded_is_refused_before_any_probe(sleeper: Endpoint, tmp_path: Path) -> None:
    payload = Payload.build(sleeper, {"x": np.zeros((4, 4), np.float32)})
    with pytest.raises(TargetError, match="not this machine"):
        capacity(replace(sleeper, url="203.0.113.1:8000"), payload, Slo.parse("p99<=20ms"), folder=tmp_path)
    assert not (tmp_path / "capacity.json").exists()
