"""When to heal: an exhaustive table, a suspicion before a certainty, and an end to trying."""

import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st

from serve.triton.upkeep.healing import FINDINGS, STATES, TABLE, Backoff, Finding, Watch, advance

FINDING = st.sampled_from(FINDINGS)


def test_every_state_knows_every_finding() -> None:
    assert set(TABLE) == set(itertools.product(STATES, FINDINGS))


@pytest.mark.parametrize(("finding", "looks"), [("broken", 1), ("late", 2)])
def test_a_certainty_is_healed_at_once_and_a_suspicion_at_the_second_look(finding: Finding, looks: int) -> None:
    watch, acts = Watch(), []
    for now in range(1, looks + 1):
        watch, act = advance(watch, finding, "why", float(now), Backoff())
        acts.append(act)
    assert acts == ["nothing"] * (looks - 1) + ["heal"]
    assert (watch.reason, watch.since, watch.restarts) == ("why", 1.0, 1)
    watch, act = advance(watch, "ok", "", 9.0, Backoff())
    assert (watch.state, act, watch.restarts) == ("serving", "healed", 1)


@given(findings=st.lists(FINDING, max_size=40))
def test_a_busy_version_is_never_healed(findings: list[Finding]) -> None:
    watch = Watch()
    for now, finding in enumerate(findings):
        watch, _ = advance(watch, finding, "", float(now), Backoff())
    for now in range(100, 110):
        watch, act = advance(watch, "busy", "", float(now), Backoff())
        assert watch.state == "serving"
        assert act in ("nothing", "healed")


@given(gaps=st.lists(st.floats(0.01, 20.0), min_size=1, max_size=200), limit=st.integers(1, 6))
def test_attempts_are_bounded_in_any_window_and_pauses_double(gaps: list[float], limit: int) -> None:
    backoff, watch, now, heals = Backoff(limit=limit, window=50.0, pause=1.0), Watch(), 0.0, []
    for gap in gaps:
        now += gap
        watch, act = advance(watch, "broken", "dead", now, backoff)
        if act == "heal":
            heals.append(now)
    for at in heals:
        within = [each for each in heals if at <= each < at + backoff.window]
        assert len(within) <= limit
        assert all(b - a >= 2.0**place for place, (a, b) in enumerate(itertools.pairwise(within)))


def test_giving_up_is_told_once_and_ends_when_it_answers_again() -> None:
    watch, acts, now = Watch(), [], 0.0
    while watch.state != "given up":
        now += 1.0
        watch, act = advance(watch, "broken", "dead", now, Backoff(limit=2))
        acts.append(act)
    assert acts.count("heal") == 2
    assert acts[-1] == "give up"
    assert advance(watch, "broken", "dead", now + 1000, Backoff(limit=2))[1] == "nothing"
    assert advance(watch, "ok", "", now + 1001, Backoff(limit=2))[1] == "healed"
