"""Weak segments: a planted one is found and confirmed, and noise alone yields none."""

from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from seatrial.bench.quality import segments
from seatrial.bench.quality.evidence import CLEAN, Answers, Evidence
from seatrial.bench.quality.findings import findings_of
from seatrial.bench.quality.segments import SegmentsCheck
from seatrial.bench.verdict import Finding
from seatrial.optimize.errors import ConfigError

Array = np.ndarray[Any, np.dtype[Any]]
CHECK = SegmentsCheck(max_drop=0.10, support=40)


def evidence(seed: int, *, planted: float, n: int = 2400) -> Evidence:
    """A base right in 90 %, and a candidate that loses a share of the samples of one site at night."""
    random = np.random.default_rng(seed)
    site, hour = random.choice(["north", "south", "west"], n), random.integers(0, 24, n) * 1.0
    base = random.random(n) < 0.9
    lost = (site == "west") & (hour >= 18) & (random.random(n) < planted)
    candidate = np.where(random.random(n) < 0.02, random.random(n) < 0.9, base) & ~lost
    return Evidence(
        labels=np.zeros(n, np.int64),
        columns={"site": site, "hour": hour, "noise": random.normal(size=n)},
        derived={},
        rows={CLEAN: np.arange(n)},
        base=Answers(scores={CLEAN: base.astype(float)}),
        candidate=Answers(scores={CLEAN: candidate.astype(float)}),
    )


def judged(seed: int, planted: float, check: SegmentsCheck = CHECK) -> Finding:
    return findings_of((check,), evidence(seed, planted=planted), alpha_pass=0.05, alpha_fail=0.01)[0]


def test_a_planted_segment_is_found_named_and_shown_beyond() -> None:
    found = judged(1, 0.8)
    assert found.p is not None
    assert found.p < 1e-4
    assert "site = west" in found.reason
    assert "hour" in found.reason
    assert found.difference is not None
    assert found.difference < -0.4


def test_noise_alone_yields_no_segment() -> None:
    """The search always finds something; on the other half it is within the margin, and its p-value is no smaller."""
    found = [judged(seed, 0.0) for seed in range(40)]
    assert all(each.p is not None and each.p > 0.01 for each in found)
    assert sum(each.outcome == "PASS" for each in found) >= 35


def test_the_worst_of_many_segments_is_beyond_a_margin_of_nothing_in_one_of_twenty_at_most() -> None:
    """Arms that err alike and apart: judged on the half that was searched, nearly every worst segment looks beyond."""
    check, beyond = SegmentsCheck(max_drop=0.0, support=40), 0
    for seed in range(40):
        at, random = evidence(seed, planted=0.0), np.random.default_rng([seed, 1])
        apart = Answers(scores={CLEAN: (random.random(len(at.labels)) < 0.9).astype(float)})
        found = findings_of((check,), replace(at, candidate=apart), alpha_pass=0.05, alpha_fail=0.01)[0]
        beyond += found.p is not None and found.p <= 0.05
    assert beyond <= 6  # 2 expected; P(more than 6 of 40) = 0.3 %


def test_the_same_samples_would_have_reported_noise() -> None:
    """Why the halves: judged where it was searched, the worst of many segments looks weak by chance."""
    gaps = []
    for seed in range(20):
        at = evidence(seed, planted=0.0)
        score = at.scores()[1]
        half = segments.search_half(len(score))
        worst = segments.search(-score, segments.columns_of(CHECK, at), CHECK)[0].members
        gaps.append(
            (score[worst & half].mean() - score[half].mean(), score[worst & ~half].mean() - score[~half].mean())
        )
    searched, unseen = np.mean(gaps, axis=0)
    assert searched < -0.03
    assert abs(unseen) < 0.02


def test_conditions_join_different_columns_and_hold_enough() -> None:
    at = evidence(2, planted=0.5)
    base, candidate = at.scores()
    assert base is not None
    half = segments.search_half(len(base))
    found = segments.search(base - candidate, segments.columns_of(CHECK, at), CHECK)
    assert 1 <= len(found) <= CHECK.beam
    for segment in found:
        assert len(segment.columns) == len(set(segment.columns)) <= CHECK.depth
        assert (segment.members & half).sum() >= CHECK.support
        assert (segment.members & ~half).sum() >= CHECK.support


def test_the_halves_part_the_samples() -> None:
    half = segments.search_half(1001)
    assert half.sum() == 500
    assert (half == segments.search_half(1001)).all()


def test_a_column_that_is_not_there_and_too_few_samples_are_told() -> None:
    at = evidence(1, planted=0.0, n=60)
    with pytest.raises(ConfigError, match="no column 'zone'"):
        segments.columns_of(SegmentsCheck(columns=("zone",), max_drop=0.1), at)
    found = findings_of((CHECK,), at, alpha_pass=0.05, alpha_fail=0.01)[0]
    assert found.outcome == "INVALID"
    assert "no segment has" in found.reason


def test_columns_are_derived_where_samples_carry_none() -> None:
    inputs = {"image": np.random.default_rng(0).random((5, 1, 4, 4)), "text": np.array(["a", "bb", "", "c", "dd"])}
    found = segments.derived(inputs, np.arange(5))
    assert set(found) == {"class", "image mean", "image spread", "text length"}
    assert found["text length"].tolist() == [1, 2, 0, 1, 2]
    ids = np.array([[5, 6, 0], [7, 0, 0]])
    assert segments.derived({"ids": ids}, np.zeros(2))["ids length"].tolist() == [2, 1]
