"""The gate tried on the real Triton: a drill that must be noticed and kept, and what the next forecast makes of it."""

import json
import shutil
from pathlib import Path

import pytest

from tests.support.built import TINY, Built
from tests.support.commands import within

pytestmark = pytest.mark.system
# Load limits wide open: what the client's lag is like on a busy machine is not what this is about.
BUDGET = f"""
recipe = "{TINY}"

[design]
pairs = 4
rate = 60.0
seconds = 1.0
saturation_seconds = 0.3
seed = 3

[load]
lag = 0.5
client_cpu = 1.0
arrival_p = 0.0
offered = 0.2

[[limits]]
metric = "p50"
max_regression = 0.05

[ledger]
name = "tiny"
at_most = {{ p50 = 0.03 }}
"""


@pytest.fixture
def budget(tmp_path: Path) -> Path:
    path = tmp_path / "budget.toml"
    path.write_text(BUDGET)
    return path


def test_a_drill_is_noticed_archived_and_forecast_from(tiny: Built, tmp_path: Path, budget: Path) -> None:
    home = tmp_path / "home"
    shutil.copytree(tiny.home / "store", home / "store")
    planned = within("gate", "tiny.fp32", "tiny", "--budget", str(budget), "--plan", home=home)
    assert planned.exit_code == 0, planned.stderr
    assert "assumed noise" in planned.stdout
    assert not (home / "runs").exists()

    done = within("drill", "tiny", "--budget", str(budget), "--slow", "60", "--json", home=home)
    assert done.exit_code == 0, done.stderr
    drilled = json.loads(done.stdout)
    assert drilled["outcomes"] == {"FAIL": 1}, drilled
    assert drilled["ratios"]["p50"] > 1.5
    assert drilled["outcomes_rates"]["FAIL"]["low"] == pytest.approx(0.025)
    assert len(Path(drilled["archive"]).read_text().splitlines()) == 1

    planned = within("gate", "tiny.fp32", "tiny", "--budget", str(budget), "--plan", "--json", home=home)
    assert planned.exit_code == 0, planned.stderr
    forecast = json.loads(planned.stdout)
    assert forecast["looks"] == [4]
    assert forecast["seconds"][0] == pytest.approx(8 * drilled["slot_seconds"])
    assert not forecast["limits"][0]["assumed"]
    assert "1 trial" in forecast["source"]


def test_the_ledger_shows_itself(tmp_path: Path, budget: Path) -> None:
    home = tmp_path / "home"
    (home / "ledger").mkdir(parents=True)
    line = {"schema": 1, "metric": "p50", "loss": 0.02, "lower": 0.01, "upper": 0.03, "base": "sha256:aa"}
    line |= {"candidate": "sha256:bb", "at": "2999-01-01T00:00:00+00:00"}
    (home / "ledger" / "tiny.jsonl").write_text(json.dumps(line) + "\n")
    shown = within("ledger", "tiny", "--budget", str(budget), home=home)
    assert shown.exit_code == 0, shown.stderr
    assert "p50: 2.02% of 3.00% within 30 days" in shown.stdout
    value = json.loads(within("ledger", "tiny", "--json", home=home).stdout)
    assert value["entries"][0]["loss"] == 0.02
    empty = within("ledger", "other", home=home)
    assert (empty.exit_code, "ledger other is empty" in empty.stdout) == (0, True)


def test_only_what_can_be_slowed_is_drilled(tiny: Built, tmp_path: Path, budget: Path) -> None:
    home = tmp_path / "home"
    shutil.copytree(tiny.home / "store", home / "store")
    native = tmp_path / "native.toml"
    native.write_text('schema = 1\nname = "tiny"\nbackend = "native"\nmax_batch_size = 32\n')
    done = within("drill", "tiny", "--budget", str(budget), "--slow", "0.1", "--deployment", str(native), home=home)
    assert done.exit_code == 2, done.stdout
    assert "can be slowed down" in done.stderr.replace("\n", " ")
