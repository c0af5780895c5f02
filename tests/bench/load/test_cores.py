"""Cores of client and server: found by the port where no process is named, and unknown where there is none."""

import os
import socket

from seatrial.bench.load.cores import client_cores, server_cores
from seatrial.bench.targets import Endpoint


def endpoint(port: int, *pids: int) -> Endpoint:
    return Endpoint(url=f"127.0.0.1:{port}", model="m", version="1", inputs=(), outputs=(), pids=pids)


def test_a_listening_process_is_found_by_its_port() -> None:
    mine = sorted(os.sched_getaffinity(0))
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
        assert server_cores(endpoint(port)) == mine
    assert server_cores(endpoint(port)) == []
    assert server_cores(endpoint(port, os.getpid())) == mine


def test_a_pinned_client_has_its_own_cores() -> None:
    assert client_cores([3, 1]) == [1, 3]
    assert client_cores() == sorted(os.sched_getaffinity(0))
