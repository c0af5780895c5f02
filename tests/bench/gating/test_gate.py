"""The gate against a small KServe v2 server in this process: order, records, faults of either arm, interruptions.

The load generator is replaced by one that asks the server for real but makes up the clock, so that outcomes do not
depend on this machine. The gate on real Triton and real Locust is tested under tests/system.
"""

import errno
import os
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from seatrial.bench.budget import Budget, Limit
from seatrial.bench.errors import TargetError
from seatrial.bench.gating import gate as gate_room
from seatrial.bench.gating import pairs, trials
from seatrial.bench.gating.gate import gate, read_gate, rejudge
from seatrial.bench.gating.gate_setup import GateSetup
from seatrial.bench.gating.noise import Trial
from seatrial.bench.load.run import LoadRun
from seatrial.bench.quality import served
from seatrial.optimize.errors import ConfigError, ContractError, MachineError, SeatrialError, SourceError
from seatrial.optimize.recipe.metrics import accuracy
from seatrial.optimize.samples import Samples
from seatrial.optimize.store import write_atomically
from tests.support.gating import (
    BASE,
    CANDIDATE,
    FAULTS,
    Clock,
    Host,
    good,
    means,
    run,
    small_budget,
    some_samples,
    top1,
    wrong_answers,
)

pytestmark = pytest.mark.usefixtures("stub_host")


@pytest.fixture
def samples() -> Samples:
    return some_samples()


@pytest.fixture
def small() -> Budget:
    return small_budget()


@pytest.mark.slow
def test_a_faster_candidate_passes_and_everything_is_kept(tmp_path: Path, samples: Samples, small: Budget) -> None:
    host = Host()
    verdict = run(small, samples, tmp_path, host, Clock({"candidate": 0.001}))
    assert verdict.outcome == "PASS", verdict.summary
    assert "".join(name[0] for name in host.order) in {a + b for a in ("bccb", "cbbc") for b in ("bccb", "cbbc")}
    record, again = read_gate(tmp_path)
    assert again == verdict
    assert len(record.records) == 8
    for slot in record.records:
        assert slot.peak_memory
        assert slot.startup is not None
        assert 0 < slot.startup < slot.seconds
        assert slot.control
    for pair in range(4):
        both = [each for each in record.records if each.slot.pair == pair]
        assert np.array_equal(both[0].lag, both[1].lag)  # the same schedule in both arms
    quality = verdict.finding("quality")
    assert quality is not None
    assert quality.n == 402
    expected = accuracy(samples.inputs["x"][:, :3], np.asarray(samples.labels)).mean()
    assert quality.base == quality.candidate == pytest.approx(float(expected))


def test_the_verdict_is_the_same_from_the_folder(tmp_path: Path, samples: Samples, small: Budget) -> None:
    verdict = run(small, samples, tmp_path, Host(), Clock({"candidate": 0.0019}))
    stored = (tmp_path / "verdict.json").read_bytes()
    assert rejudge(tmp_path) == verdict
    assert (tmp_path / "verdict.json").read_bytes() == stored


@pytest.mark.slow
def test_a_gate_with_looks_stops_when_it_knows_and_has_asked_every_sample(
    tmp_path: Path, samples: Samples, small: Budget
) -> None:
    looking = replace(small, design=replace(small.design, pairs=8, looks=(4, 6, 8)))
    host = Host()
    verdict = run(looking, samples, tmp_path / "early", host, Clock({"candidate": 0.001}))
    assert (verdict.outcome, verdict.pairs, len(host.order)) == ("PASS", 4, 8)
    quality = verdict.finding("quality")
    assert quality is not None
    assert quality.n == len(samples)
    assert rejudge(tmp_path / "early") == verdict
    host = Host()
    tight = replace(looking, limits=(Limit(metric="p50", max_regression=0.0001), Limit(metric="quality", max_drop=0.1)))
    verdict = run(tight, samples, tmp_path / "late", host, Clock())
    assert (verdict.outcome, verdict.pairs, len(host.order)) == ("INCONCLUSIVE", 8, 16)
    quality = verdict.finding("quality")
    assert quality is not None
    assert (quality.n, quality.outcome) == (len(samples), "PASS")  # asked by the first four pairs, and only by them
    assert [each.quality.size > 0 for each in read_gate(tmp_path / "late")[0].arm("base")] == [True] * 4 + [False] * 4


def test_a_full_disk_is_one_error_and_keeps_what_was_measured(
    tmp_path: Path, samples: Samples, small: Budget, monkeypatch: pytest.MonkeyPatch
) -> None:
    written = write_atomically

    def full(path: Path, data: bytes) -> None:
        if path.name.startswith("slot-03"):
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(path))
        written(path, data)

    monkeypatch.setattr(pairs, "write_atomically", full)
    with pytest.raises(OSError, match="No space left"):  # the command says so in one line
        run(small, samples, tmp_path, Host())
    monkeypatch.undo()
    assert len(pairs.read_run(tmp_path).records) == 3
    assert rejudge(tmp_path).outcome == "INVALID"


@pytest.mark.slow
def test_a_slower_candidate_fails(tmp_path: Path, samples: Samples, small: Budget) -> None:
    verdict = run(small, samples, tmp_path, Host(), Clock({"candidate": 0.003}))
    assert verdict.outcome == "FAIL"
    assert any("p50 went from" in reason for reason in verdict.summary)


@pytest.mark.slow
def test_worse_answers_fail(tmp_path: Path, samples: Samples, small: Budget) -> None:
    verdict = run(small, samples, tmp_path, Host({"candidate": wrong_answers}), Clock({"candidate": 0.001}))
    quality = verdict.finding("quality")
    assert quality is not None
    assert (verdict.outcome, quality.outcome) == ("FAIL", "FAIL")


@pytest.mark.slow
def test_quality_is_asked_in_batches_that_the_servers_take(tmp_path: Path, samples: Samples, small: Budget) -> None:
    asked: list[int] = []

    def answer(x: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
        asked.append(len(x))
        return good(x)

    host, clock = Host({"base": answer, "candidate": answer}), Clock({"candidate": 0.001})
    verdict = gate(
        BASE,
        CANDIDATE,
        small,
        GateSetup(host=host, samples=samples, metric=top1, folder=tmp_path, max_batch=8, generator=clock.generator),
    )
    assert verdict.outcome == "PASS", verdict.summary
    assert max(asked) == 8


@pytest.mark.parametrize("says", FAULTS)
def test_broken_answers_fail_in_the_candidate_and_invalidate_in_the_base(
    tmp_path: Path, samples: Samples, small: Budget, says: str
) -> None:
    host = Host({"candidate": FAULTS[says]})
    failed = run(small, samples, tmp_path / "candidate", host)
    assert failed.outcome == "FAIL"
    assert says in failed.reasons[0]
    assert len(host.order) == 2  # it stops after the pair that showed it
    invalid = run(small, samples, tmp_path / "base", Host({"base": FAULTS[says]}))
    assert invalid.outcome == "INVALID"
    both = run(small, samples, tmp_path / "both", Host({"base": FAULTS[says], "candidate": FAULTS[says]}))
    assert both.outcome == "INVALID"


@pytest.mark.parametrize(
    ("refuse", "outcome", "slots"),
    [
        ({"candidate": TargetError("the server refused the model: bad opset")}, "FAIL", 2),
        ({"base": TargetError("the server refused the model: bad opset")}, "INVALID", 2),
        ({name: TargetError("bad opset") for name in ("base", "candidate")}, "INVALID", 2),
        ({"candidate": ContractError("bad opset: no VNNI here")}, "INVALID", 4),
        ({"candidate": MachineError("crashed on bad opset")}, "FAIL", 4),
        ({"base": MachineError("crashed on bad opset")}, "INVALID", 4),
    ],
)
def test_an_artifact_that_does_not_load(
    tmp_path: Path, samples: Samples, small: Budget, refuse: Mapping[str, SeatrialError], outcome: str, slots: int
) -> None:
    host = Host(refuse=refuse)
    verdict = run(small, samples, tmp_path, host)
    assert verdict.outcome == outcome
    assert "bad opset" in " ".join(verdict.reasons)
    assert len(host.order) == slots


def test_a_server_that_is_dead_after_the_slot_fails_the_candidate(
    tmp_path: Path, samples: Samples, small: Budget, monkeypatch: pytest.MonkeyPatch
) -> None:
    host = Host()
    monkeypatch.setattr(gate_room, "alive", lambda pids: host.order[-1] != "candidate")
    verdict = run(small, samples, tmp_path / "always", host)
    assert verdict.outcome == "FAIL"
    assert "the server process died" in verdict.reasons
    assert len(host.order) == 4  # once may be an accident of the machine's


@pytest.mark.parametrize("arm", ["base", "candidate"])
@pytest.mark.slow
def test_a_server_that_dies_once_has_the_pair_run_again(
    tmp_path: Path, samples: Samples, small: Budget, monkeypatch: pytest.MonkeyPatch, arm: str
) -> None:
    host, deaths = Host(), [arm]

    def alive(pids: tuple[int, ...]) -> bool:
        died = host.order[-1] in deaths
        deaths.clear() if died else None
        return not died

    def cut(model: str, each: LoadRun) -> LoadRun:
        return replace(each, status=np.where(np.arange(len(each)) < 7, each.status, 0)) if model in deaths else each

    monkeypatch.setattr(gate_room, "alive", alive)
    verdict = run(small, samples, tmp_path, host, Clock({"candidate": 0.001}, spoil=cut))
    assert verdict.outcome == "PASS", verdict.summary
    assert len(host.order) == 10


def late(run: LoadRun) -> LoadRun:
    return replace(run, sent=run.sent + 0.05, done=run.done + 0.05)


@pytest.mark.slow
def test_a_lagging_client_has_the_pair_run_again_and_then_gives_up(
    tmp_path: Path, samples: Samples, small: Budget
) -> None:
    clock = Clock({"candidate": 0.001})
    clock.spoil = lambda model, each: late(each) if clock.calls == 3 else each
    host = Host()
    verdict = run(small, samples, tmp_path / "once", host, clock)
    assert verdict.outcome == "PASS"
    assert len(host.order) == 10
    assert any(path.name.endswith("rerun1.json") for path in (tmp_path / "once").iterdir())
    always = run(small, samples, tmp_path / "always", host, Clock(spoil=lambda model, each: late(each)))
    assert always.outcome == "INVALID"
    assert any("lag" in reason for reason in always.reasons)


def test_broken_connections_in_the_candidate_alone_fail(tmp_path: Path, samples: Samples, small: Budget) -> None:
    def broken(model: str, each: LoadRun) -> LoadRun:
        status = each.status.copy()
        status[7] = 0
        return replace(each, status=status) if model == "candidate" else each

    host = Host()
    verdict = run(small, samples, tmp_path, host, Clock(spoil=broken))
    assert verdict.outcome == "FAIL"
    assert len(host.order) == 2


def test_ctrl_c_leaves_a_folder_that_reads(tmp_path: Path, samples: Samples, small: Budget) -> None:
    clock = Clock()

    def interrupt(model: str, each: LoadRun) -> LoadRun:
        if clock.calls == 4:
            raise KeyboardInterrupt
        return each

    clock.spoil = interrupt
    with pytest.raises(KeyboardInterrupt):
        run(small, samples, tmp_path, Host(), clock)
    assert len(pairs.read_run(tmp_path).records) == 3
    verdict = rejudge(tmp_path)
    assert verdict.outcome == "INVALID"
    assert "only 1 of 4 pairs were measured" in verdict.reasons


@pytest.mark.slow
def test_progress_moves_forward_and_names_the_slot(tmp_path: Path, samples: Samples, small: Budget) -> None:
    told: list[tuple[str, float]] = []
    gate(
        BASE,
        CANDIDATE,
        small,
        GateSetup(
            host=Host(),
            samples=samples,
            metric=top1,
            folder=tmp_path,
            progress=lambda what, share: told.append((what, share)),
            generator=Clock().generator,
        ),
    )
    shares = [share for _, share in told]
    assert shares == sorted(shares)
    assert shares[-1] == 1.0
    assert told[0][0].startswith("pair 1 of 4")


@pytest.mark.slow
def test_bad_input_is_refused_before_a_server_starts(tmp_path: Path, samples: Samples, small: Budget) -> None:
    host = Host()
    for bad in (replace(samples, labels=None), samples.take(3)):
        with pytest.raises(ConfigError):
            run(small, bad, tmp_path / "bad", host)
    wide = replace(small, design=replace(small.design, saturation_batch=32))
    with pytest.raises(ConfigError, match="batches of 32, but the servers accept at most 16"):
        gate(
            BASE,
            CANDIDATE,
            wide,
            GateSetup(host=host, samples=samples, metric=top1, folder=tmp_path / "wide", max_batch=16),
        )
    assert not (tmp_path / "wide").exists()
    run(small, samples, tmp_path / "used", host)
    started = len(host.order)
    with pytest.raises(ConfigError, match="already"):
        run(small, samples, tmp_path / "used", host)
    assert len(host.order) == started == 8


@pytest.mark.parametrize("bad", [lambda outputs, labels: labels[:1], lambda outputs, labels: 1 / 0])
def test_a_metric_that_is_wrong_is_the_users_to_mend(
    tmp_path: Path, samples: Samples, small: Budget, bad: served.Metric
) -> None:
    with pytest.raises(SourceError):
        gate(
            BASE,
            CANDIDATE,
            small,
            GateSetup(host=Host(), samples=samples, metric=bad, folder=tmp_path, generator=Clock().generator),
        )


@pytest.mark.slow
def test_aa_gates_an_artifact_against_itself_and_says_how_it_ended(
    tmp_path: Path, samples: Samples, small: Budget
) -> None:
    host = Host()
    trial = trials.aa(BASE, small, means(samples, tmp_path, host, Clock()), gates=2, resample=30)
    assert trial.outcomes.get("FAIL", 0) == 0
    assert sum(trial.outcomes.values()) == 2
    assert sum(trial.resampled.values()) == 6 * 4  # all that there are: two of four blocks, each dealt in two ways
    assert len(host.order) == 16
    assert set(trial.noise) >= {"p50", "throughput", "startup"}
    assert 0 < trial.noise["p50"].sd < 0.05
    assert trial.slot_seconds > 0
    assert [len(run.records) for run in trials.runs_of(trial)] == [8, 8]
    assert Trial.from_json(trial.to_json()) == trial
    assert trials.exit_code(trial, small) == 0


@pytest.mark.slow
def test_a_drill_slows_the_candidate_alone_and_a_gate_that_sleeps_is_told(
    tmp_path: Path, samples: Samples, small: Budget
) -> None:
    only = replace(small, limits=(Limit(metric="p50", max_regression=0.05),))
    honest, slowed = Host(), Host()
    told: list[float] = []
    given = means(samples, tmp_path / "seen", honest, Clock({"base-slower-30-percent": 0.0026}))
    given = replace(given, progress=lambda what, share: told.append(share))
    trial = trials.drill(BASE, only, given, slowed=slowed, slow=0.3)
    assert trial.outcomes == {"FAIL": 1}
    assert trial.ratios["p50"] == pytest.approx(1.3, abs=0.03)
    assert (trial.kind, trial.injected, trial.model) == ("drill", 0.3, "base")
    assert set(honest.order) == {"base"}
    assert set(slowed.order) == {"base-slower-30-percent"}
    assert told == sorted(told)
    assert trials.exit_code(trial, only) == 0
    blind = means(samples, tmp_path / "blind", honest, Clock())
    asleep = trials.drill(BASE, only, blind, slowed=slowed, slow=0.3)
    assert asleep.outcomes == {"PASS": 1}
    assert trials.exit_code(asleep, only) == 1
    assert "passed 1 of 1" in trials.complaint(asleep, only)


@pytest.mark.slow
def test_a_longer_session_gives_pseudo_gates_of_the_budget_s_length(
    tmp_path: Path, samples: Samples, small: Budget
) -> None:
    trial = trials.aa(BASE, small, means(samples, tmp_path, Host(), Clock()), pairs=8, resample=1000)
    assert [len(run.records) for run in trials.runs_of(trial)] == [16]
    assert (trial.pairs, sum(trial.resampled.values())) == (8, 6 * 4)


def test_trials_without_a_valid_gate_show_nothing(tmp_path: Path, samples: Samples, small: Budget) -> None:
    host = Host(refuse={"base": TargetError("no port")})
    trial = trials.aa(BASE, small, means(samples, tmp_path, host, Clock()))
    assert trial.outcomes == {"INVALID": 1}
    assert trial.resampled == {}
    assert trials.exit_code(trial, small) == 4
