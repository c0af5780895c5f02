"""Rows about the quality checks, simulated: how often equal models FAIL, and how surely a hidden weakness does.

Two models answer the same samples with errors of their own, so that every check has something to mistake for a
weakness. No server and no real model: the error rates of the statistics are the subject.
"""

import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from seatrial.bench.checks import Check
from seatrial.bench.decision import decide
from seatrial.bench.quality.calibration import CalibrationCheck
from seatrial.bench.quality.drift import DriftCheck
from seatrial.bench.quality.evidence import CLEAN, Answers, Evidence
from seatrial.bench.quality.fairness import FairnessCheck
from seatrial.bench.quality.findings import findings_of
from seatrial.bench.quality.metrics import MetricCheck
from seatrial.bench.quality.segments import SegmentsCheck
from seatrial.bench.stats import clopper_pearson
from seatrial.bench.verdict import Finding, Outcome

from .rows import Row, Rows, main

Array = np.ndarray[Any, np.dtype[Any]]
GATES, SAMPLES, CLASSES = 200, 4000, 10
MARGIN = 0.05
CHECKS: tuple[Check, ...] = (
    MetricCheck(metric="score", max_drop=0.01),
    MetricCheck(metric="f1_macro", max_drop=0.01),
    CalibrationCheck(statistic="ece", max_drop=0.02),
    CalibrationCheck(statistic="nll", max_drop=0.05),
    FairnessCheck(by="class", max_drop=MARGIN),
    FairnessCheck(by="site", statistic="gap", max_drop=MARGIN),
    SegmentsCheck(max_drop=2 * MARGIN),
    DriftCheck(statistic="flips", at_most=0.10),
)


def answers(random: np.random.Generator, known: Array, shared: Array, spoil: Callable[[Array], Array]) -> Answers:
    """One arm: logits that are right in about 95 %, `shared` difficulty of the samples, noise of its own."""
    logits = 6.5 * np.eye(CLASSES)[known] + 1.8 * shared + 0.6 * random.normal(size=shared.shape)
    logits = spoil(logits)
    right = (logits.argmax(axis=1) == known).astype(np.float64)
    return Answers(outputs={"logits": logits}, scores={CLEAN: right})


def gate(seed: int, spoil: Callable[[Array, Evidence], Array]) -> tuple[Outcome, list[Finding]]:
    """One simulated gate; `spoil` changes the candidate's logits."""
    random = np.random.default_rng(seed)
    known, shared = random.integers(0, CLASSES, SAMPLES), random.normal(size=(SAMPLES, CLASSES))
    site, hour = random.choice(["north", "south", "west"], SAMPLES), random.uniform(0, 24, SAMPLES)
    empty = Evidence(
        labels=known,
        columns={"site": site, "hour": hour},
        derived={},
        rows={CLEAN: np.arange(SAMPLES)},
        base=None,
        candidate=Answers(),
    )
    arms = [
        answers(random, known, shared, change)
        for change in (lambda logits: logits, lambda logits: spoil(logits, empty))
    ]
    evidence = Evidence(
        labels=known, columns=empty.columns, derived={}, rows=empty.rows, base=arms[0], candidate=arms[1]
    )
    findings, outcome = decide(findings_of(CHECKS, evidence, alpha_pass=0.05, alpha_fail=0.01), 0.01)
    return outcome, findings


def lost(logits: Array, members: Array, share: float, random: np.random.Generator) -> Array:
    """The logits with a share of the members' answers moved to the next class."""
    hit = members & (random.random(len(logits)) < share)
    changed = logits.copy()
    changed[hit] = np.roll(logits[hit], 1, axis=1)
    return changed


def false_alarms(folder: Path) -> Row:
    """Equal models, eight checks in one family."""
    outcomes = [gate(seed, lambda logits, at: logits)[0] for seed in range(GATES)]
    failed, passed = outcomes.count("FAIL"), outcomes.count("PASS")
    upper = clopper_pearson(failed, GATES, 0.05)[1]
    return Row(
        name="checks-aa",
        claim=f"quality checks, {len(CHECKS)} in a family, {GATES} simulated gates of equal models: false FAIL",
        value=f"{failed} of {GATES} (at most {upper:.1%} with 95 % confidence), PASS {passed}",
        bar="at most 1 %",
        met=failed <= GATES // 100,
    )


def hidden_class(folder: Path) -> Row:
    """One class in ten loses four margins, two hundredths of the mean; of three margins 93 in 100 gates were sure."""
    found = 0
    for seed in range(GATES // 2):
        random = np.random.default_rng([seed, 1])
        _, findings = gate(seed, lambda logits, at, r=random: lost(logits, at.labels == 3, 4 * MARGIN, r))  # type: ignore[misc]
        found += any(each.outcome == "FAIL" and each.about == "class 3" for each in findings)
    return _power("checks-class", f"one class loses {4 * MARGIN:.0%} at a margin of {MARGIN:.0%}", found)


def hidden_segment(folder: Path) -> Row:
    """One site at night, a twelfth of the samples, loses a third."""
    found = 0
    for seed in range(GATES // 2):
        random = np.random.default_rng([seed, 2])

        def spoil(logits: Array, at: Evidence, random: np.random.Generator = random) -> Array:
            members = (at.columns["site"] == "west") & (at.columns["hour"] >= 18)
            return lost(logits, members, 1 / 3, random)

        _, findings = gate(seed, spoil)
        found += any(
            each.outcome == "FAIL" and "site = west" in each.about and "hour" in each.about for each in findings
        )
    return _power("checks-segment", f"a planted segment loses 33 % at a margin of {2 * MARGIN:.0%}", found)


def at_the_margin(folder: Path) -> Row:
    """The worst class loses exactly the margin in truth: neither a PASS nor a FAIL is right."""
    check, outcomes = FairnessCheck(by="class", max_drop=MARGIN), []
    for seed in range(5 * GATES):
        random = np.random.default_rng([seed, 3])
        known = random.integers(0, CLASSES, SAMPLES)
        base = random.random(SAMPLES) < 0.95
        candidate = base & ~((known == 3) & (random.random(SAMPLES) < MARGIN / 0.95))
        evidence = Evidence(
            labels=known,
            columns={},
            derived={},
            rows={},
            base=Answers(scores={CLEAN: base.astype(np.float64)}),
            candidate=Answers(scores={CLEAN: candidate.astype(np.float64)}),
        )
        findings, _ = decide(findings_of((check,), evidence, alpha_pass=0.05, alpha_fail=0.01), 0.01)
        outcomes.append(findings[0].outcome)
    passed, failed = outcomes.count("PASS") / len(outcomes), outcomes.count("FAIL") / len(outcomes)
    return Row(
        name="checks-margin",
        claim=f"quality checks, {len(outcomes)} simulated gates in which one class of ten loses exactly the margin",
        value=f"PASS {passed:.1%}, FAIL {failed:.1%}",
        bar="PASS at most 5 % and FAIL at most 1 %, plus two standard errors",
        met=passed <= 0.05 + 2 * (0.05 * 0.95 / len(outcomes)) ** 0.5
        and failed <= 0.01 + 2 * (0.01 * 0.99 / len(outcomes)) ** 0.5,
    )


def _power(name: str, what: str, found: int) -> Row:
    gates = GATES // 2
    return Row(
        name=name,
        claim=f"quality checks, {gates} simulated gates, {what}: FAIL that names it",
        value=f"{found} of {gates}",
        bar="at least 95 %",
        met=found >= 0.95 * gates,
    )


ROWS: Rows = {
    "checks-aa": false_alarms,
    "checks-margin": at_the_margin,
    "checks-class": hidden_class,
    "checks-segment": hidden_segment,
}

if __name__ == "__main__":
    sys.exit(main(__doc__ or "", ROWS))
