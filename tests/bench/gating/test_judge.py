"""The judge on synthetic runs: each outcome for its own reason, and never a PASS from missing values."""

import json
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from seatrial.bench.budget import Budget, Limit
from seatrial.bench.gating import pairs
from seatrial.bench.gating.judge import EXIT_CODES, Verdict, judge
from seatrial.bench.gating.pairs import GateRun, SlotRecord
from seatrial.optimize.errors import IntegrityError

RunMaker = Callable[..., GateRun]


def only(budget: Budget, *limits: Limit) -> Budget:
    return replace(budget, limits=limits)


def test_a_clear_improvement_passes(make_run: RunMaker, budget: Budget) -> None:
    verdict = judge(make_run(latency=0.7, throughput=1.4, memory=0.8, size=0.26, lost=6), budget)
    assert verdict.outcome == "PASS"
    assert verdict.exit_code == 0
    assert {finding.outcome for finding in verdict.findings} == {"PASS"}
    p50 = verdict.finding("p50")
    assert p50 is not None
    assert p50.ratio is not None
    assert p50.ratio == pytest.approx(0.7, abs=0.03)
    assert p50.interval is not None
    assert p50.interval[0] < p50.ratio < p50.interval[1] < 1.05
    cost, throughput = verdict.finding("cost"), verdict.finding("throughput")
    assert cost is not None
    assert throughput is not None
    assert throughput.ratio is not None
    assert cost.ratio == pytest.approx(1 / throughput.ratio)


def test_twenty_percent_slower_fails_and_says_by_what(make_run: RunMaker, budget: Budget) -> None:
    verdict = judge(make_run(latency=1.2), budget)
    assert verdict.outcome == "FAIL"
    assert verdict.exit_code == 1
    p50 = verdict.finding("p50")
    assert p50 is not None
    assert p50.outcome == "FAIL"
    assert p50.p is not None
    assert p50.p <= 0.01
    assert any(reason.startswith("p50 went from") for reason in verdict.summary)
    memory = verdict.finding("peak_memory")
    assert memory is not None
    assert memory.outcome == "PASS"


def test_noise_is_inconclusive_and_says_how_many_pairs_it_takes(make_run: RunMaker, budget: Budget) -> None:
    verdict = judge(make_run(noise=0.12), budget)
    assert verdict.outcome == "INCONCLUSIVE"
    assert verdict.exit_code == 3
    p50 = verdict.finding("p50")
    assert p50 is not None
    assert p50.outcome == "INCONCLUSIVE"
    assert p50.pairs_needed is not None
    assert p50.pairs_needed > 6
    assert p50.certifiable is not None
    assert p50.blocking is not None
    assert 0.05 < p50.certifiable < p50.blocking


def test_a_drop_in_quality_fails(make_run: RunMaker, budget: Budget) -> None:
    verdict = judge(make_run(latency=0.5, throughput=2.0, lost=60), budget)
    quality = verdict.finding("quality")
    assert verdict.outcome == "FAIL"
    assert quality is not None
    assert quality.outcome == "FAIL"
    assert quality.difference == pytest.approx(-0.05)
    assert quality.interval is not None
    assert quality.interval[1] < -0.01


def test_too_few_samples_say_how_many_it_takes(make_run: RunMaker, budget: Budget) -> None:
    tight = only(budget, Limit(metric="quality", max_drop=0.001))
    verdict = judge(make_run(count=120), tight)
    quality = verdict.finding("quality")
    assert quality is not None
    assert verdict.outcome == "INCONCLUSIVE"
    assert "samples are needed" in quality.reason


def test_a_bigger_file_fails_without_statistics(make_run: RunMaker, budget: Budget) -> None:
    verdict = judge(make_run(size=1.001), budget)
    finding = verdict.finding("file_size")
    assert finding is not None
    assert (finding.outcome, finding.method, finding.p) == ("FAIL", "exact", None)
    assert verdict.outcome == "FAIL"


def test_more_memory_under_the_floor_does_not_count(make_run: RunMaker, budget: Budget) -> None:
    limits = (Limit(metric="peak_memory", max_regression=0.01, floor=32.0 * (1 << 20)),)
    run = make_run(memory=1.06)  # 18 MiB of 310
    assert judge(run, only(budget, *limits)).outcome == "PASS"
    assert judge(run, only(budget, Limit(metric="peak_memory", max_regression=0.01))).outcome == "FAIL"


def test_memory_is_not_certified_below_what_an_allocator_shows(make_run: RunMaker, budget: Budget) -> None:
    def small(record: SlotRecord) -> SlotRecord:
        return replace(record, peak_memory=20.0 * (1 << 20))

    same = make_run(change={(pair, arm): small for pair in range(6) for arm in pairs.ARMS})
    finding = judge(same, only(budget, Limit(metric="peak_memory", max_regression=0.01))).finding("peak_memory")
    assert finding is not None
    assert finding.ratio == 1.0
    assert finding.outcome == "INCONCLUSIVE"


def breached(record: SlotRecord) -> SlotRecord:
    return replace(record, breaches=("lag: the client sent 1 % of the requests late",))


@pytest.mark.parametrize("arm", pairs.ARMS)
def test_a_broken_load_rule_is_invalid_and_names_the_slot(make_run: RunMaker, budget: Budget, arm: str) -> None:
    verdict = judge(make_run(latency=0.5, change={(2, arm): breached}), budget)
    assert verdict.outcome == "INVALID"
    assert verdict.exit_code == 4
    assert any(f"{arm} arm, pair 3: lag" in reason for reason in verdict.reasons)


def test_an_interrupted_run_is_invalid(make_run: RunMaker, budget: Budget) -> None:
    run = make_run(latency=0.5)
    verdict = judge(replace(run, records=run.records[:7]), budget)
    assert verdict.outcome == "INVALID"
    assert "only 3 of 6 pairs were measured" in verdict.reasons


@pytest.mark.parametrize(
    ("field", "value"),
    [("throughput", None), ("peak_memory", None), ("latency", np.empty(0)), ("quality", np.ones(3))],
)
def test_a_missing_value_is_invalid_and_never_a_pass(
    make_run: RunMaker, budget: Budget, field: str, value: Any
) -> None:
    def change(record: SlotRecord) -> SlotRecord:
        emptied: dict[str, Any] = {field: value} | ({"status": np.empty(0, int)} if field == "latency" else {})
        return replace(record, **emptied)

    verdict = judge(make_run(latency=0.5, change={(4, "candidate"): change}), budget)
    assert verdict.outcome == "INVALID"
    assert judge(replace(make_run(), records=()), budget).outcome == "INVALID"


def failed_requests(count: int) -> Callable[[SlotRecord], SlotRecord]:
    def change(record: SlotRecord) -> SlotRecord:
        status = record.status.copy()
        status[:count] = 500
        return replace(record, status=status)

    return change


def test_errors_fail_in_the_candidate_alone_and_invalidate_in_the_base(make_run: RunMaker, budget: Budget) -> None:
    assert judge(make_run(change={(1, "candidate"): failed_requests(2)}), budget).outcome == "FAIL"
    for both in ({(1, "base"): failed_requests(2)}, {(1, arm): failed_requests(2) for arm in pairs.ARMS}):
        assert judge(make_run(change=both), budget).outcome == "INVALID"


def test_errors_count_although_the_budget_is_silent_about_them(make_run: RunMaker, budget: Budget) -> None:
    silent = only(budget, Limit(metric="file_size", max_regression=0.0))
    assert judge(make_run(change={(1, "candidate"): failed_requests(1)}), silent).outcome == "FAIL"
    assert judge(make_run(), silent).outcome == "PASS"


def fault(kind: Any, text: str = "the model does not load: bad opset") -> Callable[[SlotRecord], SlotRecord]:
    return lambda record: record.faulty(text, kind)


@pytest.mark.parametrize(
    ("faults", "outcome"),
    [
        ({(0, "candidate"): fault("model")}, "FAIL"),
        ({(0, "candidate"): fault("environment")}, "INVALID"),
        ({(0, "base"): fault("model")}, "INVALID"),
        ({(0, "base"): fault("model"), (0, "candidate"): fault("model")}, "INVALID"),
    ],
)
def test_a_fault_counts_against_the_candidate_only_where_the_base_works(
    make_run: RunMaker, budget: Budget, faults: Any, outcome: str
) -> None:
    run = make_run(change=faults)
    broken_off = replace(run, records=run.records[:2])
    verdict = judge(broken_off, budget)
    assert verdict.outcome == outcome
    assert "bad opset" in " ".join(verdict.reasons)


def test_a_candidate_without_a_base_slot_beside_it_is_not_failed(make_run: RunMaker, budget: Budget) -> None:
    run = make_run(change={(0, "candidate"): fault("model")})
    alone = tuple(record for record in run.records if record.slot.arm == "candidate")[:1]
    assert judge(replace(run, records=alone), budget).outcome == "INVALID"


def transport(record: SlotRecord) -> SlotRecord:
    return replace(record, breaches=("transport: 3 connections failed (limit 0), the first: reset",))


def test_broken_connections_fail_the_candidate_alone_and_invalidate_in_both(make_run: RunMaker, budget: Budget) -> None:
    assert judge(make_run(change={(1, "candidate"): transport}), budget).outcome == "FAIL"
    assert judge(make_run(change={(1, "base"): transport}), budget).outcome == "INVALID"
    assert judge(make_run(change={(1, arm): transport for arm in pairs.ARMS}), budget).outcome == "INVALID"


def test_broken_connections_are_not_wiped_away_by_a_good_rerun(make_run: RunMaker, budget: Budget) -> None:
    run = make_run(change={(1, "candidate"): transport})
    again = tuple(replace(record, attempt=1, breaches=()) for record in run.records if record.slot.pair == 1)
    assert judge(replace(run, records=run.records + again), budget).outcome == "FAIL"


def test_a_queue_that_overflows_twice_in_the_candidate_alone_fails(make_run: RunMaker, budget: Budget) -> None:
    def overflowing(record: SlotRecord) -> SlotRecord:
        return replace(record, breaches=("dropped: 12 arrivals were never sent (limit 0)",))

    run = make_run(change={(1, "candidate"): overflowing})
    assert judge(run, budget).outcome == "INVALID"
    again = tuple(replace(record, attempt=1) for record in run.records if record.slot.pair == 1)
    assert judge(replace(run, records=run.records + again), budget).outcome == "FAIL"


def test_a_rerun_replaces_a_spoiled_pair(make_run: RunMaker, budget: Budget) -> None:
    run = make_run(change={(1, "base"): breached})
    clean = make_run()
    again = tuple(replace(record, attempt=1) for record in clean.records if record.slot.pair == 1)
    assert judge(run, budget).outcome == "INVALID"
    assert judge(replace(run, records=run.records + again), budget).outcome == judge(clean, budget).outcome


def test_a_control_workload_that_moves_with_the_arm_invalidates(make_run: RunMaker, budget: Budget) -> None:
    slower = {(p, "candidate"): lambda r: replace(r, control=0.0005 + 1e-6 * r.slot.pair) for p in range(6)}
    run = make_run(change=slower)
    watched = replace(budget, design=replace(budget.design, control_limit=0.02))
    assert judge(run, budget).outcome == "PASS"
    assert judge(run, watched).outcome == "INVALID"
    assert judge(make_run(), watched).outcome == "PASS"


def test_a_metric_that_does_not_gate_cannot_decide(make_run: RunMaker, budget: Budget) -> None:
    run = make_run(latency=1.5)
    advisory = replace(
        budget,
        limits=tuple(replace(limit, gating=limit.metric not in ("p50", "p99")) for limit in budget.limits),
    )
    verdict = judge(run, advisory)
    p50 = verdict.finding("p50")
    assert p50 is not None
    assert p50.outcome == "FAIL"
    assert verdict.outcome == "PASS"


@pytest.mark.parametrize(
    ("limit", "outcome"),
    [
        (Limit(metric="p99", at_most=0.05), "PASS"),
        (Limit(metric="p99", at_most=0.001), "FAIL"),
        (Limit(metric="throughput", at_least=100.0), "PASS"),
        (Limit(metric="throughput", at_least=900.0), "FAIL"),
        (Limit(metric="quality", at_least=0.8), "PASS"),
        (Limit(metric="quality", at_least=0.95), "FAIL"),
        (Limit(metric="quality", at_least=0.9), "INCONCLUSIVE"),
        (Limit(metric="file_size", at_most=1000.0), "FAIL"),
    ],
)
def test_absolute_limits_bind_the_candidate_alone(
    make_run: RunMaker, budget: Budget, limit: Limit, outcome: str
) -> None:
    assert judge(make_run(), only(budget, limit)).outcome == outcome


def test_a_stall_cannot_hide_among_unanswered_requests(make_run: RunMaker, budget: Budget) -> None:
    def stalled(record: SlotRecord) -> SlotRecord:
        status, latency = record.status.copy(), record.latency.copy()
        status[-40:], latency[-40:] = -1, 5.0
        return replace(record, status=status, latency=latency)

    change = {(pair, "candidate"): stalled for pair in range(6)}
    finding = judge(make_run(change=change), budget).finding("p99")
    assert finding is not None
    assert finding.outcome == "FAIL"


def test_false_failures_are_rare_and_regressions_do_not_slip_through(make_run: RunMaker, budget: Budget) -> None:
    latency_only = only(budget, Limit(metric="p50", max_regression=0.05), Limit(metric="p99", max_regression=0.10))
    same = [judge(make_run(noise=0.03, seed=seed), latency_only).outcome for seed in range(25)]
    assert same.count("FAIL") == 0
    worse = [judge(make_run(noise=0.03, latency=1.15, seed=seed), latency_only).outcome for seed in range(25)]
    assert worse.count("PASS") == 0
    assert worse.count("FAIL") > 5


def test_a_verdict_survives_json_and_is_the_same_every_time(make_run: RunMaker, budget: Budget) -> None:
    verdict = judge(make_run(latency=0.9), budget)
    text = json.dumps(verdict.to_json(), allow_nan=False)
    assert Verdict.from_json(json.loads(text)) == verdict
    assert judge(make_run(latency=0.9), budget) == verdict


@pytest.mark.parametrize("change", [{"schema": 9}, {"findings": [{"metric": "p50"}]}, {"unknown": 1}])
def test_a_foreign_verdict_is_refused(make_run: RunMaker, budget: Budget, change: dict[str, Any]) -> None:
    with pytest.raises(IntegrityError):
        Verdict.from_json(judge(make_run(), budget).to_json() | change)


def test_every_outcome_has_its_exit_code() -> None:
    assert EXIT_CODES == {"PASS": 0, "FAIL": 1, "INCONCLUSIVE": 3, "INVALID": 4}
