"""A stop of the real Envoy that is interrupted while requests drain ends it all the same."""

from pathlib import Path
from typing import NoReturn

import psutil
import pytest

from seatrial.serve.processes import free_ports
from seatrial.serve.traffic.edge import Edge, Model, Server
from seatrial.serve.traffic.envoy import on_envoy

pytestmark = pytest.mark.system


def test_an_interrupted_stop_leaves_no_envoy(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    http, grpc = free_ports(2)
    server = Server(http=f"127.0.0.1:{http}", grpc=f"127.0.0.1:{grpc}")
    proxy = on_envoy.up(Edge(schema=1, name="stopped", port=0, server=server, models=(Model(name="m"),)))

    def interrupted(*_: object) -> NoReturn:
        assert psutil.pid_exists(proxy.pid)
        raise KeyboardInterrupt

    monkeypatch.setattr(on_envoy, "_drain", interrupted)
    with pytest.raises(KeyboardInterrupt):
        on_envoy.down("stopped")
    assert not psutil.pid_exists(proxy.pid)
    assert on_envoy.names() == []
    assert not proxy.sockets.exists()
