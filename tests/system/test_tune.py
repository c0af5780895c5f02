"""A planning run on the real Triton: curve, plan, a trial, verification, everything kept, and gone on with."""

import json
import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from seatrial.bench.capacity.slo import Slo
from seatrial.bench.load.run import LoadRun
from seatrial.optimize import config
from seatrial.optimize.errors import ConfigError
from seatrial.optimize.store import Store
from seatrial.serve.deployment import Deployment
from seatrial.serve.plan.curve import Curve
from seatrial.serve.plan.observe import Bench
from seatrial.serve.plan.on_optuna import OptunaProposer
from seatrial.serve.plan.run import TuneRequest, run
from seatrial.serve.plan.setting import Layout, Setting
from tests.support.built import ROOT
from tests.support.graphs import pictures

pytestmark = pytest.mark.system

ASKED = TuneRequest(
    rate=40,
    slo=Slo(quantile=0.9, seconds=0.25),
    largest=8,
    rounds=1,
    trials=1,
    pairs=1,
    climb_seconds=1.0,
    verify_seconds=2.0,
)
SINGLE = Layout(instances=1, threads=1)


def test_a_run_measures_plans_tries_and_verifies_and_goes_on_from_what_it_kept(home: Path, tmp_path: Path) -> None:
    store, random = Store(home / "store"), np.random.default_rng(1)
    inputs = {
        "image": random.normal(size=(16, 3, 8, 8)).astype(np.float32),
        "gain": random.uniform(0.5, 2.0, (16, 1)).astype(np.float32),
    }
    bench = Bench(
        artifact=pictures(store, tmp_path / "pictures"),
        deployment=Deployment(schema=1, name="pictures", max_batch_size=8),
        store=store,
        inputs=lambda endpoint: inputs,
        scratch=tmp_path / "scratch",
    )
    folder = tmp_path / "run"
    found = run(bench, ASKED, folder=folder, proposing=OptunaProposer, some=(SINGLE,))

    curve = Curve.from_json(json.loads((folder / "curve.json").read_text()))
    assert curve == found.curve
    service = curve.service(SINGLE)
    assert set(service.sizes) >= {1.0, 8.0}  # with sixteen in flight the largest batch was executed
    assert 0 < service.of(1) <= service.of(8) < 1
    assert len(service.jitter) > 20

    assert found.plan.setting.layout == SINGLE
    assert found.plan.prediction.tail <= ASKED.slo.seconds
    assert found.tuned is not None
    assert [each.trial.setting for each in found.tuned.state.judged] == [found.plan.setting]
    assert found.verified is not None
    assert sum(found.verified.sizes.values()) == pytest.approx(1)
    assert max(found.verified.sizes) <= found.plan.setting.max_batch
    raw = LoadRun.read(folder / "verify")
    assert found.verified.answered == int(np.count_nonzero(raw.status == 200))
    assert found.exit_code == found.verified.exit_code
    assert json.loads((folder / "result.json").read_text()) == json.loads(json.dumps(found.to_json()))

    again = run(bench, replace(ASKED, verify_seconds=0), folder=folder, proposing=OptunaProposer, some=(SINGLE,))
    assert again.plan == found.plan
    assert again.tuned == found.tuned  # nothing was measured anew
    assert not list((tmp_path / "scratch").glob("host-*"))
    with pytest.raises(ConfigError, match="had other settings"):
        run(bench, replace(ASKED, rate=41), folder=folder, proposing=OptunaProposer, some=(SINGLE,))

    written_by_the_verb(bench.artifact.digest, found.plan.setting, folder, tmp_path / "pictures.toml")


def written_by_the_verb(digest: str, setting: Setting, folder: Path, deployment: Path) -> None:
    """The verb, asked the same, finds everything there, and writes only what it is sure of."""
    deployment.write_text('# Ours.\nschema = 1\nname = "pictures"\nmax_batch_size = 8 # for now\n')
    asked: dict[str, object] = {
        "rate": 40,
        "slo": "p90<=250ms",
        "rounds": 1,
        "trials": 1,
        "pairs": 1,
        "seconds": 1,
        "verify-seconds": 0,
    }
    asked |= {"artifact": digest, "out": folder}
    options = [f"--{name}={value}" for name, value in asked.items()]
    done = subprocess.run(
        [sys.executable, "-m", "seatrial.serve.cli", "tune", str(deployment), *options, "--write", "--json"],
        env=os.environ | {"PYTHONPATH": str(ROOT)},
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=120,
    )
    said = json.loads(done.stdout)
    assert done.returncode == said["exit_code"] in (0, 3), done.stderr
    assert said["plan"]["setting"] == setting.to_json()
    assert said["written"] == (str(deployment) if done.returncode == 0 else None)
    now = config.load(deployment, Deployment)
    assert Setting.of(now) == (setting if done.returncode == 0 else Setting(max_batch=8, delay_us=0, layout=SINGLE))
    assert "# Ours." in deployment.read_text()
