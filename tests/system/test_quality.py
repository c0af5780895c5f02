"""Quality checks on the real Triton: a weakness that the mean hides fails a gate by the check that is about it."""

import json
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
from typer.testing import CliRunner

from seatrial.bench.budget import Budget, Design, Limit
from seatrial.bench.checks import Check
from seatrial.bench.gating.gate import gate, rejudge
from seatrial.bench.gating.gate_setup import GateSetup
from seatrial.bench.load_limits import LoadLimits
from seatrial.bench.quality import adversarial
from seatrial.bench.quality.adversarial import AdversarialCheck
from seatrial.bench.quality.calibration import CalibrationCheck
from seatrial.bench.quality.corruption import CorruptionCheck
from seatrial.bench.quality.drift import DriftCheck
from seatrial.bench.quality.fairness import FairnessCheck
from seatrial.bench.quality.segments import SegmentsCheck
from seatrial.optimize.artifact import Artifact, File
from seatrial.optimize.environment import environment
from seatrial.optimize.quality import metric
from seatrial.optimize.recipe.data import Data
from seatrial.optimize.recipe.recipe import load_recipe
from seatrial.optimize.store import Store
from seatrial.serve.cli import app
from seatrial.serve.deployment import Deployment
from seatrial.serve.triton.running import host as hosting
from tests.support.built import TINY, Built
from tests.support.sabotaged import blanking, shy

pytestmark = pytest.mark.system
CHECKS: tuple[Check, ...] = (
    FairnessCheck(by="class", max_drop=0.06),
    CorruptionCheck(corruption="scale", max_drop=0.05, samples=200),
    CorruptionCheck(corruption="rounding", max_drop=0.05, samples=200, severities=(1, 2)),
    AdversarialCheck(attack="fgsm", epsilon=0.1, max_drop=0.25, samples=100),
    CalibrationCheck(statistic="ece", max_drop=0.25),
    SegmentsCheck(columns=("class",), max_drop=0.10, gating=False),
    DriftCheck(statistic="flips", at_most=0.10),
)
BUDGET = Budget(
    design=Design(pairs=4, rate=80.0, seconds=0.5, saturation_seconds=0.2, seed=5),
    limits=(Limit(metric="quality", max_drop=0.06), Limit(metric="p50", max_regression=1.0, gating=False)),
    load=LoadLimits(lag=0.1, client_cpu=1.0, arrival_p=0.0, offered=0.5),
    checks=CHECKS,
)


def recipe(folder: Path) -> Path:
    """The tiny recipe over more evaluation samples: 1600, some 400 in each class."""
    shutil.copy(TINY.parent / "tiny.py", folder)
    path = folder / "tiny.toml"
    path.write_text(TINY.read_text().replace("evaluation = 400", "evaluation = 1600"))
    return path


def changed(store: Store, artifact: Artifact, folder: Path, change: Callable[[bytes], bytes]) -> Artifact:
    """The artifact with other bytes in its model, kept under the digest that these bytes have."""
    store.materialize(artifact, folder)
    (folder / "model.onnx").write_bytes(change((folder / "model.onnx").read_bytes()))
    return store.put(replace(artifact, files=(File.of(folder / "model.onnx"),)), folder)


@pytest.fixture
def store(tiny: Built, home: Path) -> Store:
    """A copy of the session's store under this test's SEATRIAL_HOME, free to be changed."""
    shutil.copytree(tiny.home / "store", home / "store")
    return Store(home / "store")


def test_a_weakness_that_the_mean_hides_fails_by_the_check_that_is_about_it(
    tiny: Built, store: Store, tmp_path: Path
) -> None:
    base = tiny.build.steps[2].artifact
    candidate = changed(store, base, tmp_path / "changed", lambda data: shy(blanking(data)))
    loaded = load_recipe(recipe(tmp_path))
    samples, score = Data(loaded, store, environment()).samples("evaluation"), metric(loaded)
    verdict = gate(
        base,
        candidate,
        BUDGET,
        GateSetup(
            host=hosting.host(store, Deployment(schema=1, name="tiny", max_batch_size=32), scratch=tmp_path / "w"),
            samples=samples,
            metric=score,
            folder=tmp_path / "run",
        ),
        suite=adversarial.prepared(CHECKS, samples, score, tiny.build.source.artifact, store),
    )
    outcomes = {finding.metric: finding.outcome for finding in verdict.findings}
    assert verdict.outcome == "FAIL", verdict.summary
    assert {name for name, outcome in outcomes.items() if outcome == "FAIL"} == {
        "fairness worst score by class",
        "corruption scale loss",
    }, verdict.summary
    for within in ("quality", "corruption rounding loss at 1,2", "adversarial fgsm 0.1", "drift flips"):
        assert outcomes[within] == "PASS", verdict.finding(within)
    worst = verdict.finding("fairness worst score by class")
    segment = verdict.finding("worst segment")
    assert worst is not None
    assert segment is not None
    assert worst.about == "class 3"
    assert segment.about == "class = 3"
    assert rejudge(tmp_path / "run") == verdict


def test_a_served_model_answers_as_its_artifact_does(tiny: Built, store: Store, tmp_path: Path) -> None:
    artifact = tiny.build.artifact
    place = hosting.host(store, Deployment(schema=1, name="tiny", max_batch_size=64), scratch=tmp_path / "w")
    with place(artifact) as endpoint:
        url = f"http://{endpoint.url}/v2/models/{endpoint.model}"
        done = CliRunner().invoke(app, ["quality", url, "--against", "tiny", "--recipe", str(TINY), "--json"])
    assert done.exit_code == 0, done.output
    told = {each["metric"]: each for each in json.loads(done.stdout)["findings"]}
    assert told["drift flips"]["candidate"] == 0
    assert told["drift cosine"]["candidate"] == pytest.approx(1, abs=1e-6)
    assert told["metric score"]["difference"] == 0
    assert any(name.startswith("adversarial pgd") for name in told)


def test_the_verb_judges_by_a_budget_s_checks_and_writes_a_page(tiny: Built, store: Store, tmp_path: Path) -> None:
    candidate = changed(store, tiny.build.steps[2].artifact, tmp_path / "changed", shy)
    (tmp_path / "b.toml").write_text(
        '[design]\nrate = 80.0\nseconds = 1.0\n[[limits]]\nmetric = "quality"\nmax_drop = 0.06\n'
        '[[checks]]\nkind = "fairness"\nmax_drop = 0.06\n'
        '[[checks]]\nkind = "calibration"\nmax_drop = 0.25\n'
        '[[checks]]\nkind = "corruption"\ncorruption = "noise"\nmax_drop = 0.2\nsamples = 200\n'
    )
    page = tmp_path / "page.html"
    arguments = ["--against", tiny.build.steps[2].artifact.digest, "--recipe", str(recipe(tmp_path))]
    arguments += ["--budget", str(tmp_path / "b.toml"), "--html", str(page)]
    done = CliRunner().invoke(app, ["quality", candidate.digest, *arguments])
    assert done.exit_code == 1, done.output
    assert "FAIL" in done.stdout
    assert "class 3" in done.stdout
    text = page.read_text()
    assert "Reliability" in text
    assert "Corrupted inputs" in text
    assert "Score by class" in text
    assert 'src="http' not in text

    alone = CliRunner().invoke(app, ["quality", "tiny", "--recipe", str(TINY)])
    assert alone.exit_code == 0, alone.output
    assert "informational" in alone.stdout
    assert "drift" not in alone.stdout
