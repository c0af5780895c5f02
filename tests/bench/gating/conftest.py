"""What a gate in this process stands on, so that it needs no server, no pause and no measurement of the machine."""

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager

import pytest

from seatrial.bench.gating import gate as gate_room
from tests.support.gating import Answer, Host, standing


@pytest.fixture(scope="module")
def memory_of_a_server() -> Iterator[int]:
    """A process whose memory is the servers' of every gate of a module."""
    with standing() as pid:
        yield pid


@pytest.fixture
def steady_machine(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing real is disturbed, so nothing has to calm down, and the machine need not be asked what it can do."""
    monkeypatch.setattr(gate_room, "_SETTLE", 0.0)
    monkeypatch.setattr(gate_room, "control_seconds", lambda: 0.0004)


@pytest.fixture
def stub_host(
    memory_of_a_server: int, kserve: Callable[[Answer], AbstractContextManager[int]], steady_machine: None
) -> None:
    """`Host` serves from this process."""
    Host.pid = memory_of_a_server
    Host.serve = staticmethod(kserve)
