"""The ledger: accepted losses add up, an exhausted one fails the gate, and nothing is counted twice or torn."""

import json
import math
from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from seatrial.bench.budget import Budget, LedgerLimits, Limit
from seatrial.bench.gating.judge import judge
from seatrial.bench.gating.ledger import real_loss
from seatrial.bench.gating.pairs import GateRun
from seatrial.bench.records import accepted, journal
from seatrial.optimize.errors import ConfigError, IntegrityError

RunMaker = Callable[..., GateRun]
LIMITS = LedgerLimits(name="scenes", at_most={"p50": 0.05})


@pytest.fixture
def kept(budget: Budget) -> Budget:
    """Ten per cent of p50 for each candidate, five for all of them together."""
    limits = (Limit(metric="p50", max_regression=0.10), Limit(metric="peak_memory", max_regression=0.10))
    return replace(budget, limits=limits, ledger=LIMITS)


def lossy(make_run: RunMaker, budget: Budget, before: float = 0.0, latency: float = 1.03) -> GateRun:
    run = make_run(latency=latency, noise=0.002)
    return replace(run, header=replace(run.header, budget=budget, ledger={"p50": before}))


def test_a_real_loss_within_its_margin_passes_until_the_ledger_is_full(make_run: RunMaker, kept: Budget) -> None:
    verdict = judge(lossy(make_run, kept), kept)
    p50 = verdict.finding("p50")
    assert p50 is not None
    assert (verdict.outcome, p50.outcome) == ("PASS", "PASS")
    assert "the ledger would hold " in p50.reason
    assert any(note.startswith("p50 is significantly worse (+") for note in verdict.notes)
    found = real_loss(p50)
    assert found is not None
    assert found[1] < found[0] < found[2]
    full = judge(lossy(make_run, kept, before=math.log(1.03)), kept)
    assert full.outcome == "FAIL"
    assert any("losses accepted in 30 days" in reason for reason in full.summary)
    assert judge(lossy(make_run, kept, before=1.0, latency=1.0), kept).outcome == "PASS"
    assert judge(lossy(make_run, kept, before=1.0, latency=0.9), kept).outcome == "PASS"
    assert judge(lossy(make_run, kept, before=1.0), replace(kept, ledger=None)).outcome == "PASS"


def test_acceptance_is_written_once_and_read_within_the_window(
    tmp_path: Path, make_run: RunMaker, kept: Budget
) -> None:
    run = lossy(make_run, kept)
    verdict = judge(run, kept)
    assert accepted.held(tmp_path, LIMITS) == {"p50": 0.0}
    (entry,) = accepted.accept(tmp_path, run, verdict)
    assert entry.metric == "p50"
    assert entry.loss == pytest.approx(math.log(1.03), abs=0.01)
    assert accepted.accept(tmp_path, run, verdict) == ()
    assert accepted.entries(tmp_path, "scenes") == [entry]
    assert accepted.held(tmp_path, LIMITS) == {"p50": entry.loss}
    assert accepted.held(tmp_path, LIMITS, datetime.now(UTC) + timedelta(days=31)) == {"p50": 0.0}
    assert accepted.held(tmp_path, None) == {}


def test_what_was_not_accepted_or_lost_nothing_is_not_written(tmp_path: Path, make_run: RunMaker, kept: Budget) -> None:
    for latency in (1.0, 0.9, 1.5):
        run = lossy(make_run, kept, latency=latency)
        assert accepted.accept(tmp_path, run, judge(run, kept)) == ()
    bookless = replace(kept, ledger=None)
    run = lossy(make_run, bookless)
    assert accepted.accept(tmp_path, run, judge(run, bookless)) == ()
    assert not (tmp_path / "ledger").exists()


def test_a_budget_with_a_ledger_survives_json(kept: Budget) -> None:
    assert Budget.from_json(json.loads(json.dumps(kept.to_json()))) == kept


@pytest.mark.parametrize(
    "bad",
    [
        {"name": "../x", "at_most": {"p50": 0.1}},
        {"name": "x", "at_most": {"speed": 0.1}},
        {"name": "x", "at_most": {"quality": 0.1}},
        {"name": "x", "at_most": {"p50": 0.0}},
        {"name": "x", "days": 0.0, "at_most": {"p50": 0.1}},
    ],
)
def test_ledgers_that_cannot_be_are_refused(bad: dict[str, object]) -> None:
    with pytest.raises(ConfigError):
        LedgerLimits(**bad)  # type: ignore[arg-type]


def test_a_ledger_counts_only_what_a_limit_measures(kept: Budget) -> None:
    with pytest.raises(ConfigError, match="no limit measures"):
        replace(kept, ledger=LedgerLimits(name="x", at_most={"throughput": 0.1}))


@given(st.lists(st.dictionaries(st.text(max_size=5), st.integers() | st.text(max_size=9), max_size=3), max_size=6))
@pytest.mark.slow
def test_a_journal_reads_back_what_was_appended(tmp_path_factory: pytest.TempPathFactory, rows: list[object]) -> None:
    path = tmp_path_factory.mktemp("journal") / "deep" / "lines.jsonl"
    written = [{"row": row, "schema": 1} for row in rows]
    for line in written:
        journal.append(path, line)
    assert journal.read(path, 1) == written


def test_a_torn_line_is_passed_over_and_closed_by_the_next(tmp_path: Path) -> None:
    path = tmp_path / "lines.jsonl"
    journal.append(path, {"schema": 1, "n": 1})
    with path.open("ab") as stream:
        stream.write(b'{"schema": 1, "n":')
    assert [line["n"] for line in journal.read(path, 1)] == [1]
    journal.append(path, {"schema": 1, "n": 2})
    assert [line["n"] for line in journal.read(path, 1)] == [1, 2]
    with pytest.raises(IntegrityError, match="schema"):
        journal.read(path, 2)


def test_a_line_that_is_no_entry_is_named(tmp_path: Path) -> None:
    journal.append(accepted.path_of(tmp_path, "scenes"), {"schema": 1, "metric": "p50"})
    with pytest.raises(IntegrityError, match="loss: field required") as caught:
        accepted.entries(tmp_path, "scenes")
    assert caught.value.where == f"{accepted.path_of(tmp_path, 'scenes')}:1"
