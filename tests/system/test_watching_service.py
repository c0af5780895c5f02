"""The watching service as a real process: killed, without disk space, with traffic that falls silent."""

import os
import random
import re
import resource
import signal
import subprocess
import sys
import threading
import time
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from urllib.request import urlopen

import pytest
from prometheus_client.parser import text_string_to_metric_families

from seatrial.serve.monitor import history, learning, looking, on_duckdb
from seatrial.serve.monitor.plan import load_plan
from seatrial.serve.monitor.shelf import Shelf
from seatrial.serve.processes import free_ports, wait
from tests.serve.monitor.test_attending import watched
from tests.support.built import ROOT
from tests.support.monitored import PLAN, STREAM, table

pytestmark = pytest.mark.system


class Process:
    """The verb in a process of its own."""

    def __init__(self, plan: Path, files: Path) -> None:
        self.port = free_ports(1)[0]
        words = [
            "watch",
            str(plan),
            str(files),
            "--every",
            "0.5",
            "--delay",
            str(DELAY),
            "--metrics-port",
            str(self.port),
        ]
        self.process = subprocess.Popen(
            [sys.executable, "-m", "seatrial.serve.cli", *words],
            env=os.environ | {"PYTHONPATH": str(ROOT)},
            stderr=subprocess.PIPE,
            text=True,
        )

    def metric(self, name: str, label: str = "") -> float:
        with urlopen(f"http://127.0.0.1:{self.port}/metrics", timeout=10) as reply:
            families = text_string_to_metric_families(reply.read().decode())
        samples = [sample for family in families for sample in family.samples]
        found = [each for each in samples if each.name == f"seatrial_monitor_{name}"]
        return next((each.value for each in found if not label or label in each.labels.values()), float("nan"))

    def reaches(self, name: str, least: float, label: str = "", seconds: float = 90.0) -> bool:
        def there() -> bool:
            with suppress(OSError):
                return self.metric(name, label) >= least
            return False

        return wait(there, seconds)

    def end(self, number: signal.Signals = signal.SIGTERM) -> tuple[int, str]:
        self.process.send_signal(number)
        _, said = self.process.communicate(timeout=60)
        return self.process.returncode, said


class Live:
    """Traffic as it comes: a table for each second, written when it is over; the unit of f0 changes at second 30."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.base, self.seconds = folder, float(int(time.time())) + 1.0, 0
        self.ended = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)

    def start(self) -> None:
        self._thread.start()

    def stop(self) -> None:
        self.ended.set()
        self._thread.join(30)

    def _run(self) -> None:
        stream = replace(STREAM, mode="iid", drift="unit", size=1000.0, begin=30)
        while not self.ended.wait(max(0.0, self.base + self.seconds + 1 - time.time())):
            aside = table(
                self.folder.parent / "next.parquet", stream, self.seconds, self.seconds + 1, base=self.base, seconds=1.0
            )
            aside.replace(self.folder / f"{self.seconds:04}.parquet")
            self.seconds += 1


DELAY = 6.0  # seconds that a table may be late


def test_a_real_process_survives_kills_and_a_full_disk_and_notices_silence(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SEATRIAL_HOME", str(tmp_path / "home"))
    plan, files = tmp_path / "shop.toml", tmp_path / "tables"
    plan.write_text("interval = 1.0\n" + PLAN)
    files.mkdir()
    live, draw = Live(files), random.Random(7)
    quiet = table(tmp_path / "quiet.parquet", replace(STREAM, mode="iid"), -500, 0, base=live.base, seconds=1.0)
    chosen = load_plan(plan)
    with on_duckdb.opened(chosen, [quiet]) as traffic:
        found = learning.learn(chosen, traffic, lambda *_: None)
    Shelf(folder=looking.folder_of("shop")).keep_baseline(found, chosen.digest)
    live.start()
    for at in range(6):
        process = Process(plan, files)
        if at % 2:
            assert process.reaches("looks_total", 1.0)
        time.sleep(draw.uniform(0.3, 3.0))
        process.end(signal.SIGKILL)
    process = Process(plan, files)
    try:
        assert process.reaches("judged_until_timestamp_seconds", live.base + 40)
        assert process.metric("alarm", "critical") == 1
        before = resource.prlimit(process.process.pid, resource.RLIMIT_FSIZE, (0, resource.RLIM_INFINITY))
        assert process.reaches("failing", 1.0, "disk")
        held = watched(tmp_path / "home").until
        time.sleep(3.0)
        assert watched(tmp_path / "home").until == held
        assert process.metric("judged_until_timestamp_seconds") > (held or 0), "it goes on, and shows what it finds"
        resource.prlimit(process.process.pid, resource.RLIMIT_FSIZE, before)
        looks = process.metric("looks_total")
        assert process.reaches("looks_total", looks + 1)
        assert process.metric("failing", "disk") == 0
        live.stop()
        silent = time.monotonic()
        assert process.reaches("silent", 1.0)
        assert time.monotonic() - silent < DELAY + 4.0, "two intervals, the delay, a look"
        assert process.reaches("judged_until_timestamp_seconds", live.base + live.seconds + 1)
    finally:
        live.stop()
        code, said = process.end()
    assert code == 0
    for part in ("stopped; what was judged is on disk", "looks are complete again", "No space|File too large"):
        assert re.search(part, said), said
    assert "Traceback" not in said
    past, after = history.read(tmp_path / "home" / "watch" / "shop"), watched(tmp_path / "home")
    starts = [each.start - live.base for each in past.judged if each.start < live.base + live.seconds]
    assert starts == list(range(live.seconds))
    assert after.alarms[0].began == live.base + 31
    assert after.late == 0
