"""Rows of `scripts/benchmark-bench` about load: the stall that must be seen, and what a client core is worth.

Runs servers and clients of its own on this machine: the server on one core, the client on another. A few minutes.
"""

import csv
import json
import os
import shutil
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from statistics import median
from zipfile import ZipFile

import numpy as np
import numpy.typing as npt

from scripts.benchmarks.faulty import Faulty
from scripts.benchmarks.rows import Row, Rows
from scripts.benchmarks.rows import main as run
from seatrial.bench.load.on_locust import ClientSetup, load, saturate
from seatrial.bench.load.payload import Payload
from seatrial.bench.load.run import LoadRun
from seatrial.bench.load.validity import saturation_breaches
from seatrial.bench.load.wire import Wire
from seatrial.bench.schedule import Schedule, poisson
from seatrial.bench.targets import Endpoint, endpoint_of
from seatrial.optimize.errors import MachineError, MissingError
from seatrial.serve.triton.running.on_pytriton import serving

SERVICE, STALL, STALL_AFTER, RATE, SECONDS = 0.008, 2.0, 25.0, 50.0, 60.0
PERIODS = 4  # threads of the sender that measures from the actual send; users of the closed loop
CONCURRENCY = 16
OPEN_RATE = 2000.0
PA_TURNS = 6
RIVALS = ("HttpUser", "FastHttpUser", "tritonclient", "geventhttpclient", "raw_socket")
ROUNDS = 2

ECHO = Path(__file__).parents[2] / "model_repository" / "echo"
Times = npt.NDArray[np.float64]


# The stall


def stall(folder: Path) -> Row:
    """One stall of 2 s in 60 s, seen by the open loop, by a closed one, and by one that forgets when it meant to send.

    All three at once, each against a server of its own, so that the row takes a minute.
    """
    schedule, seen = poisson(RATE, SECONDS, 3), dict[str, float]()

    def beside(name: str, measure: Callable[[Endpoint], Times]) -> threading.Thread:
        def body() -> None:
            with Faulty(service=SERVICE, stall=STALL, stall_after=STALL_AFTER).running() as endpoint:
                seen[name] = float(np.quantile(measure(endpoint), 0.99))

        thread = threading.Thread(target=body)
        thread.start()
        return thread

    others = [beside("closed loop", closed_loop), beside("actual send", lambda each: actual_send(each, schedule))]
    server = Faulty(service=SERVICE, stall=STALL, stall_after=STALL_AFTER)
    with server.running() as endpoint:
        found = load(endpoint, schedule, payload_of(endpoint), folder=folder / "run", client=ClientSetup(warmup=0))
    for thread in others:
        thread.join()
    truth = float(np.quantile(queued(schedule.offsets, server, found), 0.99))
    p99 = float(np.quantile(found.latency_bounds, 0.99))
    return Row(
        name="stall",
        claim=f"p99 with one stall of {STALL:g} s in {SECONDS:g} s at {RATE:g} requests/s, against the truth",
        value=f"{p99 * 1e3:.0f} ms of {truth * 1e3:.0f} ms ({p99 / truth:.3f}); "
        + ", ".join(f"{name} {value * 1e3:.0f} ms" for name, value in sorted(seen.items())),
        bar="0.90 to 1.10 of the truth",
        met=abs(p99 / truth - 1) <= 0.1,
    )


def queued(offsets: Times, server: Faulty, found: LoadRun) -> Times:
    """Return the wait of each arrival at a single server that was blocked once (Lindley's recursion)."""
    service, began = median(server.served), server.stalled[0] - found.start
    latency, free, blocked = np.empty(len(offsets)), 0.0, False
    for index, arrival in enumerate(offsets):
        start = max(arrival, free)
        if not blocked and start >= began - 1e-3:
            start, blocked = start + STALL, True
        free = start + service
        latency[index] = free - arrival
    return latency


def closed_loop(endpoint: Endpoint) -> Times:
    """A few users, each of whom waits for the reply and then for the rest of its period, as Locust's users do."""
    until = time.monotonic() + SECONDS
    times: list[float] = []

    def user(number: int) -> None:
        from seatrial.bench.load.wire import HttpConnection

        connection = HttpConnection(endpoint.address, socket_connect)
        request, period = payload_of(endpoint).requests[number], PERIODS / RATE
        time.sleep(number * period / PERIODS)
        while (began := time.monotonic()) < until:
            connection.exchange(request)
            times.append(time.monotonic() - began)
            time.sleep(max(0.0, period - (time.monotonic() - began)))
        connection.close()

    _in_threads(user)
    return np.array(times)


def actual_send(endpoint: Endpoint, schedule: Schedule) -> Times:
    """The same schedule from a few blocking threads whose clock starts when they really send (perf_analyzer's way)."""
    start, times, lock = time.monotonic() + 0.2, list[float](), threading.Lock()
    due = iter(schedule.offsets.tolist())

    def sender(number: int) -> None:
        from seatrial.bench.load.wire import HttpConnection

        connection = HttpConnection(endpoint.address, socket_connect)
        request = payload_of(endpoint).requests[number]
        while True:
            with lock:
                offset = next(due, None)
            if offset is None:
                break
            time.sleep(max(0.0, start + offset - time.monotonic()))
            began = time.monotonic()
            connection.exchange(request)
            times.append(time.monotonic() - began)
        connection.close()

    _in_threads(sender)
    return np.array(times)


def _in_threads(body: Callable[[int], None]) -> None:
    threads = [threading.Thread(target=body, args=(number,)) for number in range(PERIODS)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()


def socket_connect(address: tuple[str, int], seconds: float):  # type: ignore[no-untyped-def]  # as the wire wants it
    """A plain socket."""
    import socket

    return socket.create_connection(address, seconds)


# A client core's worth


def closed(folder: Path) -> Row:
    """Closed loop, 16 connections, binary HTTP, beside other clients in turn on the same server."""
    figures: dict[str, list[float]] = {name: [] for name in ("seatrial", *RIVALS)}
    with triton(folder) as (endpoint, core):
        payload, pinned = payload_of(endpoint), ClientSetup(cores=[core])
        payload.save(folder / "payload.npz")
        for turn in range(ROUNDS):
            order = list(figures) if turn % 2 == 0 else list(reversed(figures))
            for name in order:
                if name == "seatrial":
                    full = saturate(
                        endpoint, payload, seconds=3, concurrency=CONCURRENCY, folder=folder / "run", client=pinned
                    )
                    figures[name].append(full.requests_per_second / full.client_cpu)
                else:
                    figures[name].append(rival(name, endpoint, folder / "payload.npz", core))
    worth = {name: median(values) for name, values in figures.items()}
    return Row(
        name="closed",
        claim="requests per CPU second of the client, closed loop, binary HTTP, real Triton",
        value=", ".join(f"{name} {value:,.0f}" for name, value in worth.items()),
        bar="12,000 or more",
        met=worth["seatrial"] >= 12_000,
    )


def open_loop(folder: Path) -> Row:
    """Open loop, Poisson arrivals, at a rate that a tiny model on one core bears."""
    with triton(folder) as (endpoint, core):
        pinned = ClientSetup(cores=[core])
        runs = [
            load(endpoint, poisson(OPEN_RATE, 5, seed), payload_of(endpoint), folder=folder / str(seed), client=pinned)
            for seed in range(ROUNDS + 1)
        ]
    worth = median(np.count_nonzero(each.status == 200) / (each.client_cpu * each.elapsed) for each in runs)
    lag = median(float(np.quantile(each.lag, 0.99)) for each in runs)
    return Row(
        name="open",
        claim=f"requests per CPU second of the client, open loop at {OPEN_RATE:,.0f} Poisson arrivals/s, real Triton",
        value=f"{worth:,.0f}, lag p99 {lag * 1e3:.2f} ms",
        bar="7,000 or more, lag p99 at most 2 ms",
        met=worth >= 7000 and lag <= 0.002,
    )


def rival(name: str, endpoint: Endpoint, payload: Path, core: int) -> float:
    """Requests per CPU second of another client."""
    command = [sys.executable, "-m", "scripts.benchmarks.rival_clients", name, endpoint.url, endpoint.model]
    command += [str(payload), "3", str(CONCURRENCY)]
    done = subprocess.run(
        command,
        cwd=ECHO.parents[1],
        capture_output=True,
        text=True,
        check=True,
        timeout=60,
        preexec_fn=lambda: os.sched_setaffinity(0, {core}),
    )
    said = json.loads(done.stdout.splitlines()[-1])
    return float(said["requests"] / said["cpu_s"])


# Against perf_analyzer


def perf_analyzer(folder: Path) -> Row:
    """p99 at 300 Poisson requests a second, in turn with perf_analyzer on the same server, both from the actual send.

    perf_analyzer has no other time. Ours from the intended send includes the client's lag, and is reported beside it.
    """
    ours, sent, theirs = list[float](), list[float](), list[float]()
    with triton(folder) as (endpoint, core):
        payload, arrivals = payload_of(endpoint), ("--request-rate-range", "300", "--request-distribution", "poisson")
        analyze, pinned = _analyzer(folder, endpoint, core), ClientSetup(cores=[core])
        for turn in range(PA_TURNS):
            found = load(endpoint, poisson(300, 20, turn), payload, folder=folder / str(turn), client=pinned)
            ours.append(float(np.quantile(found.latency, 0.99)))
            sent.append(float(np.quantile(found.service, 0.99)))
            theirs.append(float(analyze("http", *arrivals)["p99 latency"]) / 1e6)
    ratio, intended = (median(one / other for one, other in zip(some, theirs, strict=True)) for some in (sent, ours))
    return Row(
        name="perf-analyzer",
        claim=f"p99 at 300 Poisson requests/s against perf_analyzer's, both from the actual send, {PA_TURNS} turns",
        value=f"{ratio:.2f} (ours {_ms(sent)}, perf_analyzer {_ms(theirs)}); from the intended send, which holds the "
        f"client's lag, {intended:.2f} ({_ms(ours)})",
        bar="0.90 to 1.05",
        met=0.90 <= ratio <= 1.05,
    )


def closed_grpc(folder: Path) -> Row:
    """Requests a second of a closed loop over gRPC and HTTP, in turns with perf_analyzer on the same server.

    Client and server share all cores, as they do where someone tries a model: a client that takes more of them than
    it must shows as a slower server.
    """
    found: dict[str, list[float]] = {"http": [], "grpc": []}
    invalid = 0
    with triton(folder, pinned=False) as (endpoint, _):
        analyze = _analyzer(folder, endpoint, None)
        for turn in range(PA_TURNS):
            for wire, ratios in found.items():
                payload = payload_of(endpoint, "grpc" if wire == "grpc" else "http")
                run = saturate(endpoint, payload, seconds=4, concurrency=4, folder=folder / f"{turn}-{wire}")
                invalid += bool(saturation_breaches(run))
                theirs = float(analyze(wire, "--concurrency-range", "4")["Inferences/Second"])
                ratios.append(run.requests_per_second / theirs)
    ratio = {wire: median(ratios) for wire, ratios in found.items()}
    spread = {wire: "/".join(f"{each:.2f}" for each in ratios) for wire, ratios in found.items()}
    return Row(
        name="closed-grpc",
        claim=f"requests/s of a closed loop of 4 over gRPC against perf_analyzer's, {PA_TURNS} turns",
        value=f"{ratio['grpc']:.2f} ({spread['grpc']}); HTTP {ratio['http']:.2f} ({spread['http']}); "
        f"{invalid} of {2 * PA_TURNS} runs INVALID",
        bar="at least 0.90",
        met=ratio["grpc"] >= 0.9,
    )


def _analyzer(folder: Path, endpoint: Endpoint, core: int | None) -> Callable[..., dict[str, str]]:
    """Run perf_analyzer with these arguments over a wire, on one core or all; returns the line of its table."""
    binary, libraries = perf_analyzer_binary(folder)
    cores = {core} if core is not None else os.sched_getaffinity(0)

    def analyze(wire: str, *arguments: str) -> dict[str, str]:
        table = folder / "perf_analyzer.csv"
        url = endpoint.url if wire == "http" else str(endpoint.grpc_url).removeprefix("grpc://")
        command = [str(binary), "-m", endpoint.model, "-u", url, "-i", wire, "--shape", "x:4", "-f", str(table)]
        command += ["-p", "7000" if "--request-rate-range" in arguments else "2000", "-r", "6", "-s", "999", *arguments]
        done = subprocess.run(
            command,
            env=os.environ | {"LD_LIBRARY_PATH": str(libraries)},
            capture_output=True,
            text=True,
            timeout=90,
            check=False,
            preexec_fn=lambda: os.sched_setaffinity(0, cores),
        )
        if done.returncode:
            said = " ".join((done.stderr or done.stdout).split())[-300:]
            raise MachineError(f"perf_analyzer ended with {done.returncode}: {said}", next_step="run it again")
        with table.open() as stream:
            return next(csv.DictReader(stream))

    return analyze


def perf_analyzer_binary(folder: Path) -> tuple[Path, Path]:
    """The binary (``SEATRIAL_PERF_ANALYZER``, on PATH, or fetched) and a folder with the two libraries that it lacks.

    Raises:
        MissingError: there is none; the package ``perf_analyzer`` 0.1.0 is an empty placeholder.
    """
    named = os.environ.get("SEATRIAL_PERF_ANALYZER") or shutil.which("perf_analyzer") or _unpacked(folder)
    import pytriton

    libraries = folder / "libraries"
    libraries.mkdir()
    shipped = Path(pytriton.__file__).parents[1] / "nvidia_pytriton.libs"
    for name, pattern in (("libb64.so.0d", "libb64-*"), ("libcudart.so.12", "libcudart-*")):
        for found in shipped.glob(pattern):
            (libraries / name).symlink_to(found)
    return Path(named), libraries


def _unpacked(folder: Path) -> str:
    """The binary out of the last wheel of Triton's client that carries it."""
    wanted = "tritonclient==2.46.0"
    command = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--only-binary=:all:"]
    got = subprocess.run([*command, "-d", str(folder), wanted], capture_output=True, text=True, check=False)
    for wheel in folder.glob("tritonclient-*.whl"):
        with ZipFile(wheel) as packed:
            for name in packed.namelist():
                if name.endswith("/bin/perf_analyzer"):
                    binary = Path(packed.extract(name, folder))
                    binary.chmod(0o755)
                    return str(binary)
    raise MissingError(
        f"no perf_analyzer: pip cannot fetch {wanted}: {' '.join(got.stderr.split())[-200:]}",
        next_step="name the binary in SEATRIAL_PERF_ANALYZER",
    )


def _ms(values: Sequence[float]) -> str:
    return "/".join(f"{value * 1e3:.2f}" for value in values) + " ms"


@contextmanager
def triton(folder: Path, *, pinned: bool = True) -> Iterator[tuple[Endpoint, int]]:
    """A real server with the echo example on the first core, or on all; the last core is the client's."""
    shutil.copytree(ECHO, folder / "repository" / "echo")
    cores = sorted(os.sched_getaffinity(0))
    os.sched_setaffinity(0, {cores[0]} if pinned else cores)  # the server inherits it
    try:
        with serving(folder / "repository", ["echo"]) as server:
            os.sched_setaffinity(0, cores)
            yield replace(endpoint_of(server.url, "echo"), grpc_url=server.grpc_url), cores[-1]
    finally:
        os.sched_setaffinity(0, cores)


def payload_of(endpoint: Endpoint, protocol: Wire = "http") -> Payload:
    """The same random samples for everyone."""
    samples = {"x": np.random.default_rng(0).random((64, 4), dtype=np.float32)}
    return Payload.build(endpoint, samples, protocol=protocol)


ROWS: Rows = {
    "stall": stall,
    "closed": closed,
    "open": open_loop,
    "perf-analyzer": perf_analyzer,
    "closed-grpc": closed_grpc,
}


def main() -> int:
    """Run these rows alone."""
    return run(__doc__ or "", ROWS)


if __name__ == "__main__":
    sys.exit(main())
