"""The supervisor of a server that is gone: it tries again for ever, and its own shortages are no attempts."""

import gc
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from seatrial.optimize.errors import IntegrityError
from seatrial.serve.errors import ExhaustedError, ServerError
from seatrial.serve.triton.server import Server
from seatrial.serve.triton.supervision.healing import Backoff
from seatrial.serve.triton.supervision.supervisor import Pace, Supervisor, standing, supervise

PACE = Pace(period=0.001, backoff=Backoff(limit=2, pause=0.01, ceiling=0.04))


@pytest.fixture(autouse=True)
def no_collection(monkeypatch: pytest.MonkeyPatch) -> None:
    """Freeing takes seconds in the process of all tests, which holds much; a supervisor's own holds little."""
    monkeypatch.setattr(gc, "collect", lambda: 0)


@pytest.fixture
def gone(tmp_path: Path) -> Server:
    """A server whose process is no more."""
    return Server(
        pid=2**22 + 1,
        started=1,
        http_port=1,
        grpc_port=2,
        metrics_port=3,
        repository=tmp_path / "repository",
        log=tmp_path / "log",
        scratch=tmp_path / "scratch",
        shm_prefix="gone",
        models=("m",),
    )


def failing(error: Exception) -> Callable[..., Server | None]:
    def restart(server: Server, models: tuple[str, ...]) -> Server | None:
        raise error

    return restart


@pytest.mark.slow
def test_a_server_that_cannot_be_started_is_tried_for_ever_at_bounded_pauses(gone: Server) -> None:
    events: list[dict[str, Any]] = []
    pace = Pace(backoff=Backoff(limit=2, pause=0.01, ceiling=0.5))
    watching = Supervisor(gone, failing(ServerError("a port is taken")), pace=pace, tell=events.append)
    until = time.monotonic() + 60.0
    while len(tried := [event for event in events if event["event"] == "not healed"]) < 9:
        assert time.monotonic() < until
        assert watching.tick()
        time.sleep(0.002)
    watching.close()
    assert {event["reason"] for event in tried} == {"a port is taken"}
    resting = [event for event in events if event["event"] == "resting"]
    assert resting
    assert all(0 <= event["next_attempt_in"] <= 0.5 for event in resting)
    assert standing()["server"].restarts == len(tried)
    assert standing()["server"].state in ("healing", "resting")


@pytest.mark.parametrize("error", [ExhaustedError("no descriptors"), OSError(24, "Too many open files"), MemoryError()])
def test_an_attempt_that_we_had_no_means_for_counts_neither_as_one_nor_against_anybody(
    error: Exception, gone: Server
) -> None:
    if isinstance(error, ExhaustedError):
        error.__cause__ = OSError(24, "Too many open files")
    events: list[dict[str, Any]] = []
    watching = Supervisor(gone, failing(error), pace=PACE, tell=events.append)
    for _ in range(5):
        assert watching.tick()
    watching.close()
    assert standing()["server"].restarts == 0
    assert [event["event"] for event in events] == ["healing", "cannot look"]


def test_a_fault_of_the_supervisor_itself_is_told_with_its_place_and_ends_nothing(gone: Server) -> None:
    events: list[dict[str, Any]] = []
    watching = Supervisor(gone, failing(KeyError("surprise")), pace=PACE, tell=events.append)
    for _ in range(3):
        assert watching.tick()
    watching.close()
    told = [event for event in events if event["event"] == "cannot look"]
    again = sum(event["event"] == "looks again" for event in events)  # a tick in a pause heals nothing, and is whole
    assert len(told) in (again, again + 1)
    assert told
    assert "surprise" in told[0]["reason"]
    assert "test_supervisor.py" in told[0]["reason"]


def test_a_record_that_cannot_be_read_is_no_end(gone: Server) -> None:
    """It was read when the supervisor began; damaged since, the server is still meant to run."""
    events: list[dict[str, Any]] = []
    reads = 0

    def find() -> Server | None:
        nonlocal reads
        reads += 1
        if 1 < reads < 20:
            raise IntegrityError("the record of a server cannot be read", where="server.json")
        return gone if reads == 1 else None

    ended = supervise(find, failing(ServerError("no")), pace=PACE, tell=events.append)
    assert ended == "down"
    assert reads == 20
    assert [event["event"] for event in events].count("unclear") == 1
    assert events[-1]["event"] == "down"
