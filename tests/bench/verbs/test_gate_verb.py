"""The gate verb's exit codes: what CI sees of each outcome, and what a policy may change about it."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
import typer
from typer.testing import CliRunner

from seatrial.bench.budget import Budget
from seatrial.bench.gating.judge import judge
from seatrial.bench.gating.pairs import GateRun
from seatrial.bench.verbs import gate as room
from seatrial.bench.verdict import Verdict

RunMaker = Callable[..., GateRun]
BUDGET = '[design]\nrate = 100.0\nseconds = 10.0\n[[limits]]\nmetric = "p50"\nmax_regression = 0.05\n'


@pytest.fixture
def verdicts(make_run: RunMaker, budget: Budget) -> dict[str, Verdict]:
    noisy = make_run(noise=0.12)
    timed = replace(noisy, records=tuple(replace(record, seconds=9.0) for record in noisy.records))
    return {
        "PASS": judge(make_run(latency=0.7), budget),
        "FAIL": judge(make_run(latency=1.3), budget),
        "INCONCLUSIVE": judge(timed, budget),
        "INVALID": judge(replace(noisy, records=noisy.records[:5]), budget),
    }


@pytest.mark.parametrize(
    ("outcome", "policy", "code"),
    [
        ("PASS", "block", 0),
        ("FAIL", "block", 1),
        ("INCONCLUSIVE", "block", 3),
        ("INVALID", "block", 4),
        ("PASS", "warn", 0),
        ("FAIL", "warn", 1),
        ("INCONCLUSIVE", "warn", 0),
        ("INVALID", "warn", 4),
    ],
)
def test_only_inconclusive_may_be_let_through(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, verdicts: dict[str, Verdict], outcome: str, policy: str, code: int
) -> None:
    monkeypatch.setattr(room, "_run", lambda *rest: verdicts[outcome])
    monkeypatch.setattr(room, "_forecast", lambda *rest, **options: False)
    monkeypatch.setattr(room, "_hosts", lambda *rest: (None, None, None))
    monkeypatch.setattr(room, "load_recipe", lambda path: None)
    assert verdicts[outcome].outcome == outcome
    (tmp_path / "budget.toml").write_text(BUDGET)
    app = typer.Typer()
    app.command()(room.gate)
    arguments = ["a", "b", "--budget", str(tmp_path / "budget.toml"), "--recipe", "r.toml"]
    done = CliRunner().invoke(
        app, [*arguments, "--on-inconclusive", policy], obj={"hosting": lambda *asked: (None, None)}
    )
    assert done.exit_code == code, done.output


def test_inconclusive_says_what_would_settle_it_and_the_gate_what_it_cost(verdicts: dict[str, Verdict]) -> None:
    verdict = verdicts["INCONCLUSIVE"]
    p50 = verdict.finding("p50")
    assert p50 is not None
    assert p50.pairs_needed is not None
    assert f"{p50.pairs_needed - 6} more pairs are needed, about " in p50.reason
    assert "detectable at 90 % power" in p50.reason
    assert verdict.seconds == 12 * 9.0
    assert any(note.startswith("this gate took 1.8 min: $0.0027 on AWS") for note in verdict.notes)
