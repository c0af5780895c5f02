"""The reason of an INCONCLUSIVE finding and the advice after the verdict say the same, and what they say is so."""

import math
from dataclasses import replace

import numpy as np
import pytest

from seatrial.bench import stats
from seatrial.bench.gating.findings import _regression_reason
from seatrial.bench.gating.settling import pairs_to_settle, settling
from seatrial.bench.report import next_steps
from seatrial.bench.verdict import EvaluationSet, Finding, Judged, Verdict

SAID = {  # of each means: what the reason says, and what the advice may say
    "pairs": (
        "more pairs are needed",
        ("set design.pairs to", "pairs would be needed", "a change this close to the margin needs"),
    ),
    "margin": (
        "more pairs will not help: the effect is close to the margin",
        ("more pairs or samples will not help, because the effect is close to the margin",),
    ),
    "noise": ("even 400 pairs are not enough", ("too noisy for the margin with any number of pairs",)),
}


QUALITY: dict[str, object] = {"metric": "quality", "unit": "score", "method": "tango"}
LEVEL: dict[str, object] = {"metric": "p50", "method": "level", "bound": 0.015, "n": 6}


def inconclusive(effect: float, sd: float, margin: float, n: int = 8, direction: int = 1) -> Finding:
    """A finding as a run with that effect and noise (log scale, positive is worse) leaves it."""
    reach = stats._reach(0.05, n) * sd / math.sqrt(n)
    return Finding(
        metric="p99",
        unit="s",
        rule="max_regression",
        gating=True,
        outcome="INCONCLUSIVE",
        reason="",
        margin=math.expm1(margin),
        base=0.01,
        candidate=0.01 * math.exp(direction * effect),
        ratio=math.exp(direction * effect),
        interval=(math.exp(effect - reach), math.exp(effect + reach)),
        bound=math.exp(direction * margin),
        n=n,
        sd=sd,
        certifiable=0.1,
        blocking=0.2,
        pairs_needed=pairs_to_settle(sd, effect, margin, alpha=0.05),
        method="t",
    )


def told(finding: Finding) -> tuple[str, tuple[str, ...]]:
    """The reason and the advice."""
    reason = _regression_reason(finding, math.log((finding.interval or (1, 1))[1]), math.log1p(finding.margin), 60.0)
    verdict = Verdict(
        outcome="INCONCLUSIVE",
        findings=(replace(finding, reason=reason),),
        reasons=(),
        base=Judged(name="", digest=""),
        candidate=Judged(name="", digest=""),
        pairs=finding.n,
        confidence=0.9,
        budget="",
        samples=EvaluationSet(count=0, digest=""),
        at="",
        seconds=480.0,
    )
    return reason, next_steps(verdict)


@pytest.mark.parametrize("direction", [1, -1])
@pytest.mark.parametrize("seed", range(300))
def test_reason_and_advice_agree(seed: int, direction: int) -> None:
    random = np.random.default_rng(seed)
    margin = math.log1p(random.uniform(0.02, 0.5))
    effect = margin * random.uniform(-8, 2)
    finding = inconclusive(
        effect, margin * 10 ** random.uniform(-1, 1.5), margin, 2 * int(random.integers(2, 11)), direction
    )
    reason, steps = told(finding)
    means = settling(finding).means
    assert SAID[means][0] in reason
    [step] = steps
    assert any(words in step for words in SAID[means][1]), (reason, step)
    others = [words for name, (words, _) in SAID.items() if name != means]
    assert not any(words in reason for words in others)
    if abs(1 - effect / margin) >= 0.5:  # far from the margin, to either side
        assert "close to the margin" not in reason + step


def test_a_large_improvement_under_noise_is_not_close_to_the_margin() -> None:
    """A busy machine: 64.7 % better against 10 % worse allowed, and slots that differ tenfold."""
    reason, [step] = told(inconclusive(math.log(1 - 0.647), 2.0, math.log1p(0.1)))
    assert "even 400 pairs are not enough" in reason
    assert step.startswith("p99: this machine is too noisy for the margin with any number of pairs: reduce its load")


def test_the_pairs_that_it_names_settle_it() -> None:
    """Runs of so many pairs with the same true effect pass in 90 of 100 cases."""
    effect, margin, sd = 0.03, 0.1, 0.08
    needed = pairs_to_settle(sd, effect, margin, alpha=0.05)
    assert needed is not None
    random, order = np.random.default_rng(0), [1, -1] * (needed // 2)
    runs = [stats.paired(random.normal(effect, sd, needed), order) for _ in range(400)]
    passed = sum(stats.upper_bound(run, 0.05) < margin for run in runs)
    assert 0.85 <= passed / 400 <= 0.97


@pytest.mark.parametrize(
    ("finding", "means", "said"),
    [
        ({"metric": "leak", "unit": "B/1k", "method": "growth"}, "slots", "leak: lengthen the slots"),
        (QUALITY, "samples", "quality: evaluate on more samples"),
        (
            {
                "metric": "quality",
                "unit": "score",
                "method": "tango",
                "difference": -0.019,
                "bound": -0.02,
                "certifiable": 0.01,
            },
            "margin",
            "quality: more pairs or samples will not help, because the effect is close to the margin",
        ),
        (
            LEVEL | {"candidate": 0.01, "interval": (0.005, 0.02)},
            "pairs",
            "set design.pairs to 18",
        ),
        (
            LEVEL | {"candidate": 0.0149, "interval": (0.01, 0.02)},
            "margin",
            "p50: more pairs or samples will not help, because the effect is close to the margin",
        ),
    ],
)
def test_other_rules_have_means_of_their_own(finding: dict[str, object], means: str, said: str) -> None:
    blank = inconclusive(0.0, 0.1, 0.02)
    made = replace(blank, **({"ratio": None, "bound": 0.02, "margin": 0.02} | finding))  # type: ignore[arg-type]
    assert settling(made).means == means
    assert said in told(made)[1][0]
