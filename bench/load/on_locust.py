"""Runs the load generator as a process of its own and reads what it left.

Never imports Locust: its gevent patches would reach into the process that judges. Refuses what could hurt by accident
(targets elsewhere, endless or unbounded load) and leaves no process behind, whatever ends it.
"""

import ipaddress
import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from math import ceil
from pathlib import Path
from typing import Any

import numpy as np

from optimize.errors import ConfigError
from optimize.store import write_atomically

from ..errors import LoadError, TargetError
from ..schedule import Schedule
from ..targets import Endpoint
from .payload import Payload
from .run import LoadRun, Saturation

__all__ = ["LoadRun", "Progress", "Saturation", "load", "saturate"]

Progress = Callable[[float], None]
"""Called with the share of the run that is over, 0 to 1."""

MAX_RATE = 20_000.0  # arrivals per second; a load process reaches a few thousand
MAX_SECONDS = 3600.0
MAX_IN_FLIGHT = 8192  # connections, and with them file handles, on both sides
MAX_WORKERS = 64

_LOCUSTFILE = Path(__file__).with_name("locustfile.py")
_READY_SECONDS = 90.0  # starting Python and Locust, connecting, warming
_LEAD_SECONDS = 0.3  # between the word to start and second 0
_END_SECONDS = 20.0  # writing the results and leaving
_GRACE_SECONDS = 3.0
_POLL_SECONDS = 0.02


def load(
    endpoint: Endpoint,
    schedule: Schedule,
    payload: Payload,
    *,
    folder: Path,
    in_flight: int = 256,
    workers: int = 1,
    warmup: int = 16,
    drain: float = 10.0,
    cores: Sequence[int] = (),
    real_time: bool = True,
    own_target: bool = False,
    progress: Progress | None = None,
) -> LoadRun:
    """Offer exactly the schedule to the endpoint, open loop, and keep the raw result in `folder`.

    At most `in_flight` requests per worker are open; arrivals beyond that are recorded as censored. `warmup` requests
    per worker go first, unrecorded. After the last arrival late replies are awaited for `drain` seconds. `cores` pins
    the load processes; `real_time` lets them run first where the machine allows it (`run.about` says whether it did),
    which keeps neighbours on the same cores out of the figures. `own_target` says that a server on another machine is
    yours to load. Locust's own table lands in ``locust.log``.

    Raises:
        ConfigError: more than the hard caps allow.
        TargetError: the target is not on this machine, cannot be reached, or refuses the requests as malformed.
        LoadError: the load process broke or did not end in time.
    """
    _check_limits(endpoint, schedule.seconds + drain, in_flight, workers, own_target)
    if schedule.rate > MAX_RATE:
        raise ConfigError(f"{schedule.rate}/s is above the hard cap of {MAX_RATE:.0f}/s", next_step="lower the rate")
    if not len(schedule):
        raise ConfigError("the schedule has no arrivals", next_step="raise the rate or lengthen the run")
    parameters = {
        "in_flight": in_flight,
        "connections": max(8, min(64, ceil(schedule.rate / workers / 4))),
        "warmup": warmup,
        "drain": drain,
        "real_time": real_time,
    }
    with _exchange(folder, payload) as exchange:
        schedule.save(exchange / "schedule.npz")
        results = _run("OpenLoop", endpoint, exchange, parameters, workers, cores, (schedule.seconds, drain), progress)
    run = _merged(results, endpoint, schedule, payload)
    run.save(folder)
    return run


def saturate(
    endpoint: Endpoint,
    payload: Payload,
    *,
    seconds: float,
    concurrency: int,
    folder: Path,
    warmup: int = 16,
    cores: Sequence[int] = (),
    own_target: bool = False,
    progress: Progress | None = None,
) -> Saturation:
    """Keep `concurrency` requests in flight for `seconds`, closed loop: the most that the server can do.

    Its latencies are those of a full queue and say nothing about users; use `load` for those.

    Raises: as `load`.
    """
    _check_limits(endpoint, seconds, concurrency, 1, own_target)
    parameters = {"concurrency": concurrency, "seconds": seconds, "warmup": warmup}
    with _exchange(folder, payload) as exchange:
        [(about, arrays)] = _run("Offline", endpoint, exchange, parameters, 1, cores, (seconds, 0.0), progress)
    saturation = Saturation(
        **arrays,
        seconds=seconds,
        concurrency=concurrency,
        batch=payload.batch,
        client_cpu=about["cpu_s"] / about["elapsed_s"],
        start=about["start"],
        target=endpoint.url + endpoint.path,
        reasons=_reasons([about]),
        about=_versions(about),
    )
    saturation.save(folder)
    return saturation


Result = tuple[dict[str, Any], dict[str, Any]]


def _check_limits(endpoint: Endpoint, seconds: float, in_flight: int, workers: int, own_target: bool) -> None:
    host, _ = endpoint.address
    if not own_target and not _is_loopback(host):
        raise TargetError(
            f"{host} is not this machine",
            where=endpoint.url,
            next_step="load only servers that are yours, and say so (own_target)",
        )
    for name, value, cap in (
        ("seconds", seconds, MAX_SECONDS),
        ("requests in flight", in_flight, MAX_IN_FLIGHT),
        ("workers", workers, MAX_WORKERS),
    ):
        if not 0 < value <= cap:
            raise ConfigError(f"{value} {name}: must be above 0 and at most {cap:g}")


def _is_loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


@contextmanager
def _exchange(folder: Path, payload: Payload) -> Iterator[Path]:
    """A folder inside `folder` through which this process and the load processes talk; gone afterwards."""
    folder.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=".load-", dir=folder.absolute()) as name:
        payload.save(Path(name) / "payload.npz")
        try:
            yield Path(name)
        finally:
            logs = sorted(Path(name).glob("worker-*.log"))
            (folder / "locust.log").write_bytes(b"".join(log.read_bytes() for log in logs))


def _run(
    user: str,
    endpoint: Endpoint,
    exchange: Path,
    parameters: dict[str, Any],
    workers: int,
    cores: Sequence[int],
    lengths: tuple[float, float],
    progress: Progress | None,
) -> list[Result]:
    """Start the workers, give the word, wait for them and read their results, in worker order."""
    host, port = endpoint.address
    seconds, drain = lengths
    cap = ceil(_READY_SECONDS + seconds + drain + _END_SECONDS)
    processes: list[subprocess.Popen[bytes]] = []
    grace = 0.0
    try:
        for worker in range(workers):
            given = parameters | {
                "folder": str(exchange),
                "host": host,
                "port": port,
                "name": endpoint.model,
                "worker": worker,
                "workers": workers,
                "cores": list(cores),
                "parent": os.getpid(),
            }
            write_atomically(exchange / f"worker-{worker}.json", json.dumps(given).encode())
            processes.append(_started(user, exchange, worker, cap))
        _wait(processes, exchange, "ready.json", time.monotonic() + _READY_SECONDS, None)
        start = time.monotonic() + _LEAD_SECONDS
        write_atomically(exchange / "go.json", json.dumps({"start": start}).encode())
        share = (lambda: progress(min(1.0, max(0.0, time.monotonic() - start) / seconds))) if progress else None
        _wait(processes, exchange, "result.json", start + seconds + drain + _END_SECONDS, share)
        grace = _GRACE_SECONDS
        return [_result(exchange, worker) for worker in range(workers)]
    finally:
        _end(processes, grace)


def _started(user: str, exchange: Path, worker: int, cap: int) -> "subprocess.Popen[bytes]":
    """One Locust in a process group of its own, so that a Ctrl-C at the terminal reaches it through us alone."""
    root = str(Path(__file__).parents[2])
    inherited = {name: value for name, value in os.environ.items() if not name.startswith("LOCUST_")}
    environment = inherited | {
        "PYTHONPATH": os.pathsep.join(filter(None, (root, inherited.get("PYTHONPATH", "")))),
        "SEATRIAL_LOAD": str(exchange / f"worker-{worker}.json"),
        "OMP_NUM_THREADS": "1",
    }
    log = exchange / f"worker-{worker}.log"
    command = [sys.executable, "-m", "locust", "--locustfile", str(_LOCUSTFILE), user, "--headless", "--only-summary"]
    command += ["--users", "1", "--spawn-rate", "1", "--run-time", f"{cap}s", "--exit-code-on-error", "0"]
    command += ["--loglevel", "WARNING"]
    with log.open("wb") as stream:
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
    processes: Sequence["subprocess.Popen[bytes]"],
    exchange: Path,
    name: str,
    deadline: float,
    tick: Callable[[], None] | None,
) -> None:
    """Until every worker has left the file `name`.

    Raises:
        TargetError: a worker says why it cannot.
        LoadError: a worker ended without it, or time is up.
    """
    missing = set(range(len(processes)))
    while True:
        ended = {worker for worker in missing if processes[worker].poll() is not None}
        missing -= {worker for worker in missing if (exchange / f"worker-{worker}-{name}").exists()}
        for worker in missing:
            failed = exchange / f"worker-{worker}-failed.json"
            if failed.exists():
                raise TargetError(
                    f"the target cannot be loaded: {json.loads(failed.read_text())['error']}",
                    next_step="check that the server is up, the model ready, and the samples fit its inputs",
                )
            if worker in ended or time.monotonic() > deadline:
                raise LoadError(
                    "the load process ended without a result" if worker in ended else "the load process took too long",
                    where=_tail(exchange / f"worker-{worker}.log"),
                    next_step="free processor time or lower the rate; then run it again",
                )
        if tick:
            tick()
        if not missing:
            return
        time.sleep(_POLL_SECONDS)


def _end(processes: Sequence["subprocess.Popen[bytes]"], grace: float) -> None:
    """Let every worker leave by itself for `grace` seconds, then end its group."""
    for signal_number, patience in ((None, grace), (signal.SIGTERM, 2.0), (signal.SIGKILL, 5.0)):
        running = [process for process in processes if process.poll() is None]
        for process in running:
            if signal_number is not None:
                os.killpg(process.pid, signal_number)
        until = time.monotonic() + patience
        for process in running:
            try:
                process.wait(max(0.0, until - time.monotonic()))
            except subprocess.TimeoutExpired:
                continue


def _result(exchange: Path, worker: int) -> Result:
    about = json.loads((exchange / f"worker-{worker}-result.json").read_text())
    with np.load(exchange / f"worker-{worker}-arrays.npz", allow_pickle=False) as stored:
        return about, {name: stored[name] for name in stored.files}


def _merged(results: Sequence[Result], endpoint: Endpoint, schedule: Schedule, payload: Payload) -> LoadRun:
    """The workers' shares put back into the order of the schedule.

    Raises:
        LoadError: a worker sent another schedule.
    """
    abouts = [about for about, _ in results]
    if any(about["schedule"] != schedule.digest for about in abouts):
        raise LoadError("a load process sent another schedule than it was given", next_step="run it again")
    arrays = {}
    for name in ("intended", "sent", "done", "status"):
        parts = [arrays_of_worker[name] for _, arrays_of_worker in results]
        arrays[name] = np.empty(len(schedule), parts[0].dtype)
        for worker, part in enumerate(parts):
            arrays[name][worker :: len(parts)] = part
    return LoadRun(
        **arrays,
        schedule=schedule,
        batch=payload.batch,
        client_cpu=max(about["cpu_s"] / about["elapsed_s"] for about in abouts),
        elapsed=max(about["elapsed_s"] for about in abouts),
        start=abouts[0]["start"],
        target=endpoint.url + endpoint.path,
        reasons=_reasons(abouts),
        about=_versions(abouts[0]) | {"workers": len(abouts), "real_time": all(about["real_time"] for about in abouts)},
    )


def _reasons(abouts: Sequence[dict[str, Any]]) -> dict[int, str]:
    return {int(status): text for about in reversed(abouts) for status, text in about["reasons"].items()}


def _versions(about: dict[str, Any]) -> dict[str, Any]:
    return {name: about[name] for name in ("python", "locust", "gevent", "warmup_errors")}


def _tail(log: Path, size: int = 2000) -> str:
    try:
        return log.read_bytes()[-size:].decode(errors="replace").strip()
    except OSError:
        return ""
