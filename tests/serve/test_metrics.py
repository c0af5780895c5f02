"""The metrics endpoint: read by Prometheus, on loopback, and unharmed by readers that hang or send garbage."""

import contextlib
import http.client
import socket
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from urllib.request import urlopen

import psutil
import pytest
from prometheus_client import Counter
from prometheus_client.parser import text_string_to_metric_families

from seatrial.serve import metrics
from seatrial.serve.errors import ServerError
from seatrial.serve.triton.supervision.healing import Watch
from seatrial.serve.triton.supervision.metering import Metered

GARBAGE = [
    b"\x16\x03\x01\x02\x00\x01\x00",
    b"GET / HTTP/1.1\r\n\r\n",
    b"POST /metrics HTTP/1.1\r\n\r\n",
    b"GET /metrics\r\n\r\n",
    b"\r\n\r\n",
    b"GET /metrics HTTP/1.1\r\nAccept: \xff\xff\r\n\r\n",
    b"GET " + b"x" * 100_000 + b" HTTP/1.1\r\n\r\n",
    b"GET /metrics HTTP/1.1\r\n" + b"A: b\r\n" * 50_000 + b"\r\n",
]


@pytest.fixture
def endpoint() -> Iterator[metrics.Endpoint]:
    registry = metrics.registry()
    Counter("seatrial_test", "Tried.", ("how",), registry=registry).labels('a "quoted"\nname').inc(3)
    with metrics.Endpoint(registry) as made:
        yield made


def scrape(endpoint: metrics.Endpoint) -> dict[str, float]:
    with urlopen(endpoint.url, timeout=10) as reply:
        families = text_string_to_metric_families(reply.read().decode())
        return {
            " ".join([sample.name, *sample.labels.values()]): sample.value
            for family in families
            for sample in family.samples
        }


def settled(endpoint: metrics.Endpoint) -> None:
    """Wait until the endpoint holds no connection any more: it closes its end after the reader closed his."""
    until = time.monotonic() + 30.0
    while endpoint._open and time.monotonic() < until:
        time.sleep(0.02)
    assert endpoint._open == 0


def test_prometheus_reads_what_was_counted_and_what_the_process_holds(endpoint: metrics.Endpoint) -> None:
    found = scrape(endpoint)
    assert found['seatrial_test_total a "quoted"\nname'] == 3
    assert found["process_open_fds"] > 3
    assert found["process_resident_memory_bytes"] > 1e6
    assert found["process_threads"] >= 2


def test_it_listens_on_loopback_only(endpoint: metrics.Endpoint) -> None:
    held = [each.laddr for each in psutil.Process().net_connections() if each.status == psutil.CONN_LISTEN]
    assert [address.ip for address in held if address.port == endpoint.port] == ["127.0.0.1"]


@pytest.mark.timeout(60)
@pytest.mark.slow
def test_readers_that_hang_or_send_garbage_neither_stop_it_nor_stay(endpoint: metrics.Endpoint) -> None:
    process = psutil.Process()
    scrape(endpoint)
    settled(endpoint)
    threads, descriptors = process.num_threads(), process.num_fds()
    with contextlib.ExitStack() as stack:
        for number in range(40):
            hanging = stack.enter_context(socket.create_connection(("127.0.0.1", endpoint.port)))
            with contextlib.suppress(OSError):  # the seventeenth is dropped at once
                hanging.sendall(b"GET /metr" if number % 2 else b"")
        assert process.num_threads() <= threads
        time.sleep(2.5)
        assert scrape(endpoint)
    for garbage in GARBAGE:
        with socket.create_connection(("127.0.0.1", endpoint.port), timeout=5) as sent, contextlib.suppress(OSError):
            sent.sendall(garbage)
            assert b"200 OK" not in sent.recv(100) or b"Accept" in garbage
    for _ in range(50):
        scrape(endpoint)
    settled(endpoint)
    assert process.num_threads() <= threads
    assert process.num_fds() <= descriptors, "fewer where what an earlier test held was let go meanwhile"


@pytest.mark.timeout(30)
@pytest.mark.slow
def test_a_reader_that_takes_nothing_of_a_large_reply_is_dropped() -> None:
    registry = metrics.registry()
    counter = Counter("seatrial_large", "Large.", ("name",), registry=registry)
    for number in range(40_000):
        counter.labels(f"{number:0200}").inc()
    with metrics.Endpoint(registry) as endpoint, socket.socket() as slow:
        slow.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        slow.connect(("127.0.0.1", endpoint.port))
        slow.sendall(b"GET /metrics HTTP/1.1\r\n\r\n")
        until = time.monotonic() + 20.0
        while endpoint._open == 0 and time.monotonic() < until:
            time.sleep(0.01)
        while endpoint._open and time.monotonic() < until:
            time.sleep(0.05)
        assert endpoint._open == 0


def test_a_port_that_is_taken_is_an_error_that_says_so(endpoint: metrics.Endpoint) -> None:
    before = threading.active_count()
    with pytest.raises(ServerError, match=f"port {endpoint.port}"), metrics.Endpoint(metrics.registry(), endpoint.port):
        pass
    assert threading.active_count() <= before, "fewer where a thread of an earlier test has ended meanwhile"


def test_it_ends_with_its_block_and_leaves_nothing() -> None:
    process = psutil.Process()
    with metrics.Endpoint(metrics.registry()):
        pass
    threads, descriptors = process.num_threads(), process.num_fds()
    for _ in range(5):
        with metrics.Endpoint(metrics.registry()) as endpoint:
            scrape(endpoint)
        with pytest.raises(OSError, match="refused"):
            http.client.HTTPConnection("127.0.0.1", endpoint.port, timeout=5).connect()
    until = time.monotonic() + 10.0  # a thread that has ended may take a moment to go
    while (process.num_threads() > threads or process.num_fds() > descriptors) and time.monotonic() < until:
        time.sleep(0.02)
    assert process.num_threads() <= threads
    assert process.num_fds() <= descriptors


def test_the_supervisors_metrics_say_how_things_stand(tmp_path: Path) -> None:
    registry = metrics.registry()
    meter = Metered(registry)
    with metrics.Endpoint(registry) as endpoint:
        meter.stands({"server": Watch(restarts=2), "m/1": Watch(state="resting", attempts=(1.0, 2.0))})
        meter.probed("m/1", "late", 2.1)
        meter.event("healed", "m/1")
        meter.blind("Too many open files")
        found = scrape(endpoint)
        assert found["seatrial_supervisor_restarts server"] == 2
        assert found["seatrial_supervisor_state resting m/1"] == 1
        assert found["seatrial_supervisor_state serving m/1"] == 0
        assert found["seatrial_supervisor_attempts_in_a_row m/1"] == 2
        assert found["seatrial_supervisor_probes_total late m/1"] == 1
        assert found["seatrial_supervisor_probe_seconds_bucket 2.5 m/1"] == 1
        assert found["seatrial_supervisor_probe_seconds_bucket 1.0 m/1"] == 0
        assert found["seatrial_supervisor_events_total healed m/1"] == 1
        assert found["seatrial_supervisor_cannot_look_total Too many open files"] == 1
        time.sleep(0.2)
        assert scrape(endpoint)["seatrial_supervisor_seconds_since_complete_look"] >= 0.2
        looked = time.monotonic()
        meter.looked()
        meter.stands({"server": Watch()})
        found = scrape(endpoint)
        assert found["seatrial_supervisor_seconds_since_complete_look"] <= time.monotonic() - looked
        assert not any("m/1" in name for name in found if "state" in name or "restarts" in name)
