"""Criteria: three outcomes, and an offline metric that decides a KPI only once it was shown to follow it."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from seatrial.bench.budget import load_budget
from seatrial.bench.verdict import EvaluationSet, Finding, Judged, Verdict
from seatrial.optimize.errors import ConfigError
from seatrial.serve.errors import RegistryError
from seatrial.serve.release.assessing import assessed
from seatrial.serve.release.criteria import Criteria, Kpi, Required, assess, load_criteria
from seatrial.serve.release.record import Release
from seatrial.serve.release.review import Realised, Reviews, compared, pairs
from seatrial.serve.release.surrogate import LEAST, Pair, shown

ROOT = Path(__file__).resolve().parents[3]
KPI = Kpi(unit="share", direction="up", minimum_effect=0.01, owner="shop", metric="quality")


def finding(metric: str = "quality", outcome: Any = "PASS", **changes: Any) -> Finding:
    values: dict[str, Any] = {"unit": "", "rule": "max_drop", "gating": True, "reason": f"{metric} {outcome}"}
    return Finding(metric=metric, outcome=outcome, **values | {"margin": 0.0} | changes)


def verdict(*findings: Finding, outcome: Any = "PASS", budget: str = "sha256:b") -> Verdict:
    return Verdict(
        outcome=outcome,
        findings=findings,
        reasons=(),
        base=Judged(name="base", digest="sha256:a"),
        candidate=Judged(name="candidate", digest="sha256:c"),
        pairs=6,
        confidence=0.9,
        budget=budget,
        samples=EvaluationSet(count=0, digest=""),
        at="2026",
    )


def criteria(*required: Required, **kpis: Kpi) -> Criteria:
    return Criteria(schema=1, name="net", purpose="p", owner="o", budget="budget.toml", require=required, kpi=kpis)


def outcome(required: Required, *findings: Finding) -> str:
    return assess(criteria(required), verdict(*findings), budget="sha256:b", past={}).outcome


P99 = {"unit": "s", "candidate": 0.04, "interval": (0.038, 0.043)}


@pytest.mark.parametrize(
    ("required", "findings", "expected"),
    [
        (Required(metric="quality"), [finding()], "PASS"),
        (Required(metric="quality"), [], "INCONCLUSIVE"),
        (Required(metric="quality"), [finding(outcome="FAIL")], "FAIL"),
        (Required(metric="quality"), [finding(), finding(outcome="INCONCLUSIVE")], "INCONCLUSIVE"),
        (Required(metric="group", about="women"), [finding("group", about="men")], "INCONCLUSIVE"),
        (Required(metric="group", about="women"), [finding("group", about="women")], "PASS"),
        (Required(metric="group", about="women"), [finding("group")], "INCONCLUSIVE"),
        (Required(metric="group"), [finding("group", about="men", outcome="FAIL")], "FAIL"),
        (Required(metric="p99", at_most=0.05), [finding("p99", **P99)], "PASS"),
        (Required(metric="p99", at_most=0.041), [finding("p99", **P99)], "INCONCLUSIVE"),
        (Required(metric="p99", at_most=0.03), [finding("p99", **P99)], "FAIL"),
        (Required(metric="p99", at_least=0.03), [finding("p99", **P99)], "PASS"),
        (Required(metric="p99", at_least=0.039), [finding("p99", **P99)], "INCONCLUSIVE"),
        (Required(metric="p99", at_least=0.05), [finding("p99", **P99)], "FAIL"),
        (Required(metric="p99", at_most=0.041), [finding("p99", **P99, ratio=1.0)], "PASS"),
        (Required(metric="p99", at_most=0.041), [finding("p99")], "INCONCLUSIVE"),
    ],
)
def test_a_required_finding_has_three_outcomes(required: Required, findings: list[Finding], expected: str) -> None:
    assert outcome(required, *findings) == expected


def test_a_verdict_by_another_budget_does_not_count() -> None:
    found = assess(criteria(), verdict(budget="sha256:other"), budget="sha256:b", past={})
    assert found.outcome == "INCONCLUSIVE"
    assert "another budget" in found.reasons[0]


def past(noise: float, count: int = 12, sign: float = 1.0) -> list[Pair]:
    random = np.random.default_rng(5)
    offline = random.uniform(0.8, 0.9, count)
    realised = sign * offline + random.normal(0, noise, count)
    return [
        Pair(release=f"net@{at}", offline=float(one), realised=float(other))
        for at, (one, other) in enumerate(zip(offline, realised, strict=True))
    ]


@pytest.mark.parametrize(
    ("pairs_", "open_"),
    [([], ("kpi",)), (past(0.001)[: LEAST - 1], ("kpi",)), (past(5.0), ("kpi",)), (past(0.001), ())],
)
def test_an_offline_metric_passes_a_kpi_only_once_it_was_shown_to_follow_it(
    pairs_: list[Pair], open_: tuple[str, ...]
) -> None:
    found = assess(criteria(kpi=KPI), verdict(finding()), budget="sha256:b", past={"kpi": pairs_})
    assert (found.outcome, found.open) == ("PASS", open_)
    assert ("KPI kpi" in [each.name for each in found.criteria]) == (not open_)


def test_an_offline_metric_may_block_a_kpi_that_it_was_not_shown_to_follow() -> None:
    found = assess(criteria(kpi=KPI), verdict(finding(outcome="FAIL")), budget="sha256:b", past={})
    assert (found.outcome, found.open) == ("FAIL", ())


@pytest.mark.parametrize(
    ("direction", "larger", "sign", "follows"),
    [("up", True, 1, True), ("up", True, -1, False), ("down", True, -1, True), ("down", False, 1, True)],
)
def test_the_correlation_must_have_the_right_sign(direction: Any, larger: bool, sign: float, follows: bool) -> None:
    kpi = replace(KPI, direction=direction, larger_metric=larger)
    found = assess(criteria(kpi=kpi), verdict(finding()), budget="sha256:b", past={"kpi": past(0.001, sign=sign)})
    assert (found.open == ()) == follows


@given(st.lists(st.tuples(st.floats(-1e6, 1e6), st.floats(-1e6, 1e6)), max_size=20))
def test_the_interval_holds_the_correlation_of_numpy(values: list[tuple[float, float]]) -> None:
    found = shown([Pair(release="r", offline=a, realised=b) for a, b in values], follows=1)
    if found.correlation is None:
        return
    assert found.low is not None
    assert found.high is not None
    assert found.low - 1e-9 <= found.correlation <= found.high + 1e-9
    assert found.correlation == pytest.approx(np.corrcoef(np.array(values).T)[0, 1], abs=1e-6)


def test_correlations_of_noise_are_taken_for_one_as_rarely_as_promised() -> None:
    random = np.random.default_rng(20261201)
    taken = 0
    for _ in range(2000):
        one, other = random.normal(size=(2, 8))
        rows = [Pair(release="r", offline=a, realised=b) for a, b in zip(one.tolist(), other.tolist(), strict=True)]
        taken += shown(rows, follows=1).follows
    assert taken / 2000 < 0.04  # 2.5 % are promised


def test_the_example_is_legal_and_its_budget_is_there() -> None:
    path = ROOT / "serve" / "criteria" / "example.toml"
    found = load_criteria(path)
    assert load_budget(path.parent / found.budget).digest.startswith("sha256:")


def written(folder: Path, text: str = "") -> Path:
    (folder / "criteria.toml").write_text(
        f'schema = 1\nname = "net"\npurpose = "p"\nowner = "o"\nbudget = "{ROOT}/bench/budgets/scenes.toml"\n{text}'
    )
    return folder / "criteria.toml"


@pytest.mark.parametrize(
    ("text", "findings", "code"),
    [
        ('[[require]]\nmetric = "quality"\n', [], 3),
        ('[[require]]\nmetric = "quality"\n', [finding(outcome="FAIL")], 1),
    ],
)
def test_register_leaves_with_the_code_of_the_criteria(
    tmp_path: Path, text: str, findings: list[Finding], code: int
) -> None:
    path = written(tmp_path, text)
    budget = load_budget(ROOT / "bench/budgets/scenes.toml").digest
    with pytest.raises(RegistryError, match="does not meet its criteria") as caught:
        assessed("net", verdict(*findings, budget=budget), path, home=tmp_path)
    assert caught.value.exit_code == code
    met = assessed("net", verdict(finding(), budget=budget), path, home=tmp_path)
    assert met is not None
    assert met.outcome == "PASS"
    with pytest.raises(RegistryError, match="criteria of net, not of other"):
        assessed("other", verdict(finding(), budget=budget), path, home=tmp_path)


def test_no_criteria_ask_for_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert assessed("net", verdict(), None, home=tmp_path) is None


@pytest.mark.parametrize(
    ("was", "is_", "said"),
    [
        ("schema = 1", "schema = 2", "schema 2"),
        ('name = "net"', 'name = "../net"', "release name"),
        ("schema = 1", "schema = 1\nkpis = 3", "kpis"),
    ],
)
def test_wrong_criteria_are_refused(tmp_path: Path, was: str, is_: str, said: str) -> None:
    path = written(tmp_path)
    path.write_text(path.read_text().replace(was, is_))
    with pytest.raises(ConfigError, match=said):
        load_criteria(path)


def release(version: int, quality: float) -> Release:
    values = {"findings": [{"metric": "quality", "unit": "share", "candidate": quality, "about": ""}]}
    return Release(
        name="net", version=version, digest="sha256:" + "1" * 64, verdict=values, run="", at="2026", previous=""
    )


def test_a_review_sets_what_was_realised_beside_what_was_promised(tmp_path: Path) -> None:
    reviews, one = Reviews(tmp_path), release(1, 0.9)
    for value in (0.80, 0.88):
        reviews.add(Realised(release="net@1", kpi="quality", value=value, at="2026", low=value - 0.1, high=1.0))
    reviews.add(Realised(release="net@1", kpi="conversion", value=0.03, at="2026"))
    reviews.add(Realised(release="net@2", kpi="conversion", value=0.04, at="2026"))
    rows = compared(one, reviews.of("net"))
    assert [(each.figure, each.promised, each.realised) for each in rows] == [
        ("quality", 0.9, 0.88),
        ("conversion", None, 0.03),
    ]
    both = pairs([one, release(2, 0.95), release(3, 0.7)], reviews.of("net"), kpi="conversion", metric="quality")
    assert [(each.offline, each.realised) for each in both] == [(0.9, 0.03), (0.95, 0.04)]
    with pytest.raises(ConfigError, match="does not lie in"):
        reviews.add(Realised(release="net@1", kpi="conversion", value=0.5, at="2026", low=0.6, high=0.7))
