"""Going on with a gate that could not tell: what was measured stays, more pairs come, and the error rates are told."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from seatrial.bench.budget import Budget
from seatrial.bench.gating import gate as gate_room
from seatrial.bench.gating import pairs
from seatrial.bench.gating.continuing import continued, pairs_for
from seatrial.bench.gating.gate import gate
from seatrial.bench.gating.gate_setup import GateSetup
from seatrial.bench.load.run import LoadRun
from seatrial.bench.verdict import Verdict
from seatrial.optimize.errors import ConfigError
from seatrial.optimize.samples import Samples
from tests.support.gating import BASE, CANDIDATE, Clock, Host, run, small_budget, some_samples, top1

ARMS = {"base": BASE, "candidate": CANDIDATE}
pytestmark = pytest.mark.usefixtures("stub_host")


def noisy(sd: float, seed: int = 1) -> Clock:
    """A clock of a machine whose slots differ by so much."""
    random = np.random.default_rng(seed)

    def spoil(_: str, made: LoadRun) -> LoadRun:
        return replace(made, done=made.sent + (made.done - made.sent) * random.lognormal(0, sd))

    return Clock(spoil=spoil)


def go_on(folder: Path, samples: Samples, budget: Budget, total: int, clock: Clock) -> Verdict:
    measured = pairs.read_run(folder)
    more = continued(measured, gate_room.rejudge(folder), budget, total, ARMS, samples)
    return gate(
        BASE,
        CANDIDATE,
        more,
        GateSetup(host=Host(), samples=samples, metric=top1, folder=folder, generator=clock.generator),
        going_on=measured,
    )


@pytest.mark.slow
def test_more_pairs_join_those_that_were_measured(tmp_path: Path) -> None:
    samples, budget, folder = some_samples(), small_budget(), tmp_path / "run"
    first = run(budget, samples, folder, Host(), noisy(0.03))
    assert first.outcome == "INCONCLUSIVE", first.summary
    wanted = pairs_for(pairs.read_run(folder), first)
    assert wanted > 4
    before = {path.name: path.read_bytes() for path in folder.glob("slot-*")}
    found = go_on(folder, samples, budget, 16, noisy(0.001))
    assert found.outcome == "PASS", found.summary
    assert found.pairs == 16
    assert all((folder / name).read_bytes() == content for name, content in before.items())
    assert "continued after 4 pairs: with that look the false-pass probability is at most 8.8%" in found.notes
    again = pairs.read_run(folder)
    assert [each.slot for each in again.records] == list(pairs.plan(16, budget.design.seed))
    assert gate_room.rejudge(folder) == found


@pytest.mark.slow
def test_a_run_that_was_broken_off_is_brought_to_its_end(tmp_path: Path) -> None:
    samples, budget, folder = some_samples(), small_budget(), tmp_path / "run"
    run(budget, samples, folder, Host(), noisy(0.001))
    for path in folder.glob("slot-0[4-7]*"):
        path.unlink()
    first = gate_room.rejudge(folder)
    assert first.outcome == "INVALID"
    assert pairs_for(pairs.read_run(folder), first) == 4
    found = go_on(folder, samples, budget, 4, noisy(0.001))
    assert (found.outcome, found.pairs) == ("PASS", 4), found.summary
    assert not any("continued" in note for note in found.notes)


@pytest.mark.slow
def test_a_spoiled_pair_is_measured_again_beside_what_there_is(tmp_path: Path) -> None:
    samples, budget, folder = some_samples(), small_budget(), tmp_path / "run"
    run(budget, samples, folder, Host(), noisy(0.001))
    record = next(each for each in pairs.read_run(folder).records if each.slot.index == 7)
    pairs.write_record(folder, replace(record, breaches=("lag: late",)))
    assert gate_room.rejudge(folder).outcome == "INVALID"
    found = go_on(folder, samples, budget, 4, noisy(0.001))
    assert found.outcome == "PASS"
    assert (folder / "slot-07-rerun1.json").exists()


@pytest.mark.slow
def test_what_is_decided_has_nothing_to_go_on_with(tmp_path: Path) -> None:
    samples, budget = some_samples(), small_budget()
    passed = run(budget, samples, tmp_path / "run", Host(), noisy(0.001))
    for outcome in ("PASS", "FAIL"):
        with pytest.raises(ConfigError, match=f"the verdict is {outcome}"):
            pairs_for(pairs.read_run(tmp_path / "run"), replace(passed, outcome=outcome))


@pytest.mark.slow
def test_another_run_s_pairs_are_refused(tmp_path: Path) -> None:
    samples, budget, folder = some_samples(), small_budget(), tmp_path / "run"
    first = run(budget, samples, folder, Host(), noisy(0.03))
    measured = pairs.read_run(folder)

    def refused(said: str, **changed: object) -> None:
        given = {"run": measured, "budget": budget, "pairs": 8, "arms": ARMS, "samples": samples} | changed
        with pytest.raises(ConfigError, match=said):
            continued(
                given["run"],  # type: ignore[arg-type]
                first,
                given["budget"],  # type: ignore[arg-type]
                given["pairs"],  # type: ignore[arg-type]
                given["arms"],  # type: ignore[arg-type]
                given["samples"],  # type: ignore[arg-type]
            )

    refused("budget differs from the start", budget=replace(budget, limits=budget.limits[:2]))
    refused("samples differs from the start", samples=samples.take(0, 300))
    refused("candidate differs from the start", arms={"base": BASE, "candidate": BASE})
    elsewhere = replace(measured.header, environment=dict(measured.header.environment) | {"cpu": "another"})
    refused("machine differs from the start", run=replace(measured, header=elsewhere))
    refused("at least 4 and at most .*, got 7", pairs=7)
    refused("at least 4 and at most .*, got 2", pairs=2)
    assert continued(measured, first, replace(budget, design=replace(budget.design, pairs=6)), 8, ARMS, samples)
