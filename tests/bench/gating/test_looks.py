"""Looks: the error rate is spent once, a gate stops where it may, and the verdict is the same from the folder."""

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from seatrial.bench.budget import Budget, Design, Limit
from seatrial.bench.gating import pairs
from seatrial.bench.gating.gate import rejudge
from seatrial.bench.gating.judge import judge
from seatrial.bench.gating.looks import at_look, looks_of, spent
from seatrial.bench.gating.pairs import GateRun, SlotRecord
from seatrial.optimize.errors import ConfigError

RunMaker = Callable[..., GateRun]
some_looks = st.lists(st.integers(2, 30).map(lambda half: 2 * half), min_size=1, max_size=6, unique=True).map(
    lambda looks: tuple(sorted(looks))
)


@given(some_looks, st.floats(0.001, 0.2))
def test_looks_spend_the_whole_error_rate_and_no_more(looks: tuple[int, ...], alpha: float) -> None:
    shares = [spent(looks, number, alpha) for number in range(len(looks))]
    assert sum(shares) == pytest.approx(alpha)
    assert min(shares) > 0


def test_one_look_is_a_gate_without_looks(budget: Budget) -> None:
    assert looks_of(Design(rate=1.0, seconds=1.0, pairs=8)) == (8,)
    assert at_look(budget, (8,), 0) == budget
    assert [round(spent((6, 12, 20), number, 0.05), 6) for number in range(3)] == [0.015, 0.015, 0.02]


@pytest.mark.parametrize("looks", [(6, 12), (4, 5, 6), (2, 6), (6, 4), (6, 6)])
def test_looks_that_cannot_be_are_refused(budget: Budget, looks: tuple[int, ...]) -> None:
    with pytest.raises(ConfigError, match="looks"):
        replace(budget.design, looks=looks)


def test_a_budget_without_new_fields_keeps_its_digest_and_one_with_looks_survives_json(budget: Budget) -> None:
    assert {"looks", "control_rule"}.isdisjoint(budget.to_json()["design"])
    assert "ledger" not in budget.to_json()
    limits = (Limit(metric="p50", max_regression=0.05),)
    plain = Budget(design=Design(rate=100.0, seconds=10.0, saturation_batch=1), limits=limits)
    # What it was before looks, ledger and control rule were known.
    assert plain.digest == "sha256:b7af7b0b29e15698161a8093d48ea666c7d0ca657f2b1d15d881fb90d68c5b7d"
    deployed = replace(plain, design=replace(plain.design, saturation_batch=None))  # asks for something else
    assert deployed.digest != plain.digest
    assert Budget.from_json(json.loads(json.dumps(deployed.to_json()))) == deployed
    looking = watched(budget)
    again = Budget.from_json(json.loads(json.dumps(looking.to_json())))
    assert again == looking
    assert again.digest != budget.digest


def watched(budget: Budget) -> Budget:
    """p50 and quality, up to twelve pairs, two looks."""
    limits = (Limit(metric="p50", max_regression=0.05), Limit(metric="quality", max_drop=0.02))
    return replace(budget, design=replace(budget.design, pairs=12, looks=(6, 12)), limits=limits)


def looked(make_run: RunMaker, budget: Budget, **change: float) -> GateRun:
    """A run of twelve pairs whose first six answered the whole evaluation set."""
    runs = [make_run(count=1200, seed=seed, **change) for seed in (1, 2)]
    plan, records = pairs.plan(12, 1), []
    for slot in plan:
        half, pair = divmod(slot.pair, 6)
        record = runs[half].final()[pair, slot.arm]
        late = {"quality": np.empty(0), "quality_start": 1200} if half else {}
        records.append(replace(record, slot=slot, seconds=10.0, **late))  # type: ignore[arg-type]
    return GateRun(header=replace(runs[0].header, budget=watched(budget)), records=tuple(records))


def test_a_clear_pass_is_decided_at_the_first_look(make_run: RunMaker, budget: Budget) -> None:
    run = looked(make_run, budget)
    verdict = judge(run, watched(budget))
    assert (verdict.outcome, verdict.pairs, verdict.looks) == ("PASS", 6, (6, 12))
    assert verdict.confidence == pytest.approx(1 - 2 * 0.025)
    assert verdict.seconds == pytest.approx(120.0)
    assert "decided at look 1 of 2 (6 pairs)" in verdict.notes[0]
    assert any("min" in note and "$" in note for note in verdict.notes)
    quality = verdict.finding("quality")
    assert quality is not None
    assert quality.n == 1200
    assert judge(run.first(6), watched(budget)) == verdict  # what came later does not count


def test_a_clear_failure_is_decided_at_the_first_look(make_run: RunMaker, budget: Budget) -> None:
    verdict = judge(looked(make_run, budget, latency=1.3), watched(budget))
    assert (verdict.outcome, verdict.pairs) == ("FAIL", 6)


def test_doubt_goes_on_to_the_last_look(make_run: RunMaker, budget: Budget) -> None:
    run = looked(make_run, budget, noise=0.12)
    verdict = judge(run, watched(budget))
    assert (verdict.outcome, verdict.pairs) == ("INCONCLUSIVE", 12)
    p50 = verdict.finding("p50")
    assert p50 is not None
    assert "more pairs are needed, about" in p50.reason
    stopped = judge(run.first(6), watched(budget))
    assert stopped.outcome == "INVALID"
    assert "only 6 of 12 pairs were measured" in stopped.reasons


def test_a_run_broken_off_before_the_first_look_counts_to_that_look(make_run: RunMaker, budget: Budget) -> None:
    verdict = judge(looked(make_run, budget).first(2), watched(budget))
    assert "only 2 of 6 pairs were measured" in verdict.reasons


def test_the_folder_gives_the_same_verdict(tmp_path: Path, make_run: RunMaker, budget: Budget) -> None:
    run = looked(make_run, budget)
    pairs.write_header(tmp_path, run.header)
    for record in run.records:
        pairs.write_record(tmp_path, record)
    assert rejudge(tmp_path) == judge(run, watched(budget))


@pytest.mark.parametrize(("rule", "outcome"), [("differs", "PASS"), ("contained", "INVALID")])
def test_a_noisy_control_is_invalid_only_where_it_must_be_contained(
    make_run: RunMaker, budget: Budget, rule: str, outcome: str
) -> None:
    def noisy(record: SlotRecord) -> SlotRecord:
        factor = 1.0 + 0.1 * np.sin(7 * record.slot.index)
        return replace(record, control=4e-4 * float(factor))

    run = make_run(change={(pair, arm): noisy for pair in range(6) for arm in pairs.ARMS})
    design = replace(budget.design, control_limit=0.025, control_rule=rule)  # type: ignore[arg-type]
    assert judge(run, replace(budget, design=design)).outcome == outcome
    assert judge(make_run(), replace(budget, design=design)).outcome == "PASS"


@pytest.mark.slow
def test_the_error_rates_hold_over_all_looks(budget: Budget) -> None:
    """A true regression of exactly the margin, looked at three times: simulated with the statistics alone."""
    from seatrial.bench import stats

    random, looks, margin = np.random.default_rng(5), (6, 12, 20), float(np.log1p(0.05))
    order = np.array([1 if index % 2 else -1 for index in range(20)])
    passed = failed = 0
    for _ in range(1500):
        differences = margin + random.normal(0, 0.03, 20)
        for number, look in enumerate(looks):
            estimate = stats.paired(differences[:look], order[:look])
            if stats.upper_bound(estimate, spent(looks, number, 0.05)) < margin:
                passed += 1
                break
            if stats.p_exceeds(estimate, margin) <= spent(looks, number, 0.01):
                failed += 1
                break
    assert stats.clopper_pearson(passed, 1500, 0.001)[0] <= 0.05
    assert stats.clopper_pearson(failed, 1500, 0.001)[0] <= 0.01
    assert passed > 0
