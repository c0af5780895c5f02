"""The controller in a simulated world: whole rollouts, every fault, and a kill at every act."""

import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from seatrial.serve.errors import RolloutError
from seatrial.serve.traffic.rollout.controller import Controller, run
from seatrial.serve.traffic.rollout.evidence import Judgement
from seatrial.serve.traffic.rollout.explain import explain
from seatrial.serve.traffic.rollout.machine import ENDED, Event, Phase, Rollout
from seatrial.serve.traffic.rollout.plan import Plan, Step
from seatrial.serve.traffic.rollout.records import Records
from seatrial.serve.traffic.routes import Routes
from tests.support.rollout_world import CANDIDATE, QUICK, STABLE, Candidate, Killed, Simulated, begin

ROOT = Path(__file__).parent.parent.parent.parent
LONG = 400_000  # looks; nothing here takes as many


def moved(home: Path, simulated: Simulated, plan: Plan = QUICK, looks: int = LONG) -> Rollout:
    """The rollout after it ended, or paused."""
    records = begin(home, plan=plan)
    with records.acting():
        controller = Controller(records, simulated.world())
        for _ in range(looks):
            rollout = controller.tick()
            if rollout.ended or rollout.phase is Phase.PAUSED:
                return rollout
            simulated.sleep(plan.interval)
    raise AssertionError(f"still {rollout.label} after {looks} looks")


def back_to_stable(simulated: Simulated) -> bool:
    return simulated.routes == Routes(model="m", stable=STABLE) and simulated.loaded == {STABLE}


def test_a_good_candidate_is_promoted_step_by_step(tmp_path: Path) -> None:
    simulated = Simulated()
    assert moved(tmp_path, simulated).phase is Phase.PROMOTED
    assert simulated.routes == Routes(model="m", stable=CANDIDATE)
    assert simulated.loaded == {CANDIDATE}
    applied = [value for name, value in simulated.history if name == "routed"]
    assert [each.share for each in applied] == [0, 0, 0.05, 0.5, 1.0, 0]
    assert [each.mirror for each in applied] == [0, 0.5, 0, 0, 0, 0]


@pytest.mark.parametrize(
    ("candidate", "said"),
    [
        (Candidate(loads=False), "failed to poll"),
        (Candidate(golden=Judgement(outcome="FAIL", reasons=("3 answers differ",))), "3 answers differ"),
        (Candidate(agreement=Judgement(outcome="FAIL", reasons=("top-1 agrees in 61 %",))), "61 %"),
        (Candidate(breaks_at=60), "answers NaN"),
        (Candidate(restarted_at=60), "restarted"),
        (Candidate(memory=1 << 40), "bytes, the limit is"),
        (Candidate(slower=3.0), "mean latency"),
        (Candidate(errors=0.5), "errors"),
        (Candidate(refused=0.5), "4xx"),
    ],
    ids=["load", "golden", "shadow", "nan", "restart", "memory", "slow", "errors", "refused"],
)
def test_a_bad_candidate_goes_back_and_its_digest_is_blocked(tmp_path: Path, candidate: Candidate, said: str) -> None:
    simulated = Simulated(candidate=candidate)
    plan = replace(QUICK, memory=1 << 30, steps=(Step(share=0.2, requests=2000, needs="requests"), *QUICK.steps[1:]))
    rollout = moved(tmp_path, simulated, plan)
    assert rollout.phase is Phase.ROLLED_BACK
    assert said in rollout.reason
    assert back_to_stable(simulated)
    with pytest.raises(RolloutError, match="was rolled back"):
        begin(tmp_path)
    records = begin(tmp_path, digest="sha256:other", started=2_000_000.0)
    records.lift("sha256:new")
    assert records.blocked() == {}


def test_what_nobody_can_tell_pauses_and_never_passes(tmp_path: Path) -> None:
    silent = Simulated(silent=True)
    rollout = moved(tmp_path / "silent", silent)
    assert rollout.phase is Phase.PAUSED
    assert "too little traffic" in rollout.reason
    assert silent.routes is not None
    assert silent.routes.share == 0.05
    unsure = Simulated(candidate=Candidate(agreement=Judgement(outcome="INCONCLUSIVE", reasons=("12 answers so far",))))
    rollout = moved(tmp_path / "unsure", unsure)
    assert rollout.label == "paused at shadow"
    assert "12 answers so far" in rollout.reason


def test_a_paused_rollout_still_goes_back_when_it_is_shown_to_be_worse(tmp_path: Path) -> None:
    simulated = Simulated(candidate=Candidate(slower=2.0))
    plan = replace(QUICK, steps=(Step(share=0.5, requests=10**6, needs="requests", dwell=20),))
    records = begin(tmp_path, plan=plan)
    seen = []
    assert run(records, simulated.world(), look=lambda rollout: seen.append(rollout.phase)).phase is Phase.ROLLED_BACK
    assert Phase.PAUSED in seen


@pytest.mark.slow
def test_evidence_promotes_an_equal_candidate_and_the_log_replays(tmp_path: Path) -> None:
    step = Step(share=0.5, requests=4000)
    plan = replace(QUICK, steps=(step,), margins=replace(QUICK.margins, p95=0.3, p99=0.6, errors=0.01, refused=0.01))
    records = begin(tmp_path, plan=plan)
    assert run(records, Simulated(rate=40).world()).phase is Phase.PROMOTED
    told = list(explain(records.log()))
    assert all(each.agrees for each in told)
    assert any(each.evidence is not None and each.evidence.forecast for each in told)
    lie = replace(told[-1].entry, decision=replace(told[-1].entry.decision, event=Event.FAILED))
    assert not next(iter(explain(replace(records.log(), entries=(lie,))))).agrees


def test_operators_are_heard_in_the_order_in_which_they_spoke(tmp_path: Path) -> None:
    simulated, records = Simulated(), begin(tmp_path)
    controller = Controller(records, simulated.world())
    for _ in range(3):
        controller.tick()
        simulated.sleep(5)
    assert controller.rollout.phase is Phase.SHADOW
    for word in (Event.PAUSE, Event.RESUME, Event.PAUSE, Event.PROMOTE):  # as if nobody ran meanwhile
        records.say(word)
    again, phases = Controller(records, simulated.world()), []
    for _ in range(5):
        phases.append(again.tick().phase)
        simulated.sleep(5)
    assert phases == [Phase.PAUSED, Phase.SHADOW, Phase.PAUSED, Phase.PROMOTING, Phase.PROMOTING]
    assert run(records, simulated.world()).phase is Phase.PROMOTED
    records.say(Event.ROLLBACK)
    assert run(records, simulated.world()).phase is Phase.ROLLED_BACK
    assert back_to_stable(simulated)
    assert "sha256:new" in records.blocked()


def test_an_abort_goes_back_and_blocks_nothing(tmp_path: Path) -> None:
    simulated, records = Simulated(), begin(tmp_path)
    records.say(Event.ABORT)
    assert run(records, simulated.world()).phase is Phase.ABORTED
    assert records.blocked() == {}
    assert simulated.loaded == {STABLE}


def test_weights_that_somebody_moved_are_put_back(tmp_path: Path) -> None:
    simulated, records = Simulated(), begin(tmp_path)
    controller = Controller(records, simulated.world())
    while controller.rollout.phase is not Phase.STEP:
        controller.tick()
        simulated.sleep(5)
    wanted = simulated.routes
    assert wanted is not None
    simulated.routes = replace(wanted, share=0.9)
    controller.tick()
    assert simulated.routes == wanted
    assert controller.rollout.routed == 0  # what ran meanwhile does not count


@pytest.mark.slow
def test_a_router_that_refuses_is_asked_again(tmp_path: Path) -> None:
    simulated = Simulated(refuses_routes_until=1_000_030.0)
    assert moved(tmp_path, simulated).phase is Phase.PROMOTED


@pytest.mark.slow
def test_a_server_that_was_away_is_nobody_s_fault_until_it_is_back(tmp_path: Path) -> None:
    simulated = Simulated(down=(1_000_020.0, 1_000_060.0))
    assert moved(tmp_path / "both", simulated).phase is Phase.PROMOTED
    blamed = Simulated(down=(1_000_020.0, 1_000_060.0), candidate=Candidate(restarted_at=20))
    assert moved(tmp_path / "blamed", blamed).phase is Phase.ROLLED_BACK


@pytest.mark.slow
def test_one_controller_acts(tmp_path: Path) -> None:
    records = begin(tmp_path)
    with records.acting():
        assert records.acted_on
        with pytest.raises(RolloutError, match="another controller"):
            run(records, Simulated().world())
    assert not records.acted_on
    with pytest.raises(RolloutError, match="is still"):
        begin(tmp_path, digest="sha256:third")


@pytest.mark.parametrize(("slower", "end"), [(1.0, Phase.PROMOTED), (4.0, Phase.ROLLED_BACK)])
@pytest.mark.slow
def test_a_kill_at_any_act_changes_nothing_of_the_end(tmp_path: Path, slower: float, end: Phase) -> None:
    """Before and after each route and each load; then at each write of the state."""
    plan = replace(QUICK, steps=(Step(share=0.5, requests=600, needs="requests"), *QUICK.steps[2:]), block=5.0)
    for kill in range(1, 100):
        home = tmp_path / str(kill)
        begin(home, plan=plan)
        simulated = Simulated(kill_at=kill, candidate=Candidate(slower=slower), rate=40)
        records = Records(home, "m")
        try:
            ended = run(records, simulated.world())
        except Killed:
            ended = run(Records(home, "m"), simulated.world())
        else:
            assert kill > 8, "hardly anything was killed"
            return
        assert ended.phase is end
        assert simulated.loaded == {CANDIDATE if end is Phase.PROMOTED else STABLE}
        assert all(each.agrees for each in explain(Records(home, "m").log()))
    raise AssertionError("no run was left alone")


@pytest.mark.parametrize("method", ["save", "decided", "counted", "block"])
@pytest.mark.slow
def test_a_kill_at_any_write_changes_nothing_of_the_end(
    tmp_path: Path, method: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    plan = replace(QUICK, steps=(Step(share=0.5, requests=600, needs="requests"),), block=5.0)
    for kill in range(1, 100):
        home = tmp_path / str(kill)
        begin(home, plan=plan)
        simulated = Simulated(candidate=Candidate(slower=4.0), rate=40)
        records, writes = Records(home, "m"), 0
        original = getattr(records, method)

        def dying(*arguments: object, original: object = original, kill: int = kill) -> None:
            nonlocal writes
            writes += 1
            if writes == kill:
                raise Killed
            original(*arguments)  # type: ignore[operator]

        monkeypatch.setattr(records, method, dying)
        try:
            run(records, simulated.world())
        except Killed:
            assert run(Records(home, "m"), simulated.world()).phase is Phase.ROLLED_BACK
            assert back_to_stable(simulated)
        else:
            return
    raise AssertionError("no run was left alone")


@pytest.mark.parametrize(("kill", "slower"), [(2, 1.0), (5, 1.0), (8, 1.0), (6, 4.0)])
@pytest.mark.slow
def test_a_controller_that_is_really_killed_is_taken_over(tmp_path: Path, kill: int, slower: float) -> None:
    records = begin(tmp_path)
    command = [sys.executable, "-m", "tests.support.rollout_world", str(tmp_path)]
    died = subprocess.run([*command, str(kill), str(slower)], cwd=ROOT, timeout=60, check=False)
    assert died.returncode == -9
    assert records.load().phase not in ENDED
    done = subprocess.run(
        [*command, "0", str(slower)], cwd=ROOT, timeout=60, capture_output=True, text=True, check=True
    )
    assert done.stdout.strip() == ("promoted" if slower == 1 else "rolled_back")
