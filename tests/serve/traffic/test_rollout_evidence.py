"""Blocks and evidence: what is counted, what is dropped, and what may be said of it."""

import math
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from scripts.benchmarks.rollout_traffic import Case, blocks
from seatrial.optimize.units import format_count
from seatrial.serve.traffic.rollout import evidence as judging
from seatrial.serve.traffic.rollout.blocks import FREEZE, Arm, Block, BlockAggregator, Thresholds
from seatrial.serve.traffic.rollout.evidence import Evidence
from seatrial.serve.traffic.rollout.plan import USUAL, Plan, Step, load_plan
from seatrial.serve.traffic.rollout.tally import Tally
from seatrial.serve.traffic.seen import Seen

ROOT = Path(__file__).parent.parent.parent.parent
STEPS = (Step(share=0.5, requests=100), Step(share=1.0, requests=100, needs="requests"))
PLAN = Plan(schema=1, steps=STEPS, block=10.0, block_requests=2)
KNOWN = Thresholds(p95=0.04, p99=0.06, requests=1000)


def one(at: float, version: int = 1, seconds: float = 0.02, **changes: object) -> Seen:
    seen = Seen(at=at, model="m", version=version, role="live", seconds=seconds, status=200)
    return replace(seen, **changes)  # type: ignore[arg-type]


def cutter(thresholds: Thresholds | None = KNOWN, after: float = 0.0) -> BlockAggregator:
    made = BlockAggregator(PLAN, "m", 1, 2, thresholds=thresholds, after=after)
    made.counts_from(0, 100.0)
    return made


def stream(start: float = 100.0, end: float = 160.0) -> Iterator[Seen]:
    for index in range(int(end - start)):
        yield one(start + index, 1, request_id=f"a{index}")
        yield one(start + index, 2, 0.05, request_id=f"b{index}")


def judge(plan: Plan, step: int, made: list[Block]) -> Evidence:
    return judging.judge(plan, step, Tally.of(made))


def judged(case: Case, plan: Plan = PLAN, minutes: int = 30, seed: int = 1) -> Evidence:
    return judge(plan, 0, blocks(np.random.default_rng(seed), case, plan, minutes=minutes))


def test_blocks_count_both_arms_by_the_time_a_request_ended() -> None:
    full = cutter().add([*stream(), one(101.0, 2, 25.0)], 160.0)
    assert [block.until for block in full[:2]] == [110.0, 120.0]
    assert all(block.candidate.slow95 >= 9 and block.baseline.slow95 == 0 for block in full)
    assert sum(block.candidate.slow99 for block in full) == 1, "a slow request must not vanish with its block"
    assert full[0].candidate.log_seconds == pytest.approx(full[0].candidate.answered * math.log(0.05))


def test_what_is_not_to_be_counted_is_not() -> None:
    strange = [
        one(105.0, 2, status=500),
        one(105.0, 2, status=404),
        one(105.0, 2, status=0, seconds=3.0),
        one(105.0, 2, grpc_status=14),
        one(105.0, 2, grpc_status=3),
        one(105.0, 3),
        one(105.0, 2, role="shadow"),
        one(105.0, 2, model="other"),
        one(90.0, 2),
        one(9999.0, 2),
    ]
    counting = cutter()
    full = counting.add([*strange, *stream(), *stream()], 160.0)
    arms = [block.candidate for block in full]
    assert sum(arm.errors for arm in arms) == 2
    assert sum(arm.refused for arm in arms) == 2
    assert sum(arm.slow99 for arm in arms) == 1, "a client that gave up waited at least so long"
    assert counting.dropped == {"twice": 120, "from the future": 1}


@given(st.integers(101, 158))
@pytest.mark.slow
def test_a_stream_read_again_after_a_restart_adds_nothing_twice(cut: int) -> None:
    whole = cutter().add(stream(), 160.0)
    first = cutter().add(stream(end=float(cut)), float(cut))
    rest = cutter(after=first[-1].until if first else 0.0).add(stream(), 160.0)
    counted = sum(block.candidate.requests for block in [*first, *rest])
    assert counted <= 60
    assert abs(counted - sum(block.candidate.requests for block in whole)) <= 10
    ends = [block.until for block in [*first, *rest]]
    assert ends == sorted(set(ends))


def test_one_arm_alone_fills_no_block_and_tells_nothing() -> None:
    assert cutter().add((one(100.0 + i, 1) for i in range(100)), 200.0) == []
    assert cutter().add((one(100.0 + i, 2) for i in range(100)), 200.0) == []
    found = judge(PLAN, 0, [])
    assert found.outcome == "INCONCLUSIVE"
    assert "too little traffic" in found.reasons[0]


def test_thresholds_are_frozen_before_anything_is_compared() -> None:
    learning = BlockAggregator(PLAN, "m", 1, 2)
    learning.add((one(float(i) / 10, 1, 0.01 + i / 1e5) for i in range(FREEZE)), 60.0)
    assert learning.thresholds is None
    learning.counts_from(0, 100.0)
    frozen = learning.thresholds
    assert frozen == Thresholds(p95=0.01 + 474 / 1e5, p99=0.01 + 494 / 1e5, requests=FREEZE)
    learning.add((one(100.0 + i / 10, 1, 5.0) for i in range(FREEZE)), 200.0)
    assert learning.thresholds == frozen
    late = cutter(thresholds=None)
    full = late.add([one(100 + i / 20, 1 + i % 2) for i in range(4 * FREEZE)], 250.0)
    assert [block.tails for block in full] == [False] * 5 + [True] * (len(full) - 5), "no look back with new thresholds"


def test_numpy_s_blocks_are_the_cutter_s_blocks() -> None:
    """The rows judge blocks that numpy made; here the same requests go one by one."""
    case, plan = Case(errors=(0.1, 0.02)), replace(PLAN, block_requests=1)
    made = blocks(np.random.default_rng(3), case, plan, minutes=5)
    seen, size = [], made[0].candidate.requests
    for index, block in enumerate(made):
        for version, arm in ((1, block.baseline), (2, block.candidate)):
            statuses = [503] * arm.errors + [200] * arm.answered
            log = arm.log_seconds / max(1, arm.answered)
            for j, status in enumerate(statuses):
                end = index * plan.block + (j + 0.5) / size * plan.block
                seen.append((end, one(end - math.exp(log), version, math.exp(log), status=status)))
    cutting = BlockAggregator(plan, "m", 1, 2, thresholds=KNOWN)
    cutting.counts_from(0, 0.0)
    full = cutting.add((each for _, each in sorted(seen, key=lambda pair: pair[0])), 300.0)
    assert len(full) == len(made)
    for one_, other in zip(full, made, strict=True):
        for arm, like in ((one_.candidate, other.candidate), (one_.baseline, other.baseline)):
            assert (arm.requests, arm.answered, arm.errors) == (like.requests, like.answered, like.errors)
            assert arm.log_seconds == pytest.approx(like.log_seconds)


def test_equal_arms_pass_with_requests_enough_and_worse_ones_fail() -> None:
    wide = replace(PLAN, margins=replace(PLAN.margins, p95=0.3, p99=0.5, errors=0.01, refused=0.01))
    assert judged(Case(rate=1200), wide).outcome == "PASS"
    for case, metric in (
        (Case(slower=1.3), "mean"),
        (Case(rare=0.05), "p99"),
        (Case(errors=(0.05, 0.005)), "errors"),
    ):
        found = judged(case)
        assert found.outcome == "FAIL"
        assert metric in {each.metric for each in found.findings if each.outcome == "FAIL"}


def test_too_few_requests_are_no_pass_and_the_forecast_says_how_many_more() -> None:
    found = judged(Case(), replace(PLAN, steps=(replace(STEPS[0], requests=10_000),)))
    assert (found.outcome, found.forecast) == (
        "INCONCLUSIVE",
        "needs 6.4k more requests of each version before it may pass",
    )
    found = judged(Case())
    assert found.outcome == "INCONCLUSIVE"
    assert "more requests of each version to rule out" in found.forecast


def test_the_forecast_comes_about_true() -> None:
    plan = replace(PLAN, margins=replace(PLAN.margins, errors=0.01))
    found = next(each for each in judged(Case(rate=240), plan, minutes=10).findings if each.metric == "errors")
    assert found.needed
    minutes = 10 + math.ceil(1.5 * found.needed / 240)
    later = next(each for each in judged(Case(rate=240), plan, minutes=minutes).findings if each.metric == "errors")
    assert later.outcome == "PASS"


def test_a_regression_within_the_margin_is_not_failed_for_being_certain() -> None:
    found = judged(Case(slower=1.02, rate=2400), replace(PLAN, steps=(replace(STEPS[0], requests=10**7),)), minutes=60)
    mean = found.findings[0]
    assert mean.evidence > mean.enough, "it is certain that it is slower"
    assert mean.outcome == "PASS", "and by less than the margin"


def test_events_count_against_the_share_in_force() -> None:
    """Ten times the requests and ten times the errors, from one step to the next: nothing is worse."""
    steps = (Step(share=0.05, requests=10**6), Step(share=0.5, requests=10**6))
    random, made = np.random.default_rng(5), []
    for step, (c, b) in enumerate(((10, 190), (100, 100))):
        for index in range(60):
            errors = random.binomial((c, b), 0.05)
            arms = [
                Arm(requests=n, answered=n, log_seconds=n * -4.0, errors=int(e))
                for n, e in zip((c, b), errors, strict=True)
            ]
            until = (step * 60 + index) * 10.0
            made.append(Block(until=until, step=step, candidate=arms[0], baseline=arms[1], tails=False))
    assert judge(replace(PLAN, steps=steps), 1, made).outcome == "INCONCLUSIVE"


def test_alone_at_the_end_only_a_gross_rise_of_errors_fails() -> None:
    before = [replace(each, step=0) for each in blocks(np.random.default_rng(6), Case(), PLAN, minutes=20)]

    def ended(rate: float) -> Evidence:
        made = blocks(np.random.default_rng(7), Case(errors=(rate, 0)), PLAN, minutes=20)
        return judge(PLAN, 1, [*before, *(replace(each, step=1, baseline=Arm()) for each in made)])

    assert ended(0.005).outcome == "PASS"
    assert ended(0.05).outcome == "FAIL"


@settings(max_examples=25, deadline=None)
@given(st.lists(st.tuples(*[st.integers(0, 50)] * 6), max_size=20), st.integers(0, 1))
def test_whatever_was_counted_gets_a_verdict(rows: list[tuple[int, ...]], step: int) -> None:
    made = []
    for index, (a, b, e, f, s, t) in enumerate(rows):
        arms = []
        for answered, errors, slow in ((a, e, s), (b, f, t)):
            arms.append(
                Arm(
                    requests=answered + errors,
                    answered=answered,
                    log_seconds=-3.0 * answered + slow,
                    slow95=min(slow, answered),
                    beyond95=min(slow, answered) // 2,
                    errors=errors,
                )
            )
        made.append(Block(until=float(index), step=step, candidate=arms[0], baseline=arms[1]))
    found = judge(replace(PLAN, steps=(replace(STEPS[0], requests=1), STEPS[1])), step, made)
    assert found.outcome in ("PASS", "FAIL", "INCONCLUSIVE")
    assert found.reasons
    assert not (found.outcome == "PASS" and min(found.candidate, found.baseline) < 1)


def test_margins_come_from_the_budget_where_the_plan_gives_none(tmp_path: Path) -> None:
    (tmp_path / "plan.toml").write_text(
        f'schema = 1\nbudget = "{ROOT / "bench/budgets/scenes.toml"}"\n[margins]\np99 = 0.2\n[[steps]]\nshare = 0.5\n'
    )
    margins = load_plan(tmp_path / "plan.toml").margins
    assert (margins.mean, margins.of("p99"), margins.of("errors")) == (0.05, 0.2, USUAL["errors"])


@pytest.mark.parametrize("path", sorted((ROOT / "serve" / "rollouts").glob("*.toml")), ids=lambda path: path.stem)
def test_the_plans_that_come_along_can_be_read(path: Path) -> None:
    plan = load_plan(path)
    assert plan.steps[-1].share == 1
    assert plan.alphas.family == pytest.approx(0.02)


def test_counts_are_spelled_with_two_digits() -> None:
    assert [format_count(count) for count in (7, 99, 123, 17_800, 1_234_567)] == ["7", "99", "120", "18k", "1200k"]


def test_a_plan_without_a_mirror_says_so_with_a_share_of_0(tmp_path: Path) -> None:
    path = tmp_path / "plan.toml"
    steps = "[[steps]]\nshare = 0.5\n"
    path.write_text(f"schema = 1\n[shadow]\nmirror = 0.0\n{steps}")
    assert load_plan(path).shadow is None
    path.write_text(f'schema = 1\n[shadow]\nmirror = 0.2\n[shadow.outputs."*"]\ntop1_at_least = 0.9\n{steps}')
    shadow = load_plan(path).shadow
    assert shadow is not None
    assert shadow.outputs["*"].top1_at_least == 0.9


def test_what_a_retry_hid_from_the_client_is_still_a_failure() -> None:
    well = Seen(at=0.0, model="m", version=2, role="live", seconds=0.01, status=200)
    assert not well.failed
    assert replace(well, attempts=2).failed
    assert replace(well, grpc_status=0, attempts=2).failed
