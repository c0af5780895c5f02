"""The client of an OCI registry against servers that misbehave: whom it tells the log-in, and how much it reads."""

import base64
import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from seatrial.optimize.artifact import digest_bytes
from seatrial.optimize.errors import IntegrityError
from seatrial.serve.errors import ExchangeError
from seatrial.serve.release.exchange.on_oras import OciRepository

WORD = base64.b64encode(b"ship:harbour").decode()


@contextmanager
def server(handler: type[BaseHTTPRequestHandler]) -> Iterator[str]:
    listening = ThreadingHTTPServer(("127.0.0.1", 0), handler)
    listening.daemon_threads = True
    thread = threading.Thread(target=listening.serve_forever, args=(0.05,), daemon=True)
    thread.start()
    try:
        yield f"127.0.0.1:{listening.server_address[1]}"
    finally:
        listening.shutdown()
        listening.server_close()


class Quiet(BaseHTTPRequestHandler):
    """A handler that logs nothing and answers with empty bodies."""

    protocol_version = "HTTP/1.1"

    def log_message(self, *_: object) -> None:
        pass

    def reply(self, status: int, **headers: str) -> None:
        self.rfile.read(int(self.headers.get("Content-Length") or 0))
        self.send_response(status)
        for name, value in {**headers, "Content_Length": "0"}.items():
            self.send_header(name.replace("_", "-"), value)
        self.end_headers()


@pytest.fixture
def credentials(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.delenv("DOCKER_CONFIG", raising=False)
    (tmp_path / ".docker").mkdir()
    return tmp_path / ".docker" / "config.json"


def test_the_log_in_goes_to_the_registry_alone(credentials: Path) -> None:
    told: dict[str, list[str]] = {"registry": [], "other": []}

    class Other(Quiet):
        def do_PUT(self) -> None:
            told["other"].append(self.headers.get("Authorization", ""))
            self.reply(201)

    with server(Other) as other:

        class Registry(Quiet):
            def do_POST(self) -> None:
                told["registry"].append(self.headers.get("Authorization", ""))
                if not told["registry"][-1]:
                    self.reply(401, WWW_Authenticate='Basic realm="here"')
                else:
                    self.reply(202, Location=f"http://{other}/upload?state=1")

        with server(Registry) as host:
            credentials.write_text(json.dumps({"auths": {host: {"auth": WORD}}}))
            OciRepository(f"{host}/net").upload(digest_bytes(b"data"), 4, b"data")
    assert told == {"registry": ["", f"Basic {WORD}"], "other": [""]}


def test_a_body_without_end_is_not_read_to_its_end() -> None:
    sent = [0]

    class Endless(Quiet):
        def do_GET(self) -> None:
            self.send_response(500 if "blobs" in self.path else 200)
            self.end_headers()
            self.close_connection = True
            try:
                while sent[0] < 1 << 30:
                    sent[0] += self.wfile.write(b"\x1b[31mx" * 10_000)
            except OSError:
                pass

    with server(Endless) as host:
        repository = OciRepository(f"{host}/net:1")
        with pytest.raises(ExchangeError) as caught:
            repository.blob(digest_bytes(b""), 4, lambda _: None)
        assert "\x1b" not in str(caught.value)
        with pytest.raises(IntegrityError, match="larger than"):
            repository.manifest(1 << 20)
    assert sent[0] < 1 << 28


@pytest.mark.parametrize("size", [3, 5])
def test_a_blob_of_another_size_is_refused(size: int) -> None:
    class Short(Quiet):
        def do_GET(self) -> None:
            self.send_response(200)
            self.send_header("Content-Length", "4")
            self.end_headers()
            self.wfile.write(b"data")

    with server(Short) as host, pytest.raises(IntegrityError):
        OciRepository(f"{host}/net:1").blob(digest_bytes(b"data"), size, lambda _: None)
