"""When to heal: an exhaustive table, a suspicion before a certainty, and pauses that grow without an end to trying."""

import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st

from seatrial.serve.triton.supervision.healing import (
    FINDINGS,
    STATES,
    TABLE,
    Backoff,
    Finding,
    Watch,
    advance,
    ended,
    withdrawn,
)

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


@given(gaps=st.lists(st.floats(0.01, 20.0), min_size=1, max_size=200))
def test_pauses_double_up_to_the_longest_and_attempts_never_end(gaps: list[float]) -> None:
    backoff, watch, now, heals = Backoff(pause=1.0, ceiling=30.0), Watch(), 0.0, list[float]()
    for gap in gaps:
        now += gap
        watch, act = advance(watch, "broken", "dead", now, backoff)
        if act == "heal":
            heals.append(now)
    rounding = 1e-9  # of sums of floats
    over = [b - a - min(2.0**place, 30.0) for place, (a, b) in enumerate(itertools.pairwise(heals))]
    assert all(-rounding <= each <= 20.0 + rounding for each in over)
    assert advance(watch, "broken", "dead", now + 31.0, backoff)[1] == "heal"


def test_after_several_attempts_it_rests_in_between_and_says_so() -> None:
    watch, seen, now = Watch(), list[tuple[str, str]](), 0.0
    while now < 40.0:
        now += 0.5
        watch, act = advance(watch, "broken", "dead", now, Backoff(limit=2, ceiling=8.0))
        seen.append((watch.state, act))
    assert seen[0] == ("healing", "heal")
    assert ("resting", "nothing") in seen
    assert sum(act == "heal" for _, act in seen) == watch.restarts == 8  # after pauses of 1, 2, 4, 8, 8, 8, 8
    watch, act = advance(watch, "ok", "", now + 1.0, Backoff(limit=2))
    assert (watch.state, act) == ("serving", "healed")


def test_after_a_calm_time_the_pauses_are_short_again() -> None:
    backoff, watch, now = Backoff(calm=60.0, ceiling=1000.0), Watch(), 0.0
    for _ in range(4):
        now += 20.0
        watch, _ = advance(watch, "broken", "dead", now, backoff)
    watch, _ = advance(watch, "ok", "", now + 1.0, backoff)
    soon, act = advance(watch, "broken", "dead", now + 3.0, backoff)
    assert (act, len(soon.attempts)) == ("nothing", 4), "an illness that comes back at once is the same one"
    later, act = advance(watch, "broken", "dead", now + 61.1, backoff)
    assert (act, len(later.attempts)) == ("heal", 1)
    assert advance(later, "broken", "dead", now + 62.2, backoff)[1] == "heal", "the second pause is a second again"


def test_a_server_that_is_killed_whenever_it_comes_back_is_never_down_longer_than_the_longest_pause() -> None:
    """As a caller does it who sends the deadly request again as soon as somebody answers."""
    backoff, watch, now, down, longest = Backoff(ceiling=30.0), Watch(), 0.0, 0.0, 0.0
    while now < 3600.0:
        now += 0.5
        watch, act = advance(watch, "broken", "killed", now, backoff)
        if act == "heal":
            longest = max(longest, now - down)
            watch, _ = advance(ended(watch, now + 1.0), "ok", "", now + 1.0, backoff)
            now = down = now + 1.5
    assert 28.0 <= longest <= 30.5
    assert len(watch.attempts) <= 64, "what is remembered stays bounded"


def test_an_attempt_that_could_not_be_made_does_not_count() -> None:
    watch, _ = advance(Watch(restarts=3), "broken", "dead", 1.0, Backoff())
    assert (withdrawn(watch).restarts, withdrawn(watch).attempts) == (3, ())
    assert advance(withdrawn(watch), "broken", "dead", 1.5, Backoff())[1] == "heal"


@given(attempts=st.integers(0, 10_000), pause=st.floats(1e-6, 10.0), ceiling=st.floats(10.0, 1e6))
def test_no_number_of_attempts_makes_a_pause_longer_than_the_longest(
    attempts: int, pause: float, ceiling: float
) -> None:
    assert 0.0 <= Backoff(pause=pause, ceiling=ceiling).after(attempts) <= ceiling
