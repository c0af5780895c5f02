"""The supervisor's files: read whatever lies there, and kept small; a disk that refuses ends nothing."""

import itertools
import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from seatrial.serve.triton.supervision.healing import Watch
from seatrial.serve.triton.supervision.metering import UNMETERED
from seatrial.serve.triton.supervision.reporting import Reporter
from seatrial.serve.triton.supervision.standing import EventLog, standing, supervision, write_standing

ROOT = Path(__file__).resolve().parents[3]
OLD = {"state": "given up", "since": 9.0, "attempts": [1.0, 2.0], "restarts": 5, "reason": "dead"}

BAD: tuple[object, ...] = (None, {}, "x", -1, [[]])


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("SEATRIAL_HOME", str(tmp_path))
    supervision().mkdir(parents=True)
    return tmp_path


def test_what_is_written_is_read_again_and_older_and_newer_releases_are_understood() -> None:
    watches = {"server": Watch(restarts=2), "m/1": Watch(state="resting", since=3.0, attempts=(1.0,), reason="dead")}
    write_standing("127.0.0.1:1", "now", watches)
    assert standing() == watches
    content = json.loads((supervision() / "health.json").read_bytes())
    assert set(content["watches"]["m/1"]) == {"state", "since", "attempts", "restarts", "reason"}, "as releases before"
    (supervision() / "health.json").write_text(
        json.dumps({"watches": {"a/1": OLD, "b/1": OLD | {"new": 1}, "c/1": {}}})
    )
    found = standing()
    assert [found[name].restarts for name in ("a/1", "b/1", "c/1")] == [5, 5, 0]
    assert str(found["a/1"].state) == "given up"


@pytest.mark.parametrize(
    "damaged",
    [b"", b"{", b"[]", b"null", b"1", b'{"watches": 3}', b'{"watches": ["a"]}', b"\xff\xfe", b"[" * 100_000]
    + [json.dumps({"watches": {"a/1": OLD | {key: bad}}}).encode() for key, bad in itertools.product(OLD, BAD)],
)
def test_a_damaged_file_is_read_as_far_as_it_goes(damaged: bytes) -> None:
    (supervision() / "health.json").write_bytes(damaged)
    for watch in standing().values():
        assert isinstance(watch.restarts, int)
        assert watch.restarts >= 0
        assert isinstance(watch.reason, str)


def a_pipe(path: Path) -> None:
    os.mkfifo(path)


def a_folder(path: Path) -> None:
    path.mkdir()


def a_link_to_nothing(path: Path) -> None:
    path.symlink_to(path.parent / "nowhere" / "at all")


@pytest.mark.parametrize("make", [a_pipe, a_folder, a_link_to_nothing])
@pytest.mark.timeout(10)
def test_what_is_no_file_is_neither_waited_for_nor_an_end(make: Callable[[Path], None]) -> None:
    make(supervision() / "health.json")
    make(supervision() / "events.jsonl")
    told: list[dict[str, object]] = []
    assert standing() == {}
    reporter = Reporter(lambda: "url", dict, told.append, UNMETERED)
    reporter.say("watching", "server")
    reporter.looked()
    reporter.close()
    assert [event["event"] for event in told] == ["watching"]


def test_the_log_stays_small_and_every_line_is_whole(tmp_path: Path) -> None:
    log = EventLog(tmp_path / "deep" / "events.jsonl", most=2000)
    for number in range(500):
        log.write({"number": number, "reason": "x" * 50})
    files = sorted((tmp_path / "deep").iterdir())
    assert [path.name for path in files] == ["events.jsonl", "events.jsonl.1"]
    assert all(path.stat().st_size <= 2000 for path in files)
    lines = [json.loads(line) for path in reversed(files) for line in path.read_text().splitlines()]
    assert [line["number"] for line in lines] == list(range(500 - len(lines), 500))


def test_a_log_that_somebody_moved_away_is_begun_anew(tmp_path: Path) -> None:
    log = EventLog(tmp_path / "events.jsonl")
    log.write({"a": 1})
    (tmp_path / "events.jsonl").rename(tmp_path / "kept")
    log.write({"a": 2})
    assert json.loads((tmp_path / "events.jsonl").read_text()) == {"a": 2}


FULL = """
import json, resource, sys
from pathlib import Path
from seatrial.serve.triton.supervision.standing import EventLog
log = EventLog(Path(sys.argv[1]))
log.write({"first": "x" * 40})
resource.setrlimit(resource.RLIMIT_FSIZE, (70, resource.RLIM_INFINITY))
refused = 0
for _ in range(3):
    try:
        log.write({"next": "x" * 40})
    except OSError:
        refused += 1
resource.setrlimit(resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
log.write({"last": 1})
print(refused)
"""


def test_a_disk_that_is_full_for_a_while_leaves_no_half_line(tmp_path: Path) -> None:
    path = tmp_path / "events.jsonl"
    environment = os.environ | {"PYTHONPATH": os.pathsep.join([str(ROOT), *sys.path])}
    ran = subprocess.run(
        [sys.executable, "-c", FULL, str(path)], env=environment, capture_output=True, text=True, check=True, timeout=60
    )
    assert ran.stdout.strip() == "3"
    assert [list(json.loads(line)) for line in path.read_text().splitlines()] == [["first"], ["last"]]


def test_a_listener_that_went_away_ends_nothing() -> None:
    def gone(event: dict[str, object]) -> None:
        raise BrokenPipeError(32, "Broken pipe")

    reporter = Reporter(lambda: "url", dict, gone, UNMETERED)
    reporter.say("watching", "server")
    reporter.close()
    assert json.loads((supervision() / "events.jsonl").read_text())["event"] == "watching"
