"""The command itself: exit codes, messages without tracebacks, JSON, help that teaches."""

import json
import shutil
from pathlib import Path

import pytest

from tests.support.built import TINY, Built
from tests.support.commands import seatrial, within

pytestmark = pytest.mark.system


def recipe(tmp_path: Path, old: str = "", new: str = "") -> Path:
    assert old in TINY.read_text()
    shutil.copy(TINY.parent / "tiny.py", tmp_path)
    (tmp_path / "tiny.toml").write_text(TINY.read_text().replace(old, new, 1))
    return tmp_path / "tiny.toml"


@pytest.mark.parametrize("arguments", [["sail"], ["build", "gone.toml"], ["rollout", "pause", "../x"]])
def test_a_process_ends_with_the_verb_s_message_and_exit_code(tmp_path: Path, arguments: list[str]) -> None:
    done, same = seatrial(*arguments, home=tmp_path / "home"), within(*arguments, home=tmp_path / "home")
    assert (done.returncode, done.stderr, done.stdout) == (2, same.stderr, "")
    assert same.exit_code == 2


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["sail"], "No such command 'sail'"),
        (["build"], "Missing argument"),
        (["build", "gone.toml"], "no such file"),
        (["plan", "optimize/recipes/scenes-int9.toml"], "did you mean"),
        (["show", "nothing"], "no artifact called 'nothing'"),
        (["verify", "0000"], "no artifact called '0000'"),
        (["gate", "a", "b", "--budget", "gone.toml"], "no such file"),
        (["report", "gone"], "there is no run"),
        (["baseline", "record", "gone"], "there is no run"),
        (["baseline", "compare", "gone"], "there is no run"),
        (["trend", "nobody"], "no history of nobody"),
        (["trend", "--add", "gone"], "no such record"),
        (["quality", "a", "--recipe", "gone.toml"], "no such file"),
        (["load", "http://127.0.0.1:9"], "127.0.0.1:9"),
        (["load", "ftp://x"], "ftp"),
        (["capacity", "http://127.0.0.1:9", "--slo", "fast"], "invalid SLO"),
        (["capacity", "http://127.0.0.1:9", "--slo", "p99<=20ms"], "127.0.0.1:9"),
        (["capacity", "http://127.0.0.1:9", "--slo", "p99<=20ms", "--price", "gold"], "unknown price 'gold'"),
        (["place", "serve/deployments/scenes.toml"], "no release 'scenes'"),
        (["lint", "gone"], "no such model repository"),
        (["register", "a", "--run", "gone"], "no artifact called 'a'"),
        (["ship", "gone.toml"], "no such file"),
        (["tune", "gone.toml", "--rate", "10", "--slo", "p99<=20ms"], "no such file"),
        (["tune", "nobody", "--rate", "10", "--slo", "p99<=20ms"], "no deployment 'nobody'"),
        (["tune", "scenes", "--rate", "10", "--slo", "fast"], "invalid SLO"),
        (["tune", "scenes", "--rate", "nan", "--slo", "p99<=20ms"], "the rate must be above 0, got nan"),
        (
            ["tune", "scenes", "--rate", "10", "--slo", "p99<=20ms", "--trials", "-1"],
            "trials must be between 0 and 100",
        ),
        (["tune", "scenes", "--rate", "10", "--slo", "p99<=20ms"], "no release 'scenes'"),
        (["audit", "gone"], "no such folder"),
        (["audit", "scripts"], "neither a model repository nor does it hold manifests"),
        (["audit", "http://192.0.2.1:8000"], "not this machine"),
        (["audit", "ftp://127.0.0.1"], "invalid target"),
        (["render", "gone.toml", "--out", "gone"], "no such file"),
        (["render", "serve/deployments/scenes.toml", "--out", "gone", "--cluster", "gone.toml"], "no such file"),
        (
            ["render", "serve/deployments/scenes.toml", "--out", "gone", "--repository", "gone"],
            "no version of 'scenes'",
        ),
        (["edge", "up", "gone.toml"], "no such file"),
        (["edge", "status"], "no edge is running"),
        (["routes", "set", "m", "--stable", "1", "--share", "2"], "must be between 0 and 1, got 2"),
        (["rollout", "status", "nobody"], "no rollout of nobody"),
        (["rollout", "pause", "../x"], "invalid model name"),
    ],
)
def test_wrong_usage_is_one_message_and_exit_code_2(tmp_path: Path, arguments: list[str], said: str) -> None:
    done = within(*arguments, home=tmp_path / "home")
    assert done.exit_code == 2, done.stderr
    assert said in done.stderr.replace("\n", " ")
    assert "Traceback" not in done.output
    assert not (tmp_path / "home" / "store").exists()


@pytest.mark.parametrize(
    ("old", "new", "said"),
    [
        ("epochs = 6", "epocs = 6", "did you mean 'epochs'?"),
        ('kind = "export"', 'kind = "quantize"', "takes onnx, but stage 1 (prune) gives torch"),
        ("tiny.py:teacher", "tiny.py:broken", "no weights for width 8"),
        ("tiny.py:samples", "gone.py:samples", "no such file: gone.py"),
    ],
)
def test_a_wrong_recipe_names_place_and_next_step(tmp_path: Path, old: str, new: str, said: str) -> None:
    done = within("build", str(recipe(tmp_path, old, new)), home=tmp_path / "home")
    assert done.exit_code == 2, done.stderr
    assert said in done.stderr
    assert "where:" in done.stderr
    assert "next:" in done.stderr
    assert "Traceback" not in done.stderr


def test_an_unwritable_home_is_the_machine_s_fault(tmp_path: Path) -> None:
    (tmp_path / "home").write_text("a file")
    done = seatrial("build", str(recipe(tmp_path)), home=tmp_path / "home")
    assert done.returncode == 4, done.stderr
    assert "SEATRIAL_HOME" in done.stderr or "next:" in done.stderr
    assert "Traceback" not in done.stderr


def test_plan_does_no_work(tmp_path: Path) -> None:
    done = seatrial("plan", str(TINY), home=tmp_path / "home")
    assert done.returncode == 0, done.stderr
    assert "0 of 5 steps cached" in done.stdout
    assert not (tmp_path / "home").exists()


def test_json_is_one_document_and_tables_are_for_people(tiny: Built) -> None:
    for arguments in (
        ["build", str(TINY)],
        ["plan", str(TINY)],
        ["show", "tiny"],
        ["history", "tiny"],
        ["verify", "tiny"],
    ):
        done = within(*arguments, "--json", home=tiny.home)
        assert done.exit_code == 0, done.stderr
        assert isinstance(json.loads(done.stdout), dict)
        done = within(*arguments, home=tiny.home)
        assert done.exit_code == 0, done.stderr
        assert done.stdout.strip()
        assert not done.stdout.lstrip().startswith("{")
    assert "nothing to do" in within("build", str(TINY), home=tiny.home).stdout


def test_parity_of_two_artifacts(tiny: Built) -> None:
    export = tiny.build.steps[-2].artifact.digest
    done = within("parity", export, "tiny", "--recipe", str(TINY), "--json", home=tiny.home)
    assert done.exit_code == 0, done.stderr
    rows = json.loads(done.stdout)["agreements"]
    assert {row["batch"] for row in rows} == {1, 2, 32}
    assert all(row["agreement"] > 0.8 for row in rows)
    other = within("parity", "tiny.fp32", "tiny", home=tiny.home)  # pruned and distilled: another function
    assert other.exit_code == 1
    assert "beyond tolerance" in other.stdout


def test_help_teaches_every_verb(tmp_path: Path) -> None:
    whole = within("--help", home=tmp_path).stdout
    assert "Exit codes" in whole
    for verb in (
        "build",
        "plan",
        "show",
        "history",
        "verify",
        "reproduce",
        "search",
        "init",
        "parity",
        "coverage",
        "measure",
        "load",
        "capacity",
        "gate",
        "quality",
        "aa",
        "drill",
        "ledger",
        "report",
        "baseline",
        "trend",
        "shadow",
        "register",
        "place",
        "lint",
        "up",
        "down",
        "switch",
        "supervise",
        "ship",
        "tune",
        "render",
        "audit",
        "edge",
        "routes",
        "rollout",
    ):
        assert f" {verb} " in whole
        assert len(within(verb, "--help", home=tmp_path).stdout.splitlines()) > 5
