"""The state machine: every phase under every event, and what no sequence of events may ever do."""

from dataclasses import replace
from itertools import product

import pytest
from hypothesis import given
from hypothesis import strategies as st

from seatrial.optimize.errors import ConfigError
from seatrial.serve.fleet import Health
from seatrial.serve.traffic.rollout.decision import Observation, advance, decide
from seatrial.serve.traffic.rollout.evidence import Evidence, Judgement
from seatrial.serve.traffic.rollout.machine import COMMANDS, ENDED, TABLE, Event, Phase, Rollout, desired, follow
from seatrial.serve.traffic.rollout.plan import Alphas, Margins, Plan, Step

PLAN = Plan(
    schema=1,
    steps=(Step(share=0.1, needs="requests"), Step(share=0.5), Step(share=1.0, needs="requests")),
    memory=1000,
)
ROLLOUT = Rollout(model="m", stable=1, candidate=2, digest="d", plan=PLAN, restarts=0, server_restarts=3)
WELL = Health(ok=True, memory=10)


def at(phase: Phase, before: Phase | None = None, step: int = 0) -> Rollout:
    return replace(ROLLOUT, phase=phase, before=before, step=step, routed=1.0, entered=1.0, resumed=1.0)


def verdict(outcome: str) -> Evidence:
    return Evidence(
        outcome=outcome,  # type: ignore[arg-type]
        blocks=3,
        candidate=10,
        baseline=10,
        findings=(),
        reasons=("so it is",),
        forecast="needs more",
    )


@pytest.mark.parametrize(("phase", "event"), list(product(Phase, Event)))
def test_every_phase_under_every_event(phase: Phase, event: Event) -> None:
    before = at(phase, Phase.STEP if phase is Phase.PAUSED else None)
    after = follow(before, event, at=9.0, reason="r")
    target = TABLE[phase].get(event)
    if target is None:
        assert after is before
    elif target == "where it was":
        assert (after.phase, after.before, after.step, after.entered) == (Phase.STEP, None, 0, 1.0)
    elif target == "next step":
        assert (after.phase, after.step) == (Phase.STEP, 1)
    else:
        assert after.phase is target
    assert desired(after).versions
    assert set(desired(after).routes.versions) <= {1, 2}


def test_the_table_speaks_of_every_phase_and_knows_the_ends() -> None:
    assert set(TABLE) == set(Phase)
    for phase, row in TABLE.items():
        if phase in ENDED:
            assert set(row) <= {Event.ROLLBACK}
        elif phase not in (Phase.ROLLING_BACK, Phase.ABORTING, Phase.PENDING):
            assert {Event.ABORT, Event.ROLLBACK, Event.FAULT} <= set(row), f"no way back from {phase}"
    for event in Event:
        assert any(event in row for row in TABLE.values()), f"{event} never does anything"


@given(st.lists(st.sampled_from(list(Event)), max_size=40))
def test_no_sequence_of_events_ends_in_nonsense(events: list[Event]) -> None:
    rollout = ROLLOUT
    harmed = False
    for event in events:
        before, rollout = rollout, follow(rollout, event, at=1.0, reason="")
        harmed |= rollout.phase is Phase.ROLLING_BACK
        assert rollout.step >= 0
        assert (rollout.phase is Phase.PAUSED) == (rollout.before is not None)
        if rollout.phase in (Phase.PROMOTING, Phase.PROMOTED):
            assert not harmed, "what went back was promoted"
            assert before.phase in (Phase.SHADOW, Phase.STEP, Phase.PAUSED, Phase.PROMOTING, Phase.PROMOTED)
        if event is Event.PASSED and before.phase is Phase.STEP and before.step + 1 >= len(PLAN.steps):
            return  # `decide` says "finished" there


@given(
    phase=st.sampled_from(list(Phase)),
    step=st.integers(0, 2),
    outcomes=st.tuples(*[st.sampled_from(["PASS", "FAIL", "INCONCLUSIVE"])] * 3),
    well=st.tuples(st.booleans(), st.booleans()),
    in_force=st.booleans(),
    command=st.sampled_from([None, *COMMANDS]),
)
def test_only_a_pass_in_a_world_as_wanted_moves_on(
    phase: Phase,
    step: int,
    outcomes: tuple[str, str, str],
    well: tuple[bool, bool],
    in_force: bool,
    command: Event | None,
) -> None:
    rollout = at(phase, Phase.STEP if phase is Phase.PAUSED else None, step)
    candidate, stable = (Health(ok=ok, reason="" if ok else "sick") for ok in well)
    golden, agreement = (Judgement(outcome=each) for each in outcomes[:2])  # type: ignore[arg-type]
    seen = Observation(
        at=5.0,
        in_force=in_force,
        candidate=candidate,
        stable=stable,
        command=command,
        golden=golden if rollout.active is Phase.GOLDEN else None,
        agreement=agreement if rollout.active is Phase.SHADOW else None,
        evidence=verdict(outcomes[2]) if rollout.active is Phase.STEP else None,
    )
    decision, after = advance(rollout, seen)
    asked = {Phase.GOLDEN: outcomes[0], Phase.SHADOW: outcomes[1], Phase.STEP: outcomes[2]}.get(phase)
    if decision.event in (Event.PASSED, Event.FINISHED):
        assert asked == "PASS"
        assert in_force
        assert command is None
        assert (decision.event is Event.FINISHED) == (phase is Phase.STEP and step == 2)
    if asked == "FAIL" and command is None:
        assert after.phase is Phase.ROLLING_BACK
    if asked == "INCONCLUSIVE" and all(well) and command is None:
        assert after.phase is phase
    assert after.intents == rollout.intents + (decision.event is command and command is not None)
    assert after.step < len(PLAN.steps)


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"candidate": Health(ok=False, reason="no answer")}, "no answer"),
        ({"candidate": Health(ok=True, restarts=2)}, "restarted 2 times"),
        ({"candidate": Health(ok=True, memory=2000)}, "2000 bytes, the limit is 1000"),
        ({"candidate": Health(ok=True, server_restarts=5)}, "server was restarted 2 times"),
        ({"refused": "bad plan file"}, "bad plan file"),
    ],
)
@pytest.mark.parametrize("phase", [Phase.GOLDEN, Phase.SHADOW, Phase.STEP, Phase.PAUSED, Phase.PROMOTING])
def test_faults_need_no_statistics(phase: Phase, changes: dict[str, object], said: str) -> None:
    rollout = at(phase, Phase.STEP if phase is Phase.PAUSED else None)
    seen = replace(Observation(at=5.0, in_force=True, candidate=WELL, stable=WELL), **changes)  # type: ignore[arg-type]
    decision, after = advance(rollout, replace(seen, command=Event.PROMOTE))
    assert decision.event is Event.FAULT
    assert said in decision.reason
    assert after.phase is Phase.ROLLING_BACK
    assert after.intents == 0, "the operator's word was not heard, and is still there"


@pytest.mark.parametrize("phase", [Phase.GOLDEN, Phase.SHADOW, Phase.STEP, Phase.PROMOTING])
def test_the_server_may_be_started_again_as_often_as_the_plan_says(phase: Phase) -> None:
    once = replace(WELL, server_restarts=4)
    seen = Observation(at=5.0, in_force=True, candidate=once, stable=once)
    assert advance(at(phase), seen)[0].event is not Event.FAULT
    strict = replace(at(phase), plan=replace(PLAN, server_restarts=0))
    assert advance(strict, seen)[0].event is Event.FAULT
    unknown = replace(strict, server_restarts=-1)  # a rollout that an older version began
    assert advance(unknown, seen)[0].event is not Event.FAULT


def test_what_was_brought_back_before_the_candidate_was_ready_is_not_held_against_it() -> None:
    seen = Observation(at=5.0, in_force=True, candidate=replace(WELL, restarts=7, server_restarts=9), stable=WELL)
    _, after = advance(at(Phase.LOADING), seen)
    assert (after.phase, after.restarts, after.server_restarts) == (Phase.GOLDEN, 7, 9)


def test_a_server_that_is_down_altogether_is_not_the_candidate_s_fault() -> None:
    sick = Health(ok=False, reason="connection refused")
    decision = decide(at(Phase.STEP), Observation(at=5.0, candidate=sick, stable=sick, evidence=verdict("PASS")))
    assert decision.event is None
    assert "connection refused" in decision.reason


@pytest.mark.parametrize("asked", ["", "10"])
def test_a_server_that_came_back_between_two_questions_says_nothing_of_the_candidate(asked: str) -> None:
    sick = Health(ok=False, reason="no server is up", server=asked)
    seen = Observation(at=5.0, candidate=sick, stable=Health(ok=True, server="11"), evidence=verdict("INCONCLUSIVE"))
    assert decide(at(Phase.STEP), seen).event is None
    same = replace(seen, stable=Health(ok=True, server=asked))
    assert decide(at(Phase.STEP), same).event is Event.FAULT


def test_the_longest_stay_pauses_and_a_slow_load_goes_back() -> None:
    late = Observation(at=1e6, in_force=True, candidate=WELL, stable=WELL, evidence=verdict("INCONCLUSIVE"))
    decision, paused = advance(at(Phase.STEP), late)
    assert paused.phase is Phase.PAUSED
    assert "so it is; needs more" in decision.reason
    loading = replace(late, candidate=Health(ok=False, reason="still loading"))
    assert advance(at(Phase.LOADING), loading)[1].phase is Phase.ROLLING_BACK
    _, resumed = advance(paused, replace(late, command=Event.RESUME))
    assert (resumed.phase, resumed.resumed) == (Phase.STEP, 1e6)
    assert advance(resumed, late)[1].phase is Phase.STEP, "the stay counts anew"


@pytest.mark.parametrize(
    ("make", "said"),
    [
        (lambda: Plan(schema=2, steps=PLAN.steps), "schema 2"),
        (lambda: Plan(schema=1, steps=()), "shares must increase"),
        (lambda: Plan(schema=1, steps=(Step(share=0.5), Step(share=0.1))), "shares must increase"),
        (lambda: Plan(schema=1, steps=PLAN.steps, block=0), "block must be above 0 and finite, got 0"),
        (lambda: Plan(schema=1, steps=PLAN.steps, drain=-1), "drain must be at least 0 and finite, got -1"),
        (lambda: Plan(schema=1, steps=PLAN.steps, block_requests=0), "block_requests must be at least 1"),
        (lambda: Step(share=1.0), "no baseline is left"),
        (lambda: Step(share=1.5), "share must be above 0 and at most 1, got 1.5"),
        (lambda: Step(share=0.5, requests=0), "requests must be at least 1"),
        (lambda: Step(share=0.5, dwell=float("inf")), "dwell must be above 0 and finite"),
        (lambda: Margins(errors=0.0), "errors must be above 0 and below 1"),
        (lambda: Alphas(mean=0.0), "mean must be above 0 and below 0.5, got 0.0"),
    ],
)
def test_a_plan_that_cannot_be_is_refused(make: "object", said: str) -> None:
    assert callable(make)
    with pytest.raises(ConfigError, match=said):
        make()
