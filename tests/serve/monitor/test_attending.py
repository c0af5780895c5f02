"""The watching service: each window once whatever ends it, a full disk outlived, steps of the clock, its metrics."""

import errno
import json
import os
import shutil
import tempfile
from collections.abc import Callable
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from prometheus_client import CollectorRegistry

from scripts.benchmarks.monitor_streams import HOUR, MONDAY
from seatrial.optimize.errors import ConfigError, IntegrityError, MachineError
from seatrial.serve.monitor import history, watching
from seatrial.serve.monitor.alarms import Alarm, Watched
from seatrial.serve.monitor.attending import Attendant, changes, failure
from seatrial.serve.monitor.clock import Clock
from seatrial.serve.monitor.diagnosis import Cause
from seatrial.serve.monitor.shelf import Shelf
from seatrial.serve.monitor.watch_metrics import FAILURES
from tests.support.monitored import PLAN, STREAM, learned_home, run, table

BROKEN = replace(STREAM, drift="unit", size=1000.0, begin=5)


class Killed(BaseException):
    """What stands for a kill: nothing of the service catches it."""


@pytest.fixture(scope="module")
def learned(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return learned_home(tmp_path_factory.mktemp("learned"))


@pytest.fixture
def plan(tmp_path: Path, learned: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A plan whose baseline was learned, in a home of its own."""
    monkeypatch.setenv("SEATRIAL_HOME", str(shutil.copytree(learned, tmp_path / "home")))
    path = tmp_path / "shop.toml"
    path.write_text(PLAN)
    return path


def attendant(plan: Path, *files: Path, hour: float = 12.0, told: list[str] | None = None) -> Attendant:
    """A service whose clock says that so many hours of traffic are over."""
    said = told if told is not None else []
    return Attendant(plan, files, every=60.0, delay=0.0, tell=said.append, wall=lambda: MONDAY + hour * HOUR)


def metric(service: Attendant, name: str, **labels: str) -> float | None:
    registry = CollectorRegistry()
    registry.register(service.metrics)
    return registry.get_sample_value(f"seatrial_monitor_{name}", {"model": "shop", **labels})


def watched(home: Path) -> Watched:
    kept = Shelf(folder=home / "watch" / "shop").state()
    assert kept is not None
    return kept[1]


@pytest.mark.slow
def test_a_look_shows_alarm_evidence_and_heartbeat(plan: Path, tmp_path: Path) -> None:
    told: list[str] = []
    service = attendant(plan, table(tmp_path / "a.parquet", BROKEN, 0, 12), told=told)
    assert metric(service, "windows_total") == 0
    assert metric(service, "evidence_ratio") is None
    service.look()
    assert metric(service, "windows_total") == 12
    assert metric(service, "rows_total") == 12 * 120 - 1
    assert [metric(service, "alarm", tier=each) for each in ("warning", "critical", "emergency")] == [0, 1, 0]
    assert metric(service, "alarms_total") == 1
    assert (metric(service, "evidence_ratio") or 0) > 1
    assert metric(service, "last_look_timestamp_seconds") == MONDAY + 12 * HOUR
    assert metric(service, "judged_until_timestamp_seconds") == MONDAY + 12 * HOUR
    assert metric(service, "every_seconds") == 60
    assert metric(service, "looks_total") == 1
    assert [metric(service, "failing", kind=each) for each in FAILURES] == [0] * len(FAILURES)
    assert told == ["shop: alarm (critical): f0"]
    again = attendant(plan, tmp_path / "a.parquet")
    again.look()  # as after a restart: nothing is judged twice, and the state is that of before
    assert metric(again, "windows_total") == 12
    assert metric(again, "alarm", tier="critical") == 1


def test_silence_and_its_end_are_told(plan: Path, tmp_path: Path) -> None:
    told: list[str] = []
    files = tmp_path / "tables"
    files.mkdir()
    table(files / "a.parquet", STREAM, 0, 4)
    hours = [4.0]
    service = Attendant(plan, [files], every=60.0, delay=0.0, tell=told.append, wall=lambda: MONDAY + hours[-1] * HOUR)
    service.look()
    assert metric(service, "silent") == 0
    hours.append(6.0)
    service.look()
    assert metric(service, "silent") == 0, "a step of the clock ahead does not count before it has lasted"
    service = attendant(plan, files, hour=6.0, told=told)
    service.look()
    assert metric(service, "silent") == 1
    table(files / "b.parquet", STREAM, 6, 8)
    assert told[-1] == "shop: silent: usual traffic is missing"
    service = attendant(plan, files, hour=8.0, told=told)
    service.look()
    assert metric(service, "silent") == 0
    assert watched(tmp_path / "home").silent_since is None
    assert [each.start for each in history.read(tmp_path / "home" / "watch" / "shop").judged] == [
        MONDAY + hour * HOUR for hour in (0, 1, 2, 3, 4, 7)
    ], "a silent interval waits, and is judged with the next rows"
    assert len(history.read(tmp_path / "home" / "watch" / "shop").silent) == 2


@pytest.mark.parametrize("look", [0, 2])
@pytest.mark.parametrize("write", range(7))
def test_a_kill_at_any_write_loses_no_window_and_judges_none_twice(
    plan: Path, tmp_path: Path, look: int, write: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    files = [table(tmp_path / f"{end}.parquet", BROKEN, end - 4, end) for end in (4, 8, 12)]
    for at in range(3):
        service = attendant(plan, *files[: at + 1], hour=4.0 * (at + 1))
        if at == look:
            with monkeypatch.context() as patch, suppress(Killed):
                kill_at(patch, write)
                service.look()
                assert write == 6, "a look writes six times"
            service = attendant(plan, *files[: at + 1], hour=4.0 * (at + 1))
        service.look()
        assert service.metrics.standing.failing is None
    found = history.read(tmp_path / "home" / "watch" / "shop")
    assert [each.start for each in found.judged] == [MONDAY + hour * HOUR for hour in range(12)]
    after = watched(tmp_path / "home")
    assert (after.windows, after.rows, after.late) == (12, 12 * 120 - 1, 0)
    [alarm] = after.alarms
    assert alarm.began == MONDAY + 6 * HOUR
    assert alarm.times == 7


def kill_at(patch: pytest.MonkeyPatch, write: int) -> None:
    """Let the nth call of the system that writes be the last thing that the process does."""
    left = [write]

    def counted(real: Callable[..., Any]) -> Callable[..., Any]:
        def call(*arguments: Any, **options: Any) -> Any:
            left[0] -= 1
            if left[0] < 0:
                raise Killed
            return real(*arguments, **options)

        return call

    patch.setattr(os, "fsync", counted(os.fsync))
    patch.setattr(Path, "replace", counted(Path.replace))
    patch.setattr(Path, "write_bytes", counted(Path.write_bytes))
    patch.setattr(tempfile, "mkstemp", counted(tempfile.mkstemp))


def test_a_full_disk_is_said_outlived_and_costs_no_window(
    plan: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    told: list[str] = []
    service = attendant(plan, table(tmp_path / "a.parquet", BROKEN, 0, 12), told=told)

    def refuse(*_: object, **__: object) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", refuse)
        for _ in range(3):
            service.look()
    assert metric(service, "failing", kind="disk") == 1
    assert metric(service, "look_errors_total", kind="disk") == 3
    assert metric(service, "alarm", tier="critical") == 1, "the alarm shows although it cannot be kept"
    assert metric(service, "looks_total") == 0
    assert [each for each in told if "look failed" in each] == [told[-1]]
    assert "No space left" in told[-1]
    service.look()
    assert told[-1] == "looks are complete again"
    assert metric(service, "failing", kind="disk") == 0
    assert watched(tmp_path / "home").windows == 12
    assert len(history.read(tmp_path / "home" / "watch" / "shop").judged) == 12


def test_whatever_a_look_runs_into_it_goes_on(plan: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    told: list[str] = []
    service = attendant(plan, tmp_path / "a.parquet", told=told)
    service.look()
    assert metric(service, "failing", kind="input") == 1
    table(tmp_path / "a.parquet", STREAM, 0, 12)
    plan.write_text(PLAN.replace("shop", "other"))
    service.look()
    plan.write_text(PLAN)
    state = tmp_path / "home" / "watch" / "shop" / "state.npz"
    state.write_bytes(b"damaged")
    service.look()
    assert metric(service, "failing", kind="damaged") == 1
    state.unlink()
    with monkeypatch.context() as patch:
        patch.setattr(watching, "look", lambda *_: 1 / 0)
        service.look()
        service.look()
    assert metric(service, "failing", kind="fault") == 1
    assert len(list((tmp_path / "home" / "faults").iterdir())) == 1
    service.look()
    assert metric(service, "windows_total") == 12
    assert [metric(service, "look_errors_total", kind=each) for each in FAILURES] == [2, 1, 0, 0, 2]
    plan.write_text("schema = 2")
    service.look()
    assert metric(service, "failing", kind="input") == 1


def test_kinds_of_failure() -> None:
    assert failure(MachineError("held")) == "busy"
    assert failure(IntegrityError("torn")) == "damaged"
    assert failure(OSError(errno.EIO, "x")) == "disk"
    assert failure(ConfigError("x")) == "input"
    assert failure(ZeroDivisionError()) == "fault"


def test_changes_between_looks_are_told_once() -> None:
    cause = Cause(kind="data", advice="label", features=("f0",), reasons=("f0: location: +1 standard deviations",))
    held = Alarm(began=1.0, renewed=1.0, times=1, cause=cause)
    before, after = Watched(alarms=(held,)), Watched(alarms=(replace(held, tier="critical"),))
    assert changes(None, before) == ["alarm (warning): f0"]
    assert changes(before, before) == []
    assert changes(before, after) == ["the alarm is now critical"]
    ended = Watched(alarms=(replace(held, ended=5.0),), silent_since=4.0)
    assert changes(before, ended) == ["the alarm has ended", "silent: usual traffic is missing"]
    assert changes(ended, replace(ended, silent_since=None)) == ["traffic is back"]
    assert changes(None, replace(ended, silent_since=None)) == []


def test_a_clock_that_steps_back_counts_at_once_and_one_ahead_once_it_lasts() -> None:
    wall, steady = 1000.0, 0.0
    clock = Clock(settle=60.0, wall=lambda: wall, steady=lambda: steady)

    def after(seconds: float, step: float = 0.0) -> float:
        nonlocal wall, steady
        steady += seconds
        wall += seconds + step
        return clock.now()

    assert after(10.0) == 1010.0
    assert after(10.0, 0.5) == 1020.5  # slewed
    assert after(10.0, -500.0) == 530.5
    assert clock.steps == 1
    assert after(10.0, 3600.0) == 540.5
    assert after(49.0) == 589.5
    assert clock.steps == 2
    assert after(12.0) == 4201.5
    assert after(10.0, 3600.0) == 4211.5
    assert after(10.0, -3600.0) == 4221.5  # taken back before it counted
    assert clock.steps == 3
    assert after(100.0) == 4321.5


def test_traffic_is_judged_once_while_the_clock_goes_back(plan: Path, tmp_path: Path) -> None:
    hours = [6.0]
    files = [table(tmp_path / "a.parquet", STREAM, 0, 12)]
    service = Attendant(plan, files, every=60.0, delay=0.0, tell=lambda _: None, wall=lambda: MONDAY + hours[-1] * HOUR)
    for back in (6.0, 2.0, 1.0):
        hours.append(back)
        service.look()
    assert metric(service, "windows_total") == 6
    assert metric(service, "clock_steps_total") == 2
    assert watched(tmp_path / "home").late == 0


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("--every", "5", "--once"), "leave out --once"),
        (("--every", "5", "--json"), "leave out --once"),
        (("--metrics-port", "9107"), "--every SECONDS"),
    ],
)
def test_options_that_do_not_fit_are_refused(plan: Path, words: tuple[str, ...], message: str) -> None:
    done = run("watch", plan, plan, *words)
    assert done.exit_code == 2
    assert message in done.output.replace("\n       ", " ")


def test_once_is_what_it_does_anyway(plan: Path, tmp_path: Path) -> None:
    never = run("daily", "shop")
    assert never.exit_code == 0
    assert "nothing was judged yet" in never.stdout
    found = json.loads(run("watch", plan, table(tmp_path / "a.parquet", STREAM, 0, 4), "--once", "--json").stdout)
    assert len(found["judged"]) == 4
    assert "4 windows of 479 rows" in run("daily", "shop").stdout
    empty = tmp_path / "empty"
    empty.mkdir()
    done = run("watch", plan, empty)
    assert done.exit_code == 2
    assert "no table lies in the folder" in done.output
