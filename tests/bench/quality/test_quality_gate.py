"""Checks in a gate's verdict: they decide like any other finding, and are recomputed from what a slot kept."""

import json
from collections.abc import Callable, Iterable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from seatrial.bench.budget import Budget
from seatrial.bench.gating import pairs
from seatrial.bench.gating.judge import judge
from seatrial.bench.gating.pairs import GateRun, SlotRecord
from seatrial.bench.measurement import NOTHING, Unavailable
from seatrial.bench.quality.evidence import Share
from seatrial.bench.quality.fairness import FairnessCheck
from seatrial.bench.quality.metrics import MetricCheck
from seatrial.bench.quality.suite import Suite, shares
from seatrial.optimize.recipe.metrics import accuracy
from seatrial.optimize.samples import Samples

Array = np.ndarray[Any, np.dtype[Any]]
CHECKS = (
    MetricCheck(metric="f1_macro", max_drop=0.08),
    FairnessCheck(by="site", statistic="gap", max_drop=0.10),
    FairnessCheck(by="site", statistic="gap", at_most=0.01, rate="selection", positive=0, gating=False),
)
N = 1200


@pytest.fixture
def checked(budget: Budget) -> Budget:
    return replace(budget, checks=CHECKS)


def samples() -> Samples:
    random = np.random.default_rng(4)
    labels = random.integers(0, 3, N)
    x = (4 * np.eye(3)[labels] + random.normal(size=(N, 3))).astype(np.float32)
    site = np.where(np.arange(N) % 5 == 0, "south", "north")
    x = np.concatenate([x, (site == "south")[:, None]], axis=1).astype(np.float32)
    return Samples(split="evaluation", inputs={"x": x}, labels=labels, columns={"site": site})


def honest(x: Array) -> Array:
    return x[:, :3]


def worse_in_the_south(x: Array) -> Array:
    """Loses a quarter of a fifth of the samples: five in a hundred overall."""
    logits = x[:, :3].copy()
    hit = (x[:, 3] > 0) & (x[:, 0] - x[:, 1] > 2)
    logits[hit] = np.roll(logits[hit], 1, axis=1)
    return logits


def kept(model: Callable[[Array], Array]) -> list[Share]:
    suite = Suite(checks=CHECKS, samples=samples(), metric=lambda outputs, labels: accuracy(outputs["scores"], labels))
    made = shares(suite, lambda inputs: {"scores": model(inputs["x"])}, 6)
    return [Share.from_json(json.loads(json.dumps(each.to_json()))) for each in made]


def with_checks(run: GateRun, arms: Mapping[str, Iterable[Share | Unavailable]]) -> GateRun:
    told = {arm: list(each) for arm, each in arms.items()}

    def add(record: SlotRecord) -> SlotRecord:
        return replace(record, checks=told[record.slot.arm][record.slot.pair])

    return replace(run, records=tuple(add(record) for record in run.records))


def test_a_group_that_loses_fails_the_gate_though_the_mean_keeps_its_margin(
    make_run: Callable[..., GateRun], checked: Budget, tmp_path: Path
) -> None:
    run = with_checks(make_run(), {"base": kept(honest), "candidate": kept(worse_in_the_south)})
    verdict = judge(run, checked)
    assert verdict.outcome == "FAIL", verdict.summary
    assert [finding.metric for finding in verdict.findings if finding.outcome == "FAIL" and finding.gating] == [
        "fairness gap score by site"
    ]
    finding = verdict.finding("fairness gap score by site")
    assert finding is not None
    assert finding.about == "site north over site south"
    overall = verdict.finding("metric f1_macro")
    assert overall is not None
    assert overall.outcome == "PASS"

    pairs.write_header(tmp_path, run.header)
    for record in run.records:
        pairs.write_record(tmp_path, record)
    assert judge(pairs.read_run(tmp_path), Budget.from_json(json.loads(json.dumps(checked.to_json())))) == verdict


def test_equal_answers_pass_and_what_does_not_gate_decides_nothing(
    make_run: Callable[..., GateRun], checked: Budget
) -> None:
    verdict = judge(with_checks(make_run(), {"base": kept(honest), "candidate": kept(honest)}), checked)
    assert verdict.outcome == "PASS", verdict.summary
    told = verdict.findings[-1]
    assert not told.gating
    assert told.outcome != "PASS"


def test_missing_checks_are_invalid_and_never_a_pass(make_run: Callable[..., GateRun], checked: Budget) -> None:
    assert judge(make_run(), checked).outcome == "INVALID"
    arms: dict[str, list[Share | Unavailable]] = {"base": [*kept(honest)], "candidate": [*kept(honest)[:5], NOTHING]}
    verdict = judge(with_checks(make_run(), arms), checked)
    assert verdict.outcome == "INVALID"
    assert any("lacks" in finding.reason for finding in verdict.findings)


def test_a_budget_without_checks_finds_none(make_run: Callable[..., GateRun], budget: Budget) -> None:
    with_them = with_checks(make_run(), {"base": kept(honest), "candidate": kept(honest)})
    found, without = judge(with_them, budget), judge(make_run(), budget)
    assert replace(found, notes=()) == replace(without, notes=())
    assert "worst class of 3: none lost quality" in found.notes
