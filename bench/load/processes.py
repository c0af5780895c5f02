"""The load processes of one run: started, given the start time, awaited, and always ended.

One worker is a Locust by itself; several, or a web UI, have a Locust master that adds their tables up. Talks to them
through files in one folder. Never imports Locust: its gevent patches would reach into the process that judges.
"""

import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from importlib.util import find_spec
from math import ceil
from pathlib import Path
from typing import Any

import numpy as np

from seatrial.optimize import guarding
from seatrial.optimize.interrupts import held
from seatrial.optimize.store import write_atomically

from ..errors import LoadError, TargetError

Progress = Callable[[float], None]
"""Called with the completed fraction of the run, 0 to 1."""
Process = subprocess.Popen[bytes]
Result = tuple[dict[str, Any], dict[str, Any]]
"""A worker's report on its run, and its raw arrays."""

_LOCUSTFILE = Path(__file__).with_name("locustfile.py")
_READY_SECONDS = 90.0  # starting Python and Locust, connecting, warming
_LEAD_SECONDS = 0.3  # between the word to start and second 0
_END_SECONDS = 20.0  # writing the results and leaving
_STOP_SECONDS = 10.0  # the same after an early stop
_GRACE_SECONDS = 3.0
_POLL_SECONDS = 0.02
_UI_SECONDS = 600.0  # longest that a web UI stays after the run


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    """Results of the workers in order (None: lost), reasons against the run, and whether it was cut short."""

    results: tuple[Result | None, ...]
    faults: tuple[str, ...]
    interrupted: bool


@contextmanager
def running(
    parameters: Sequence[dict[str, Any]],
    exchange: Path,
    *,
    seconds: float,
    drain: float,
    progress: Progress | None = None,
    ui: Callable[[str], None] | None = None,
) -> Iterator[Outcome]:
    """Run one worker per entry of `parameters`; the block gets what they left, and no process outlives it.

    `ui` is told the address of Locust's web UI, which stays up while the block lasts. Ctrl-C stops the workers early
    and keeps what they measured.

    Raises:
        TargetError: a worker cannot load the target, and says why.
        LoadError: Locust is not installed, or no worker left a result.
    """
    if find_spec("locust") is None:
        raise LoadError("Locust is not installed", next_step="install it: pip install 'seatrial[load]'")
    cap = ceil(_READY_SECONDS + seconds + drain + _END_SECONDS + (_UI_SECONDS if ui else 0.0))
    processes: list[Process] = []
    lead: list[Process] = []
    grace = 0.0
    try:
        role = _role_of_one(cap)
        if ui or len(parameters) > 1:
            port, web = _free_ports(2)
            master = _role_of_master(port, web, len(parameters), cap, ui is not None)
            _start(lead, exchange, "master", parameters[0], master)
            role = _role_of_worker(port)
            if ui:
                ui(f"http://127.0.0.1:{web}")
        for worker, given in enumerate(parameters):
            _start(processes, exchange, f"worker-{worker}", given, role)
        _wait(processes, exchange, "ready.json", time.monotonic() + _READY_SECONDS)
        if lead and lead[0].poll() is not None:
            raise LoadError(
                "Locust's master ended", where=_tail(exchange / "master.log"), next_step="run the load again"
            )
        start = time.monotonic() + _LEAD_SECONDS
        write_atomically(exchange / "go.json", json.dumps({"start": start}).encode())
        outcome = _outcome(processes, exchange, (start, seconds, drain), progress)
        grace = _GRACE_SECONDS
        yield outcome
    finally:
        with held():
            _end(lead, 0.0)  # first: its end asks the workers for their last report, and prints the table
            _end(processes, grace)


def _outcome(
    processes: Sequence[Process], exchange: Path, times: tuple[float, float, float], progress: Progress | None
) -> Outcome:
    start, seconds, drain = times
    share = (lambda: progress(min(1.0, max(0.0, time.monotonic() - start) / seconds))) if progress else None
    interrupted = False
    try:
        lost = _wait(processes, exchange, "result.json", start + seconds + drain + _END_SECONDS, share)
    except KeyboardInterrupt:
        interrupted = True
        write_atomically(exchange / "stop.json", json.dumps({"reason": "interrupted"}).encode())
        lost = _wait(processes, exchange, "result.json", time.monotonic() + _STOP_SECONDS)
    results = tuple(None if each in lost else _result(exchange, each) for each in range(len(processes)))
    stops = sorted(exchange.glob("*stop.json"), key=lambda path: path.stat().st_mtime_ns)
    said = [f"aborted: {json.loads(stop.read_text())['reason']}" for stop in stops[:1]]
    said += [f"worker {each} of {len(processes)} was lost: {why}" for each, why in sorted(lost.items())]
    return Outcome(results=results, faults=tuple(said), interrupted=interrupted)


def _role_of_master(port: int, web: int, workers: int, cap: int, ui: bool) -> list[str]:
    """Adds up what the workers report, on ports of this machine alone; headless, or with its web UI."""
    count = str(workers)
    role = ["--master", "--master-bind-host", "127.0.0.1", "--master-bind-port", str(port)]
    role += ["--expect-workers", count, "--expect-workers-max-wait", str(int(_READY_SECONDS))]
    role += ["--users", count, "--spawn-rate", count, "--run-time", f"{cap}s", "--only-summary"]
    return role + (["--autostart", "--web-host", "127.0.0.1", "--web-port", str(web)] if ui else ["--headless"])


def _role_of_worker(port: int) -> list[str]:
    return ["--worker", "--master-host", "127.0.0.1", "--master-port", str(port)]


def _role_of_one(cap: int) -> list[str]:
    return ["--headless", "--only-summary", "--users", "1", "--spawn-rate", "1", "--run-time", f"{cap}s"]


def _start(processes: list[Process], exchange: Path, name: str, given: dict[str, Any], role: Sequence[str]) -> None:
    """Start one more Locust, which ends with this process."""
    with held():
        processes.append(_started(exchange, name, given, role))
        guarding.guard(processes[-1].pid, folders=(exchange,))


def _started(exchange: Path, name: str, given: dict[str, Any], role: Sequence[str]) -> Process:
    """One Locust in a process group of its own, so that a Ctrl-C at the terminal reaches it through us alone."""
    write_atomically(exchange / f"{name}.json", json.dumps(given).encode())
    root = str(Path(__file__).parents[3])
    inherited = {name: value for name, value in os.environ.items() if not name.startswith("LOCUST_")}
    environment = inherited | {
        "PYTHONPATH": os.pathsep.join(filter(None, (root, inherited.get("PYTHONPATH", "")))),
        "SEATRIAL_LOAD": str(exchange / f"{name}.json"),
        "OMP_NUM_THREADS": "1",
    }
    command = [sys.executable, "-m", "locust", "--locustfile", str(_LOCUSTFILE), *role]
    command += ["--exit-code-on-error", "0", "--loglevel", "WARNING"]
    with (exchange / f"{name}.log").open("wb") as stream:
        return subprocess.Popen(
            command,
            cwd=exchange,
            env=environment,
            stdin=subprocess.DEVNULL,
            stdout=stream,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )


def _wait(
    processes: Sequence[Process],
    exchange: Path,
    name: str,
    deadline: float,
    tick: Callable[[], None] | None = None,
) -> dict[int, str]:
    """Until every worker has left the file `name`; those that cannot any more, once there are others, with the reason.

    Before the start (``ready.json``) a lost worker ends the run: nothing has been measured yet.

    Raises:
        TargetError: a worker says that it cannot load the target.
        LoadError: no worker is left, or one is missing at the start.
    """
    missing, lost = set(range(len(processes))), dict[int, str]()
    while missing:
        ended = {worker for worker in missing if processes[worker].poll() is not None}
        missing -= {worker for worker in missing if (exchange / f"worker-{worker}-{name}").exists()}
        for worker in sorted(missing):
            failed = exchange / f"worker-{worker}-failed.json"
            if failed.exists():
                lost[worker] = json.loads(failed.read_text())["error"]
                if name == "ready.json":
                    raise TargetError(
                        f"the target cannot be loaded: {lost[worker]}",
                        next_step="check that the server runs, the model is ready, and the samples fit its inputs",
                    )
            elif worker in ended:
                lost[worker] = f"its process ended ({_ending(processes[worker])})"
            elif time.monotonic() > deadline:
                lost[worker] = "it timed out"
        missing -= set(lost)
        if lost and (name == "ready.json" or len(lost) == len(processes)):
            worker, why = next(iter(lost.items()))
            told = (exchange / f"worker-{worker}-failed.json").exists()
            raise LoadError(
                f"nothing was measured, a load process was lost: {why}",
                where="" if told else _tail(exchange / f"worker-{worker}.log"),
                next_step="free processor time and disk, or lower the rate; then run the load again",
            )
        if tick:
            tick()
        if missing:
            time.sleep(_POLL_SECONDS)
    return lost


def _ending(process: Process) -> str:
    code = process.returncode or 0
    return signal.Signals(-code).name if code < 0 else f"exit {code}"


def _end(processes: Sequence[Process], grace: float) -> None:
    """Let every process leave by itself for `grace` seconds, then end its group."""
    for signal_number, patience in ((None, grace), (signal.SIGTERM, 4.0), (signal.SIGKILL, 5.0)):
        running = [process for process in processes if process.poll() is None]
        for process in running:
            if signal_number is not None:
                with suppress(ProcessLookupError):
                    os.killpg(process.pid, signal_number)
        until = time.monotonic() + patience
        for process in running:
            with suppress(subprocess.TimeoutExpired):
                process.wait(max(0.0, until - time.monotonic()))
    for process in processes:
        guarding.release(process.pid)


def _result(exchange: Path, worker: int) -> Result:
    about = json.loads((exchange / f"worker-{worker}-result.json").read_text())
    with np.load(exchange / f"worker-{worker}-arrays.npz", allow_pickle=False) as stored:
        return about, {name: stored[name] for name in stored.files}


def _free_ports(count: int) -> list[int]:
    with_ports = [socket.create_server(("127.0.0.1", 0)) for _ in range(count)]
    ports = [each.getsockname()[1] for each in with_ports]
    for each in with_ports:
        each.close()
    return ports


def _tail(log: Path, size: int = 2000) -> str:
    try:
        return log.read_bytes()[-size:].decode(errors="replace").strip()
    except OSError:
        return ""
