"""The suite end to end in memory: what is asked, kept and judged; each sabotage fails by the check that is about it."""

import json
from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from seatrial.bench.checks import Check
from seatrial.bench.errors import AnswerError
from seatrial.bench.measurement import NOTHING
from seatrial.bench.quality.adversarial import AdversarialCheck
from seatrial.bench.quality.assess import assess
from seatrial.bench.quality.calibration import CalibrationCheck
from seatrial.bench.quality.corruption import CorruptionCheck
from seatrial.bench.quality.defaults import default_checks
from seatrial.bench.quality.drift import DriftCheck
from seatrial.bench.quality.evidence import Evidence, PackedNumbers, Share, gathered, packed, unpacked
from seatrial.bench.quality.fairness import FairnessCheck
from seatrial.bench.quality.findings import findings_of
from seatrial.bench.quality.metrics import MetricCheck
from seatrial.bench.quality.segments import SegmentsCheck
from seatrial.bench.quality.suite import Ask, Suite, shares, spread
from seatrial.bench.verdict import Finding
from seatrial.optimize.errors import ConfigError, IntegrityError
from seatrial.optimize.reading import decode
from seatrial.optimize.recipe.metrics import accuracy
from seatrial.optimize.record import as_json
from seatrial.optimize.samples import Samples

Array = np.ndarray[Any, np.dtype[Any]]
Model = Callable[[Array], Array]
N, CLASSES = 2000, 5
CENTRES = 3 * np.eye(CLASSES, 8)
CHECKS: tuple[Check, ...] = (
    MetricCheck(metric="accuracy", max_drop=0.05),
    MetricCheck(metric="f1_macro", max_drop=0.05),
    CalibrationCheck(statistic="ece", max_drop=0.02),
    CalibrationCheck(statistic="nll", max_drop=0.2),
    SegmentsCheck(columns=("site", "class"), max_drop=0.15),
    CorruptionCheck(corruption="noise", max_drop=0.02),
    FairnessCheck(by="class", max_drop=0.10),
    FairnessCheck(by="site", statistic="gap", max_drop=0.10),
    DriftCheck(statistic="flips", at_most=0.10),
    DriftCheck(statistic="psi", at_most=0.25),
)


def samples(seed: int = 0) -> Samples:
    random = np.random.default_rng(seed)
    labels = random.integers(0, CLASSES, N)
    x = (CENTRES[labels] + random.normal(size=(N, 8))).astype(np.float32)
    return Samples(split="evaluation", inputs={"x": x}, labels=labels, columns={"site": random.choice(["a", "b"], N)})


SAMPLES = samples()


def base(x: Array) -> Array:
    """Nearest centre, as logits."""
    return np.asarray(3 * x @ CENTRES.T.astype(np.float32) / 3)


def score(outputs: Mapping[str, Array], labels: Array) -> Array:
    return accuracy(outputs["logits"], labels)


def suite(checks: tuple[Check, ...] = CHECKS) -> Suite:
    made = Suite(checks=checks, samples=SAMPLES, metric=score)
    made.ready()
    return made


def answering(model: Model) -> Ask:
    return lambda inputs: {"logits": model(inputs["x"])}


def evidence(candidate: Model, checks: tuple[Check, ...] = CHECKS, parts: int = 4) -> Evidence:
    """Both arms asked in shares, through JSON as a run keeps it."""
    asked = [list(shares(suite(checks), answering(model), parts)) for model in (base, candidate)]
    return gathered(*([Share.from_json(json.loads(json.dumps(each.to_json()))) for each in arm] for arm in asked))


def judged(candidate: Model, checks: tuple[Check, ...] = CHECKS) -> dict[str, Finding]:
    found = findings_of(checks, evidence(candidate, checks), alpha_pass=0.05, alpha_fail=0.01)
    return {finding.metric: finding for finding in found}


def beyond(findings: Mapping[str, Finding]) -> set[str]:
    """What would FAIL even if Holm corrected by the number of findings."""
    return {name for name, each in findings.items() if each.p is not None and len(findings) * each.p <= 0.01}


def test_equal_arms_pass_every_check() -> None:
    found = judged(base)
    assert {each.outcome for each in found.values()} == {"PASS"}, found
    assert not beyond(found)


def blind_to_one(x: Array) -> Array:
    """Half of class 3 goes unseen: a tenth of all samples at most."""
    logits = base(x).copy()
    logits[x[:, 7] > 0, 3] -= 20
    return logits


def overconfident(x: Array) -> Array:
    return 8 * base(x)


def fragile(x: Array) -> Array:
    """As good as the base, as long as an unused element keeps within what clean samples show."""
    logits = base(x).copy()
    broken = np.abs(x[:, 5:]).max(axis=1) > 2.6
    logits[broken] = np.roll(logits[broken], 1, axis=1)
    return logits


def jittery(x: Array) -> Array:
    """Answers that move both ways, and no accuracy lost that its margin would not forgive."""
    return np.asarray(base(x) + 6 * np.sin(1000 * x[:, :CLASSES]))


@pytest.mark.parametrize(
    ("sabotage", "by", "not_by"),
    [
        (blind_to_one, {"fairness worst score by class", "worst segment"}, {"corruption noise loss"}),
        (overconfident, {"calibration ece", "calibration nll"}, {"metric accuracy", "drift flips", "worst segment"}),
        (fragile, {"corruption noise loss"}, {"metric accuracy", "fairness worst score by class"}),
        (jittery, {"drift flips"}, {"fairness gap score by site"}),
    ],
)
def test_a_sabotage_fails_by_the_check_that_is_about_it(sabotage: Model, by: set[str], not_by: set[str]) -> None:
    found = judged(sabotage)
    assert by <= beyond(found), {name: (each.p, each.reason) for name, each in found.items()}
    assert not beyond(found) & not_by


def test_within_by_value_and_beyond_by_its_bound_is_neither() -> None:
    def loses_a_little(x: Array) -> Array:
        logits = base(x).copy()
        hit = np.modf(1000 * np.abs(x[:, 5]))[0] < 0.035
        logits[hit] = np.roll(logits[hit], 1, axis=1)
        return logits

    check = MetricCheck(metric="accuracy", max_drop=0.04)
    found = judged(loses_a_little, (check,))[check.label]
    assert found.difference is not None
    assert found.interval is not None
    assert -0.04 < found.difference < -0.03
    assert found.interval[0] < -0.04
    assert found.outcome == "INCONCLUSIVE"
    assert judged(loses_a_little, (MetricCheck(metric="accuracy", max_drop=0.06),))[check.label].outcome == "PASS"


def test_the_reason_names_the_class_and_what_it_lost() -> None:
    found = judged(blind_to_one)["fairness worst score by class"]
    assert "class 3" in found.reason
    assert found.base is not None
    assert found.candidate is not None
    assert found.base - found.candidate == pytest.approx(-(found.difference or 0))
    assert found.base > 0.9 > 0.6 > found.candidate


def test_corruption_tells_every_severity_and_drops_as_it_grows() -> None:
    check = CorruptionCheck(corruption="noise", statistic="score", at_least=0.1, samples=400)
    finding = judged(base, (check,))[check.label]
    told = [float(each) for each in finding.reason.split("candidate ")[-1].rstrip(".").split(", ")]
    assert len(told) == 5
    assert told[0] > told[4]
    assert finding.n == 400
    assert finding.candidate == pytest.approx(np.mean(told), abs=1e-3)


@pytest.mark.parametrize("parts", [3, 8])
def test_findings_do_not_depend_on_how_the_set_was_cut(parts: int) -> None:
    """Clean answers are the same however many pairs share them; only the noise is drawn per share."""
    still = tuple(check for check in CHECKS if check.kind in ("metric", "segments", "fairness"))
    one, other = (
        findings_of(still, evidence(blind_to_one, still, cut), alpha_pass=0.05, alpha_fail=0.01) for cut in (1, parts)
    )
    assert one == other


def test_arms_that_were_not_asked_the_same_are_refused() -> None:
    asked = [list(shares(suite(), answering(base), 2)) for _ in range(2)]
    other = {"noise:1:0": "sha256:other"}
    asked[1][0] = replace(asked[1][0], asked=replace(asked[1][0].asked, digests=other))
    with pytest.raises(IntegrityError, match="did not receive the same samples"):
        gathered(*asked)
    with pytest.raises(IntegrityError, match="lacks"):
        gathered([NOTHING, NOTHING], [NOTHING, NOTHING])


def test_alone_a_model_has_levels_and_no_drops() -> None:
    checks: tuple[Check, ...] = (
        MetricCheck(metric="accuracy", at_least=0.8),
        MetricCheck(metric="accuracy", k=1, max_drop=0.1),
        DriftCheck(at_most=0.1),
    )
    alone = gathered(None, list(shares(suite(checks), answering(base), 3)))
    level, drop, drift = findings_of(checks, alone, alpha_pass=0.05, alpha_fail=0.01)
    assert level.outcome == "PASS"
    assert level.base is None
    assert drop.outcome == drift.outcome == "INVALID"
    assert "no base" in drop.reason


@pytest.mark.parametrize(
    ("check", "says"),
    [
        (CorruptionCheck(corruption="blur", max_drop=0.1), "applies to none"),
        (FairnessCheck(by="zone", max_drop=0.1), "no column 'zone'"),
        (AdversarialCheck(epsilon=0.1, max_drop=0.1), "no attacked inputs"),
    ],
)
def test_what_cannot_be_asked_is_told_before_anything_is_served(check: Check, says: str) -> None:
    with pytest.raises(ConfigError, match=says):
        suite((check,))


@pytest.mark.parametrize(
    "check",
    [
        MetricCheck(metric="retrieval", k=3, max_drop=0.02),
        MetricCheck(metric="top_k", k=2, at_least=0.9),
        MetricCheck(metric="score", max_drop=0.02),
        CalibrationCheck(statistic="brier", at_most=0.3),
        DriftCheck(statistic="cosine", at_least=0.99),
        DriftCheck(statistic="difference", at_most=0.01),
        DriftCheck(statistic="ks", at_most=0.05),
        DriftCheck(statistic="jensen_shannon", at_most=0.01),
        FairnessCheck(by="site", rate="selection", positive=2, statistic="gap", at_most=0.15),
        FairnessCheck(by="site", rate="tpr", positive=2, at_least=0.7),
        FairnessCheck(by="site", rate="fpr", positive=2, statistic="gap", max_drop=0.05),
        SegmentsCheck(at_least=0.6),
    ],
)
def test_every_other_statistic_passes_on_equal_arms(check: Check) -> None:
    found = judged(base, (check,))[check.label]
    assert found.outcome == "PASS", found


def test_a_regression_is_judged_by_its_errors() -> None:
    x = np.random.default_rng(0).normal(size=(600, 3)).astype(np.float32)
    labels = x.sum(axis=1)
    told = Samples(split="evaluation", inputs={"x": x}, labels=labels)
    checks: tuple[Check, ...] = tuple(MetricCheck(metric=name, max_drop=0.02) for name in ("rmse", "mae", "r2"))
    made = Suite(checks=checks, samples=told, metric=lambda outputs, known: -np.abs(outputs["y"][:, 0] - known))
    noise = np.random.default_rng(1).normal(size=(600, 1)) * 0.3

    def asked(spread_: float) -> list[Share]:
        return list(
            shares(made, lambda inputs: {"y": inputs["x"].sum(axis=1, keepdims=True) + spread_ * noise}, parts=1)
        )

    found = findings_of(checks, gathered(asked(1), asked(1)), alpha_pass=0.05, alpha_fail=0.01)
    assert {each.outcome for each in found} == {"PASS"}
    found = findings_of(checks, gathered(asked(1), asked(1.5)), alpha_pass=0.05, alpha_fail=0.01)
    assert all(each.p is not None and each.p < 0.003 for each in found), found


@given(st.sampled_from(["<f4", "<i8", "|b1", "|u1"]), st.integers(0, 30))
def test_arrays_survive_being_packed(dtype: str, size: int) -> None:
    array = np.random.default_rng(size).integers(0, 2, (size, 2)).astype(dtype)
    back = unpacked(decode(PackedNumbers, json.loads(json.dumps(as_json(packed(array)))), where=""))
    assert back.dtype == array.dtype
    assert np.array_equal(back, array)
    with pytest.raises(IntegrityError):
        unpacked(PackedNumbers(dtype=dtype, shape=(size + 1, 3), data=""))


def test_a_spread_is_even_and_never_more_than_there_is() -> None:
    assert spread(10, 100).tolist() == list(range(10))
    assert spread(101, 3).tolist() == [0, 50, 100]


def test_a_model_that_breaks_on_spoiled_inputs_is_told_with_which() -> None:
    def ask(inputs: Mapping[str, Array]) -> Mapping[str, Array]:
        if np.abs(inputs["x"]).max() > 2 * np.abs(SAMPLES.inputs["x"]).max() - 1e-3:
            raise AnswerError("the answer contains 1 NaN or infinite numbers of 5", where="output 'logits' of m")
        return {"logits": base(inputs["x"])}

    check = CorruptionCheck(corruption="scale", max_drop=0.1)
    with pytest.raises(AnswerError) as raised:
        list(shares(suite((check,)), ask, 1))
    assert "scale:5" in raised.value.where


def test_outputs_too_wide_to_keep_are_invalid_and_the_scores_still_count(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("seatrial.bench.quality.suite.MOST", 1000)
    found = judged(base, (MetricCheck(metric="score", max_drop=0.05), DriftCheck(at_most=0.1)))
    assert found["metric score"].outcome == "PASS"
    assert found["drift flips"].outcome == "INVALID"
    assert "kept" in found["drift flips"].reason


def test_a_default_look_asks_what_the_samples_allow() -> None:
    both = default_checks(SAMPLES, against=True, attack=True)
    alone = default_checks(SAMPLES, against=False, attack=False)
    assert not any(check.gating for check in (*both, *alone))
    assert {check.kind for check in both} == {
        "metric", "calibration", "fairness", "segments", "corruption", "adversarial", "drift",
    }  # fmt: skip
    assert {check.kind for check in alone} == {"metric", "calibration", "fairness", "segments", "corruption"}
    assert {check.corruption for check in both if isinstance(check, CorruptionCheck)} == {
        "noise", "missing", "scale", "rounding",
    }  # fmt: skip
    assert len({check.label for check in both}) == len(both)


def test_an_assessment_judges_by_gating_checks_alone() -> None:
    told = (MetricCheck(metric="score", max_drop=0.0, gating=False),)
    assert assess(suite(told), answering(base), answering(base)).outcome is None
    failed = assess(suite(CHECKS), answering(blind_to_one), answering(base))
    assert failed.outcome == "FAIL"
    assert failed.exit_code == 1
    assert json.loads(json.dumps(failed.to_json()))["outcome"] == "FAIL"
    assert assess(suite(CHECKS), answering(base), answering(base)).exit_code == 0
