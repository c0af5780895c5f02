"""The kill attack itself: it knows every verb, spreads its kills, and sees what a killed verb leaves."""

import os
import random
import subprocess
import sys
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
import typer

from scripts.benchmarks import attack_kill_checks as checks
from scripts.benchmarks.attack_kill_jobs import JOBS, READING
from scripts.benchmarks.attack_kills import SIGNALS, Kill, plan, row
from seatrial.serve.cli import app
from seatrial.serve.processes import wait


def verbs(command: Any, before: tuple[str, ...] = ()) -> list[str]:
    """Every verb by its words."""
    if not hasattr(command, "commands"):
        return [" ".join(before)]
    return [verb for name, each in command.commands.items() for verb in verbs(each, (*before, name))]


def test_every_verb_is_killed_or_said_to_read() -> None:
    killed = {" ".join(job.text.split()[:2]) for job in JOBS} | {job.text.split()[0] for job in JOBS}
    known = killed | set(READING)
    assert [verb for verb in verbs(typer.main.get_command(app)) if verb not in known] == []


def test_kills_are_spread_over_all_verbs_and_signals() -> None:
    chosen = plan(200, random.Random(1))
    assert len(chosen) == 200
    assert {job.verb for job, _ in chosen} == {job.verb for job in JOBS}
    counts = Counter(number for _, number in chosen)
    assert max(counts.values()) - min(counts.values()) <= 1
    assert set(counts) == set(SIGNALS)
    assert plan(200, random.Random(1)) == chosen


def test_an_orphan_is_seen(tmp_path: Path) -> None:
    sleep = [sys.executable, "-c", "import time; time.sleep(30)"]
    with subprocess.Popen(sleep, env=os.environ | {"SEATRIAL_HOME": str(tmp_path)}) as process:
        try:
            assert wait(lambda: set(checks.strays(tmp_path)) == {process.pid}, 5.0)
            assert checks.strays(tmp_path, (process.pid,)) == {}
            assert checks.strays(tmp_path / "other") == {}
        finally:
            process.kill()


@pytest.mark.parametrize(
    "left",
    [
        "home/work/host-1-2-0123456789ab/models",
        "home/triton/servers/1-2-0123456789ab",
        "home/triton/.backends-1",
        "home/runs/gate/.staged-x",
        "home/runs/gate/load/slot-00/.load-1-2-0123456789ab",
        "home/releases/m/1.4711",
        "home/envoy/runs/1-2-0123456789ab",
        "ws/.seatrial/placing/models/4711",
        "ws/.seatrial-render-1-2-0123456789ab",
        "tmp/seatrial-abcdefgh",
    ],
)
def test_a_leftover_is_seen(tmp_path: Path, left: str) -> None:
    (tmp_path / left).mkdir(parents=True)
    found = checks.leftovers(tmp_path / "home", tmp_path / "ws", tmp_path / "tmp")
    assert any(str(tmp_path / left).startswith(each) for each in found)


@pytest.mark.parametrize(
    ("name", "data"),
    [
        ("runs/gate/run.json", b'{"schema": 1'),
        ("runs/gate/slot-00.npz", b"PK\x03\x04half"),
        ("history/m.jsonl", b'{"a": 1\n{"b": 2}\n'),
        ("store/blobs/sha256/" + "0" * 64, b"other bytes"),
        ("store/index.json", b"["),
    ],
)
def test_damage_is_seen(tmp_path: Path, name: str, data: bytes) -> None:
    path = tmp_path / "home" / name
    path.parent.mkdir(parents=True)
    path.write_bytes(data)
    assert checks.damage(tmp_path / "home", tmp_path / "ws")


def test_a_torn_last_line_is_no_damage(tmp_path: Path) -> None:
    (tmp_path / "history.jsonl").write_bytes(b'{"a": 1}\n{"b"')
    assert checks.damage(tmp_path, tmp_path / "ws") == []


def test_a_region_that_nobody_has_mapped_is_seen() -> None:
    region = Path(f"/dev/shm/seatrial_test{os.getpid()}")
    region.write_bytes(b"left")
    try:
        assert region.name in checks.unmapped(checks.regions())
    finally:
        region.unlink()


def test_one_fault_misses_the_bar() -> None:
    good = Kill(verb="place", signal="SIGTERM", after=1.0, done=False, code=143, ended=0.2)
    bad = Kill(verb="place", signal="SIGKILL", after=1.0, done=False, code=-9, ended=0.0, faults=("orphans: {1: 'x'}",))
    assert row([good], 1).met
    assert not row([good, bad], 1).met
    assert "1 orphans" in row([good, bad], 1).value
    assert not row([], 1).met
