"""Control of the real server, measured: switches under load, broken candidates, healing, stopping."""

import http.client
import os
import signal
import socket
import statistics
import subprocess
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from unittest.mock import patch

import numpy as np

from scripts.benchmarks.pinned_clients import pinned_clients
from scripts.benchmarks.rows import Row, Rows
from scripts.benchmarks.rows import main as run_rows
from scripts.benchmarks.versioned import NAME, put
from seatrial.optimize.errors import SeatrialError
from seatrial.serve.errors import RequestError, ServerError
from seatrial.serve.processes import free_ports, wait
from seatrial.serve.triton.control import Control
from seatrial.serve.triton.running import on_pytriton
from seatrial.serve.triton.running.on_pytriton import Server, serving
from seatrial.serve.triton.running.stubs import stubs
from seatrial.serve.triton.supervision import lasting
from seatrial.serve.triton.supervision.supervisor import supervise
from seatrial.serve.triton.supervision.switch import Switched, switch

SWITCHES = 100
REQUESTS = 50_000
SECONDS = 150.0
HEAL_SECONDS = 5.0
LOAD_SECONDS = 4.0
PATIENCE = 1.0  # a candidate that loads for eight seconds must not be felt
BROKEN: Mapping[str, Mapping[str, str]] = {
    "missing file": {},
    "half-copied directory": {},
    "raises while loading": {"before": "raise ValueError('no such weights')"},
    "NaN output": {"execute": "answer = answer * numpy.nan"},
    "wrong shape": {"execute": "answer = numpy.zeros((1, 3), numpy.float32)"},
    "slow load": {"initialize": f"import time; time.sleep({LOAD_SECONDS * 2})"},
    "out of memory": {
        "initialize": "import resource; resource.setrlimit(resource.RLIMIT_AS, (1 << 30, -1)); numpy.ones(1 << 30)"
    },
    "killed for memory": {"initialize": "import os, signal; os.kill(os.getpid(), signal.SIGKILL)"},
}


def cut_over(folder: Path) -> Row:
    """Cut-over and rollback in turn under load; clients name the version that the routes name."""
    repository = folder / "models"
    put(repository, 1)
    put(repository, 2, execute="self.second = True")
    made: list[Switched] = []
    marks: dict[str, list[float]] = {"proven": [], "narrowed": []}

    def at(step: str) -> None:
        if step in marks:
            marks[step].append(time.perf_counter())

    with _home(folder), serving(repository, (NAME,)) as server, Control.to(server) as control:
        with pinned_clients(server.url, 1) as clients:
            began = time.monotonic()
            for turn in range(SWITCHES):
                new = 2 - turn % 2
                switch(control, repository, NAME, (1, 2))
                clients.route(new)
                made.append(switch(control, repository, NAME, (new,), at=at))
            while clients.counts().sent < REQUESTS and time.monotonic() - began < SECONDS:
                time.sleep(0.1)
        counts = clients.counts()
    itself = [(end - begin) * 1e3 for begin, end in zip(*marks.values(), strict=True)]
    median, whole = statistics.median(itself), [each.total * 1e3 for each in made]
    called = [each.seconds * 1e3 for each in made]
    return Row(
        name="cut-over",
        claim=f"cut-over and rollback under load, {len(made)} times, requests pinned to the version that the routes "
        "name: the switch itself, from asking the server for its configuration to reading back that it obeys",
        value=f"median {median:.1f} ms, highest {max(itself):.1f} ms; with the intent made durable before: median "
        f"{statistics.median(called):.1f} ms; with config.pbtxt and journal written and read back after: median "
        f"{statistics.median(whole):.1f} ms; {counts.failed} failed and {counts.misversioned} mis-versioned of "
        f"{counts.sent} requests {counts.first_failure}".rstrip(),
        bar=f"<= 5 ms median, 0 failed or mis-versioned of >= {REQUESTS}",
        met=median <= 5 and counts.failed == counts.misversioned == 0 and counts.sent >= REQUESTS,
    )


def broken_candidates(folder: Path) -> Row:
    """Candidates of every broken kind beside a stable version under load; and the stock probe with strict readiness."""
    repository = folder / "models"
    put(repository, 1)
    for version, (kind, statements) in enumerate(BROKEN.items(), start=2):
        _spoil(put(repository, version, **statements), kind)
    reasons, serves = {}, []
    with _home(folder), serving(repository, (NAME,)) as server:
        with pinned_clients(server.url, 1, clients=2) as clients:
            for version, kind in enumerate(BROKEN, start=2):
                with Control.to(server, timeout=LOAD_SECONDS) as control:
                    reasons[kind] = _refusal(control, repository, (1, version))
                with Control.to(server, timeout=30.0) as control:
                    _await_loads(control)
                    switch(control, repository, NAME, (1,))  # finishes the undoing where the server was busy loading
                    serves.append(control.ready_versions(NAME) == {1})
        counts = clients.counts()
        stock = _strict(server, repository)
    told = "; ".join(f"{kind}: {reason or 'NOT REFUSED'}" for kind, reason in reasons.items())
    return Row(
        name="broken-candidates",
        claim=f"{len(BROKEN)} broken candidates beside a stable version under load; and the same server with strict "
        "readiness, as the stock probe sees it after one candidate that does not load",
        value=f"stable: {counts.failed} failed of {counts.sent} requests {counts.first_failure}, longest "
        f"{counts.longest:.2f} s; {told}; {stock}",
        bar=f"stable serves throughout, no answer above {PATIENCE:g} s; every candidate refused with its reason",
        met=counts.failed == counts.misversioned == 0
        and 0 < counts.longest < PATIENCE
        and all(reasons.values())
        and all(serves),
    )


def _await_loads(control: Control) -> None:
    """Triton goes on with a load whose client has given up."""
    wait(lambda: all(each.state != "LOADING" for each in control.index()), 4 * LOAD_SECONDS)


def _spoil(version: Path, kind: str) -> None:
    """Damage a version by `kind`, for instance as an interrupted copy does: a missing or half-written file."""
    model = version / "model.py"
    if kind == "missing file":
        model.unlink()
    elif kind == "half-copied directory":
        model.write_bytes(model.read_bytes()[: model.stat().st_size // 2])


def _refusal(control: Control, repository: Path, versions: tuple[int, ...]) -> str:
    try:
        switch(control, repository, NAME, versions)
    except SeatrialError as error:
        return " ".join(error.what.split())[:110]
    return ""


def _strict(server: Server, repository: Path) -> str:
    """A second server, started as the first but with Triton's own readiness: one failed load, then the stock probe."""
    words = Path(f"/proc/{server.pid}/cmdline").read_text().strip("\0").split("\0")
    ports = dict(zip(("http", "grpc", "metrics"), free_ports(3), strict=True))
    kept = [word for word in words if "-port=" not in word and "strict-readiness" not in word]
    kept += [f"--{side}-port={port}" for side, port in ports.items()]
    around = dict(
        pair.split("=", 1) for pair in Path(f"/proc/{server.pid}/environ").read_text().split("\0") if "=" in pair
    )
    url, raises = f"127.0.0.1:{ports['http']}", 2 + list(BROKEN).index("raises while loading")
    with tempfile.TemporaryFile() as log, subprocess.Popen(kept, env=around, stdout=log, stderr=log) as process:
        try:
            with Control(url, timeout=30.0) as control:
                wait(control.live, 30.0)
                control.load(NAME)
                before = _status(url, "/v2/health/ready")
                try:
                    control.set_versions(NAME, (1, raises))
                except SeatrialError:
                    after = _status(url, "/v2/health/ready")
                else:
                    after = 0
                stable = _answers(url, 1)
                control.dismiss(NAME)
        finally:
            process.terminate()
    return f"stock /v2/health/ready with strict readiness: {before} before, {after} after, stable answers: {stable}"


def healing(folder: Path) -> Row:
    """Seconds from the blow until the version answers again, as a client sees it."""
    repository = folder / "models"
    put(repository, 1)
    put(repository, 2, execute="self.second = True")
    took: dict[str, float] = {}
    with _home(folder):
        server = lasting.up(repository, (NAME,), foreign=(NAME,))
        try:
            with Control.to(server) as control:
                switch(control, repository, NAME, (1, 2))
            with _supervised():
                for kind, blow in BLOWS.items():
                    time.sleep(1.5)
                    began = time.monotonic()
                    blow()
                    healed = wait(lambda: _answers(server.url, 2) and _answers(server.url, 1), 30.0)
                    took[kind] = time.monotonic() - began if healed else float("inf")
        finally:
            on_pytriton.down()
    return Row(
        name="supervise",
        claim="seconds from the blow until both versions answer again, every health endpoint saying ready meanwhile",
        value=", ".join(f"{kind} {seconds:.1f}" for kind, seconds in took.items()),
        bar=f"<= {HEAL_SECONDS:g} s each",
        met=len(took) == len(BLOWS) and max(took.values()) <= HEAL_SECONDS,
    )


def stopping(folder: Path) -> Row:
    """Seconds that `down` takes with an idle keep-alive connection, and requests lost that were sent before it."""
    repository = folder / "models"
    put(repository, 1, execute="import time; time.sleep(0.2)")
    answers: list[bool] = []
    ends: list[float] = []

    def ask() -> None:
        answers.append(_answers(server.url, 1, 20.0))
        ends.append(time.monotonic())

    with _home(folder):
        server = lasting.up(repository, (NAME,), foreign=(NAME,))
        threads = [threading.Thread(target=ask) for _ in range(10)]
        with socket.create_connection(("127.0.0.1", server.http_port)) as idle:
            idle.send(b"GET /v2/health/live HTTP/1.1\r\nHost: idle\r\n\r\n")
            idle.recv(100)
            for thread in threads:
                thread.start()
            time.sleep(0.5)  # all of them are in the server by now, two seconds of work
            drained = on_pytriton.down()
            down = time.monotonic()
        for thread in threads:
            thread.join()
    took = down - max(ends)
    return Row(
        name="stopping",
        claim="taking a server down with two seconds of requests in its queue and an idle keep-alive connection: from "
        "the last answer until it is gone",
        value=f"{took:.1f} s, {answers.count(False)} of {len(answers)} requests lost, "
        f"ran empty: {drained is not None and drained.empty}",
        bar="<= 5 s, none lost (Triton alone waits out its exit timeout, 30 s by default)",
        met=took <= 5 and len(answers) == len(threads) and all(answers),
    )


@contextmanager
def _supervised() -> Iterator[None]:
    """The supervisor in a thread; it is a process of its own in service, and the loop is the same."""
    done = threading.Event()
    thread = threading.Thread(
        target=supervise, args=(on_pytriton.wanted, on_pytriton.restart), kwargs={"stop": done.is_set}
    )
    thread.start()
    try:
        yield
    finally:
        done.set()
        thread.join()


def _blow(version: int | None, number: signal.Signals) -> Callable[[], None]:
    def strike() -> None:
        server = on_pytriton.wanted()
        if server is None:
            raise ServerError("no server to strike")
        hit = [each.pid for each in stubs(server.pid) if each.version == version] if version else [server.pid]
        for pid in hit:
            os.kill(pid, number)

    return strike


BLOWS: Mapping[str, Callable[[], None]] = {
    "model process killed": _blow(2, signal.SIGKILL),
    "model process stalled": _blow(2, signal.SIGSTOP),
    "server killed": _blow(None, signal.SIGKILL),
    "server stalled": _blow(None, signal.SIGSTOP),
}


def _answers(url: str, version: int, timeout: float = 2.0) -> bool:
    try:
        with Control(url, timeout=timeout) as control:
            answer = control.infer(NAME, version, {"x": np.zeros((1, 4), np.float32)})
    except (RequestError, ServerError):
        return False
    return bool(answer["y"][0, 0] == version)


def _status(url: str, path: str) -> int:
    connection = http.client.HTTPConnection(url, timeout=10.0)
    try:
        connection.request("GET", path)
        return connection.getresponse().status
    finally:
        connection.close()


def _home(folder: Path) -> AbstractContextManager[object]:
    """A SEATRIAL_HOME of this row alone, so that a server that is up is left in peace."""
    return patch.dict(os.environ, SEATRIAL_HOME=str(folder / "home"))


ROWS: Rows = {
    "cut-over": cut_over,
    "broken-candidates": broken_candidates,
    "supervise": healing,
    "stopping": stopping,
}


def main() -> int:
    """Run them."""
    return run_rows("What control promises, measured.", ROWS)


if __name__ == "__main__":
    raise SystemExit(main())
