"""The benchmarks' client: counts whole replies however they are framed, and takes nothing but a 200 for one."""

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

from scripts.benchmarks import closed_loop
from seatrial.optimize.errors import SeatrialError


class Answers(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["Content-Length"])) * 5000  # more than one segment
        self.server.seen.append(self.path)  # type: ignore[attr-defined]
        self.send_response(503 if self.path == "/bad" else 200)
        if self.path == "/chunked":
            self.send_header("Transfer-Encoding", "chunked")
            self.end_headers()
            self.wfile.write(b"%x\r\n%s\r\n0\r\n\r\n" % (len(body), body))
            return
        self.send_header("Inference-Header-Content-Length", "7")  # not the length that counts
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: object) -> None:
        pass


@contextmanager
def answering() -> Iterator[tuple[str, list[str]]]:
    with ThreadingHTTPServer(("127.0.0.1", 0), Answers) as server:
        server.seen = []  # type: ignore[attr-defined]
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
        thread.start()
        try:
            yield f"127.0.0.1:{server.server_port}", server.seen  # type: ignore[attr-defined]
        finally:
            server.shutdown()
            thread.join()


@pytest.mark.parametrize("path", ["/plain", "/chunked"])
@pytest.mark.slow
def test_every_whole_reply_is_counted(path: str) -> None:
    with answering() as (address, seen):
        request = closed_loop.post(address, path, b"hello", [])
        found = closed_loop.run(address, [request] * 3, connections=2, seconds=0.3, warm_up=0.0)
    # All that were counted were seen; at most one a connection was under way when the time was over.
    assert 0 < found.replies <= len(seen) <= found.replies + 2
    assert 0 < found.p50_ms <= found.p99_ms
    assert found.cpu_seconds > 0


def test_a_refusal_ends_the_run() -> None:
    with answering() as (address, _):
        request = closed_loop.post(address, "/bad", b"hello", [])
        with pytest.raises(SeatrialError, match="503"):
            closed_loop.run(address, [request], connections=1, seconds=0.3)
