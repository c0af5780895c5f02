"""JUnit, Markdown and next steps: what CI systems and pull requests are told of each outcome."""

from collections.abc import Callable
from dataclasses import replace
from xml.etree import ElementTree as xml

import pytest

from seatrial.bench.budget import Budget, Limit
from seatrial.bench.gating.judge import judge
from seatrial.bench.gating.pairs import GateRun, PinnedPrice
from seatrial.bench.report import gate_cost, next_steps, to_junit, to_markdown
from seatrial.bench.report.advice import MANY
from seatrial.bench.report.junit import Inconclusive
from seatrial.bench.verdict import Judged, Verdict

RunMaker = Callable[..., GateRun]
EVIL = "<b>&|`@all`\x00\ud800"


def cases(text: str) -> dict[str, xml.Element]:
    return {case.attrib["name"]: case for case in xml.fromstring(text).iter("testcase")}


def tags(text: str) -> dict[str, str]:
    """The kind of each case that is not simply passed."""
    found: dict[str, str] = {}
    for name, case in cases(text).items():
        kinds = [child.tag for child in case if child.tag != "system-out"]
        assert len(kinds) <= 1
        found |= {name: kinds[0]} if kinds else {}
    return found


def test_a_pass_is_one_green_case_per_rule_and_one_for_the_run(make_run: RunMaker, budget: Budget) -> None:
    verdict = judge(make_run(latency=0.6), budget)
    text = to_junit(verdict)
    assert tags(text) == {}
    assert len(cases(text)) == 1 + len(verdict.findings)
    suite = next(xml.fromstring(text).iter("testsuite"))
    assert (suite.attrib["tests"], suite.attrib["failures"]) == (str(1 + len(verdict.findings)), "0")


def test_a_fail_is_a_failure_of_its_rule(make_run: RunMaker, budget: Budget) -> None:
    found = tags(to_junit(judge(make_run(latency=1.5), budget)))
    assert found == {"p50 max_regression 0.05": "failure", "p99 max_regression 0.1": "failure"}


@pytest.mark.parametrize(("choice", "tag"), [("skip", "skipped"), ("fail", "failure")])
def test_what_could_not_be_told_is_a_skip_or_a_failure_by_choice(
    make_run: RunMaker, budget: Budget, choice: Inconclusive, tag: str
) -> None:
    verdict = judge(make_run(noise=0.12), budget)
    text = to_junit(verdict, inconclusive=choice)
    assert tags(text)["p50 max_regression 0.05"] == tag
    message = cases(text)["p50 max_regression 0.05"].find(tag)
    assert message is not None
    assert "certifiable" in message.attrib["message"]


def test_an_invalid_run_is_one_error_and_no_failure(make_run: RunMaker, budget: Budget) -> None:
    whole = make_run(latency=1.5)
    verdict = judge(replace(whole, records=whole.records[:8]), budget)
    assert verdict.outcome == "INVALID"
    found = tags(to_junit(verdict, whole))
    assert found.pop("the run itself") == "error"
    assert "failure" not in found.values()


def test_a_rule_that_is_only_told_never_fails(make_run: RunMaker, budget: Budget) -> None:
    limits = (Limit(metric="p50", max_regression=0.05, gating=False), Limit(metric="throughput", max_regression=0.05))
    verdict = judge(make_run(latency=1.5), replace(budget, limits=limits))
    assert verdict.outcome == "PASS"
    assert tags(to_junit(verdict, inconclusive="fail")) == {"p50 max_regression 0.05": "skipped"}


def test_whatever_a_server_says_stays_text(make_run: RunMaker, budget: Budget) -> None:
    run = make_run()
    named = replace(judge(run, budget), candidate=Judged(name=EVIL, digest=""), reasons=(EVIL,), outcome="FAIL")
    assert cases(to_junit(named, run))["the run itself"].find("failure") is not None
    marked = to_markdown(named, run)
    assert "<b>" not in marked
    assert "@all" not in marked
    marked.encode("utf-8", "surrogatepass")


def test_markdown_folds_the_details_and_keeps_the_verdict_above_them(make_run: RunMaker, budget: Budget) -> None:
    run = make_run(latency=1.5)
    verdict = judge(run, budget)
    text = to_markdown(verdict, run)
    assert text.startswith("## FAIL")
    assert text.index("What to do next") < text.index("<details>")
    assert text.count("<details>") == text.count("</details>") == 3
    assert "| **whole** |" in text
    assert "of machine time, $" in text


def verdict_of(make_run: RunMaker, budget: Budget, outcome: str) -> Verdict:
    run = make_run(**{"FAIL": {"latency": 1.5}, "INCONCLUSIVE": {"noise": 0.12}}.get(outcome, {}))
    return judge(replace(run, records=run.records[:4]) if outcome == "INVALID" else run, budget)


@pytest.mark.parametrize(
    ("outcome", "said"),
    [("FAIL", "waterfall"), ("INCONCLUSIVE", "pairs"), ("INVALID", "run the gate again")],
)
def test_every_outcome_but_a_pass_says_what_to_do(make_run: RunMaker, budget: Budget, outcome: str, said: str) -> None:
    verdict = verdict_of(make_run, budget, outcome)
    assert verdict.outcome == outcome
    assert said in " ".join(next_steps(verdict))
    assert next_steps(judge(make_run(latency=0.6), budget)) == ()


def test_metrics_with_the_same_advice_share_a_step(make_run: RunMaker, budget: Budget) -> None:
    steps = next_steps(judge(make_run(latency=1.5, throughput=0.5), budget))
    assert [step.split(":")[0] for step in steps] == ["p50, p99", "throughput", "cost"]


def settled_by(make_run: RunMaker, budget: Budget, noise: float, margin: float) -> tuple[Verdict, int]:
    """A verdict that one metric leaves open, and how many pairs it needs."""
    limits = (Limit(metric="p50", max_regression=margin),)
    verdict = replace(judge(make_run(noise=noise), replace(budget, limits=limits)), seconds=120.0)
    return verdict, max(each.pairs_needed or 0 for each in verdict.findings)


def test_more_pairs_are_asked_for_as_many_as_the_findings_need(make_run: RunMaker, budget: Budget) -> None:
    verdict, needed = settled_by(make_run, budget, 0.12, 0.15)
    assert verdict.pairs < needed <= MANY
    takes = f"about {needed * 2 / verdict.pairs:.0f} minutes"
    assert next_steps(verdict)[0] == f"set design.pairs to {needed} in the budget, {takes}, and run the gate again"


def test_where_pairs_are_the_wrong_means_it_says_so(make_run: RunMaker, budget: Budget) -> None:
    verdict, needed = settled_by(make_run, budget, 0.12, 0.05)
    assert needed > MANY
    assert "too noisy" in next_steps(verdict)[0]
    assert f"{needed} pairs" in next_steps(verdict)[0]


def test_the_gate_s_own_cost_is_machine_time_at_the_pinned_price(make_run: RunMaker, budget: Budget) -> None:
    run = make_run()
    verdict = judge(run, budget)
    assert gate_cost(replace(verdict, seconds=3600.0), run) == pytest.approx(0.08925)
    timed = replace(run, records=tuple(replace(record, seconds=30.0) for record in run.records))
    assert gate_cost(verdict, timed) == pytest.approx(0.08925 * 30 * len(run.records) / 3600)
    assert gate_cost(verdict, replace(run, header=replace(run.header, price=PinnedPrice()))) is None
