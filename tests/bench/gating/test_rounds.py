"""Budgets over pytest-benchmark's files: runs are the unit, turns are required, and too few runs are no verdict."""

import json
import subprocess
import sys
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from seatrial.bench.gating.pairs import GateRun
from seatrial.bench.gating.rounds import Rule, Session, decide, judge_rounds, read_session
from seatrial.bench.report.benchmark_file import from_gate, summary
from seatrial.bench.verdict import Outcome
from seatrial.optimize.errors import ConfigError, IntegrityError, MissingError

RunMaker = Callable[..., GateRun]
NAME = "test_it.py::test_resize"
ABBA = "ABBABAABABBA"
RULE = Rule(statistic="p50", rule="max_regression", margin=0.05)


def written(
    folder: Path, order: str, factor: float = 1.0, *, noise: float = 0.01, name: str = NAME, **more: Any
) -> tuple[list[Session], list[Session]]:
    """Runs in that order (A base, B candidate), each a file as pytest-benchmark writes it."""
    random, arms = np.random.default_rng(0), {"A": list[Session](), "B": list[Session]()}
    for index, arm in enumerate(order):
        centre = 0.010 * random.lognormal(0, noise) * (factor if arm == "B" else 1.0)
        rounds = (centre * random.gamma(200, 1 / 200, more.get("rounds", 20))).tolist()
        value = {
            "datetime": (datetime(2026, 11, 1, tzinfo=UTC) + timedelta(minutes=index)).isoformat(),
            "machine_info": {"node": more.get("nodes", "a" * len(order))[index], "cpu": {"count": 2}},
            "benchmarks": [{"fullname": name, "name": name, "stats": summary(rounds)}],
        }
        path = folder / f"{arm}-{index:02d}.json"
        path.write_text(json.dumps(value))
        arms[arm].append(read_session(path))
    return arms["A"], arms["B"]


@pytest.mark.parametrize(("factor", "outcome"), [(1.0, "PASS"), (0.7, "PASS"), (1.2, "FAIL"), (1.05, "INCONCLUSIVE")])
def test_interleaved_runs_are_judged_as_pairs(tmp_path: Path, factor: float, outcome: Outcome) -> None:
    found = decide([judge_rounds(NAME, RULE, *written(tmp_path, ABBA, factor))])[0]
    assert found.outcome == outcome, found.reason
    assert found.n == 6
    assert found.ratio == pytest.approx(factor, rel=0.03)


@pytest.mark.parametrize("wrong", [float("nan"), float("inf"), float("-inf"), -1e-6])
@pytest.mark.parametrize("arm", [0, 1])
@pytest.mark.parametrize(("statistic", "rule"), [("p50", "max_regression"), ("min", "at_most"), ("mean", "at_most")])
def test_one_round_that_is_no_time_is_invalid(
    tmp_path: Path, wrong: float, arm: int, statistic: str, rule: str
) -> None:
    sessions = written(tmp_path, ABBA)
    path = sessions[arm][2].path
    value = json.loads(path.read_text())
    value["benchmarks"][0]["stats"]["data"][5] = wrong
    path.write_text(json.dumps(value))
    sessions[arm][2] = read_session(path)
    [found] = decide([judge_rounds(NAME, Rule(statistic=statistic, rule=rule, margin=0.05), *sessions)])
    assert (found.outcome, f"{wrong:g} s in {path.name}" in found.reason) == ("INVALID", True), found.reason


@pytest.mark.parametrize(
    ("order", "said"),
    [
        ("AB", "1 base and 1 candidate runs"),
        ("ABBA", "2 base and 2 candidate"),
        ("AAAAABBBBB", "balanced order (ABBA)"),
        ("ABABABAB", "balanced order (ABBA)"),
        ("ABBAA", "3 base and 2"),
    ],
)
def test_too_few_runs_or_runs_out_of_turn_tell_nothing_however_large_the_change(
    tmp_path: Path, order: str, said: str
) -> None:
    found = decide([judge_rounds(NAME, RULE, *written(tmp_path, order, 3.0))])[0]
    assert found.outcome == "INCONCLUSIVE"
    assert said in found.reason


def test_ten_thousand_rounds_in_one_run_are_still_one_run(tmp_path: Path) -> None:
    found = judge_rounds(NAME, RULE, *written(tmp_path, "AB", 2.0, rounds=10_000))
    assert (found.outcome, found.n) == ("INCONCLUSIVE", 1)


def test_runs_of_two_machines_and_missing_benchmarks_are_invalid(tmp_path: Path) -> None:
    found = judge_rounds(NAME, RULE, *written(tmp_path, ABBA, nodes="ab" * 6))
    assert found.outcome == "INVALID"
    assert "different machines" in found.reason
    found = judge_rounds("test_it.py::test_gone", RULE, *written(tmp_path, ABBA))
    assert found.outcome == "INVALID"
    assert "A-00.json" in found.reason


def test_a_tail_takes_rounds(tmp_path: Path) -> None:
    tail = Rule(statistic="p99", rule="max_regression", margin=0.05)
    few = judge_rounds(NAME, tail, *written(tmp_path, ABBA))
    assert few.outcome == "INVALID"
    assert "100 rounds" in few.reason
    assert judge_rounds(NAME, tail, *written(tmp_path, ABBA, 0.5, rounds=400)).outcome == "PASS"


@pytest.mark.parametrize(("most", "outcome"), [(0.011, "PASS"), (0.009, "FAIL"), (0.010, "INCONCLUSIVE")])
def test_an_absolute_limit_binds_the_candidate_alone(tmp_path: Path, most: float, outcome: Outcome) -> None:
    rule = Rule(statistic="p50", rule="at_most", margin=most)
    found = decide([judge_rounds(NAME, rule, *written(tmp_path, ABBA, noise=0.02))])[0]
    assert found.outcome == outcome, found.reason


@pytest.mark.slow
def test_false_alarms_do_not_add_up_over_many_benchmarks(tmp_path: Path) -> None:
    """A regression of exactly the margin, on every of 20 benchmarks: Holm keeps the family at 1 %."""
    random, alarms = np.random.default_rng(5), 0
    for _ in range(60):
        findings = []
        for _ in range(20):
            base = [session(index, 0.01 * random.lognormal(0, 0.02)) for index in (0, 3, 5, 6, 8, 11)]
            other = [session(index, 0.0105 * random.lognormal(0, 0.02)) for index in (1, 2, 4, 7, 9, 10)]
            findings.append(judge_rounds(NAME, RULE, base, other))
        alarms += any(found.outcome == "FAIL" for found in decide(findings))
    assert alarms <= 4  # of 60; 1 % expected, chance of more than 4 is under 1 in 2,000


def session(minute: int, seconds: float) -> Session:
    from seatrial.bench.gating.rounds import Rounds

    return Session(
        at=f"{minute:02d}", machine={}, benchmarks={NAME: Rounds(data=(seconds,), summary={})}, path=Path("x")
    )


def test_a_summary_without_rounds_still_gives_its_median(tmp_path: Path) -> None:
    path = tmp_path / "run.json"
    value = {"datetime": "x", "benchmarks": [{"fullname": NAME, "stats": {"median": 0.5, "min": 0.4}}]}
    path.write_text(json.dumps(value))
    rounds = read_session(path).benchmarks[NAME]
    assert [rounds.number(each) for each in ("p50", "min", "mean", "p99")] == [0.5, 0.4, None, None]


@pytest.mark.parametrize("text", ["{", "[]", "{}", '{"datetime": "x", "benchmarks": [{}]}', '{"benchmarks": 3}'])
def test_another_file_is_refused(tmp_path: Path, text: str) -> None:
    (tmp_path / "x.json").write_text(text)
    with pytest.raises(IntegrityError, match="pytest-benchmark"):
        read_session(tmp_path / "x.json")
    with pytest.raises(MissingError):
        read_session(tmp_path / "gone.json")


@pytest.mark.parametrize("wrong", [("p51", "at_most", 1.0), ("p50", "at_least", 1.0), ("p50", "at_most", -1.0)])
def test_a_rule_that_cannot_be_is_refused(wrong: tuple[str, str, float]) -> None:
    with pytest.raises(ConfigError):
        Rule(statistic=wrong[0], rule=wrong[1], margin=wrong[2])


def test_a_gate_s_slots_are_compared_by_the_real_pytest_benchmark(make_run: RunMaker, tmp_path: Path) -> None:
    run = make_run(latency=2.0, noise=0.001)
    (tmp_path / "gate.json").write_text(json.dumps(from_gate(run)))
    command = [
        sys.executable,
        "-m",
        "pytest_benchmark",
        "compare",
        "gate.json",
        "--group-by=group",
        "--columns=median,rounds",
    ]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    assert "benchmark 'p50'" in done.stdout
    lines = [line.split() for line in done.stdout.splitlines() if line.startswith("p50[")]
    assert {line[0] for line in lines} == {"p50[base]", "p50[candidate]"}
    assert {line[-1] for line in lines} == {str(len(run.records) // 2)}
    slower = next(line for line in lines if line[0] == "p50[candidate]")
    assert any(
        abs(float(each.strip("()")) - 1.95) < 0.1
        for each in slower
        if each.startswith("(") and each != "(1.0)" and each != "(b)"
    )
    assert read_session(tmp_path / "gate.json").benchmarks["seatrial::p50[base]"].number("p50") is not None
