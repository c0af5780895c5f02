"""An edge for as long as a block lasts, with callers over HTTP and gRPC, and readings of what they and its log say."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager

from scripts.benchmarks.teller import Grpc, Http, Told
from seatrial.serve.processes import start_ticks, wait
from seatrial.serve.traffic.edge import Edge
from seatrial.serve.traffic.envoy import access_log, on_envoy
from seatrial.serve.traffic.envoy.config import Extras
from seatrial.serve.traffic.envoy.proxy import Proxy
from seatrial.serve.traffic.routes import Routes
from seatrial.serve.traffic.seen import Seen


@contextmanager
def opened(edge: Edge, *routes: Routes, extras: Extras | None = None) -> Iterator[tuple[Proxy, Http, Grpc]]:
    with on_envoy.serving(edge, routes, extras=extras) as proxy:
        http, grpc = Http(proxy.url), Grpc(proxy.url)
        try:
            yield proxy, http, grpc
        finally:
            http.close()
            grpc.close()
    assert start_ticks(proxy.pid) is None
    assert not proxy.folder.exists()
    assert not proxy.sockets.exists()


def seen(proxy: Proxy, least: int) -> list[Seen]:
    """The log once it has that many lines, or after two seconds."""
    wait(lambda: len(access_log.read(proxy.places.access_log)[0]) >= least, 2.0)
    return access_log.read(proxy.places.access_log)[0]


def split(share: float, mirror: float = 0.0) -> Routes:
    return Routes(model="teller", stable=1, candidate=2, share=share, mirror=mirror)


def versions(told: Sequence[Told]) -> set[int]:
    assert all(each.status in (0, 200) and str(each.version) == each.labelled for each in told)
    return {each.version for each in told}
