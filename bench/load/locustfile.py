"""Locust user that drives a whole open- or closed-loop load and reports every request to Locust's tables.

Started by `bench.load.on_locust` with one JSON file of parameters, named in ``SEATRIAL_LOAD``; leaves one npz and one
JSON file per worker. Started by hand (``locust -f bench/load/locustfile.py --host http://127.0.0.1:8000``), with or
without Locust's web UI, the command line says what `bench.load.plain` makes into such a file. Judges nothing and reads
no TOML. The only file that may import locust.

Locust's own waiting times all start after the previous reply, so a server that stalls would also silence its load;
here the loops of `on_gevent` keep the time. They stop by themselves, and when the process that started them is gone.
Requests reach Locust's statistics in bundles, once a second; its ``request`` event is not fired.
"""

import gc
import json
import os
import platform
import resource
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from importlib import metadata
from pathlib import Path
from typing import Any

import gevent
import locust.stats
import numpy as np
from gevent.event import Event
from locust import User, events, task
from locust.runners import MasterRunner, WorkerRunner

from seatrial.bench.load import plain, tables
from seatrial.bench.load.guard import AbortRules
from seatrial.bench.load.on_gevent import ClosedLoop, Loop, OpenLoop, connector, now, warm
from seatrial.bench.load.payload import Payload
from seatrial.bench.load.run import NO_RESULT, OK, TRANSPORT
from seatrial.bench.schedule import Schedule
from seatrial.optimize import scratch
from seatrial.optimize.errors import SeatrialError
from seatrial.optimize.store import write_atomically

GO_SECONDS = 60.0  # waiting for the word to start
TICK_SECONDS = 1.0  # between two looks at the run: tables, abort rules, a stop from elsewhere

_FILES = 1 << 16
_KINDS = {TRANSPORT: "transport error", NO_RESULT: "no result"}
_OVER = "load_over"  # a worker's message to the master

GIVEN: dict[str, Any] | None = None
if "SEATRIAL_LOAD" in os.environ:
    GIVEN = json.loads(Path(os.environ["SEATRIAL_LOAD"]).read_text())


class Load(User):
    """The whole load of one process: ready, start, window, results. Locust never spawns a second one here."""

    fixed_count = GIVEN["workers"] if GIVEN else 1
    host = None
    driven = False

    @task
    def run_once(self) -> None:
        """Run the load and leave, whatever happens: Locust would start a failed task again and again."""
        if GIVEN and Load.driven:  # a master that lost a worker, or a second start from the web UI
            gevent.sleep(3600.0)
        Load.driven = True
        with scratch.folder("seatrial-load", Path(tempfile.gettempdir())) if not GIVEN else nullcontext() as own:
            try:
                self.given = GIVEN or plain.prepare(self.environment.parsed_options, self.host, own or Path())
                self.folder = Path(self.given["folder"])
                self.drive()
            except (OSError, SeatrialError) as error:
                self.fail(error)
            finally:
                self.over()

    def drive(self) -> None:
        """Warm up, agree on a start, send, and write what was measured."""
        self.settle()
        loop, warmup_errors = self.loop()
        about: dict[str, Any] = {"start": self.agreed_start(), "warmup_errors": warmup_errors}
        about["real_time"] = self.given["loop"] == "open" and self.given["real_time"] and _real_time()
        stopped = Event()
        watch = gevent.spawn(self.watch, loop, stopped)
        with window(about):
            loop.run(about["start"], stopped)
        watch.kill()
        self.tell(loop)
        self.leave(loop, about)

    def settle(self) -> None:
        """Cores, and enough file handles for all connections."""
        if self.given["cores"]:
            os.sched_setaffinity(0, self.given["cores"])
        soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
        wanted = _FILES if hard == resource.RLIM_INFINITY else min(hard, _FILES)
        resource.setrlimit(resource.RLIMIT_NOFILE, (max(soft, wanted), hard))

    def loop(self) -> tuple[Loop, int]:
        """The loop with its connections open and warm, and how many warm-up requests failed."""
        given = self.given
        payload = Payload.read(self.folder / "payload.npz")
        connect = connector(payload.protocol, (given["host"], given["port"]))
        connections = [connect() for _ in range(given["connections"])]
        failed = warm(connections, payload.requests, given["warmup"])
        if given["loop"] == "closed":
            return ClosedLoop(payload.requests, connections, seconds=given["seconds"]), failed
        schedule = Schedule.read(self.folder / "schedule.npz")
        self.schedule = schedule.digest
        names = ("worker", "workers", "in_flight", "drain")
        loop = OpenLoop(schedule, payload.requests, connect, **{name: given[name] for name in names})
        loop.idle.extend(connections)
        return loop, failed

    def agreed_start(self) -> float:
        """Say that this worker is ready, and learn when all start (monotonic seconds)."""
        gc.collect()  # tens of milliseconds, so not in the window
        gc.freeze()
        self.publish("ready.json", {})
        go, until = self.folder / "go.json", now() + GO_SECONDS
        while not go.exists():
            if now() > until:
                raise OSError("the start signal never came")
            gevent.sleep(0.005)
        return float(json.loads(go.read_text())["start"] or now() + 0.1)

    def watch(self, loop: Loop, stopped: Event) -> None:
        """Once a second: the tables, the abort rules, and whether someone else stopped the run."""
        rules = AbortRules(**self.given["abort"])
        while not stopped.is_set():
            gevent.sleep(TICK_SECONDS)
            self.tell(loop)
            if reason := rules.breach(*loop.recent(rules.window)):
                self.publish("stop.json", {"reason": reason})
            if any(self.folder.glob("*stop.json")):
                stopped.set()

    def tell(self, loop: Loop) -> None:
        """Hand what ended since the last time to Locust's statistics."""
        seconds, statuses = loop.fresh()
        failures = [_KINDS.get(status, f"HTTP {status}") for status in statuses if status != OK]
        tables.add(self.environment.stats, f"{self.given['loop']} loop", self.given["name"], seconds, failures)

    def leave(self, loop: Loop, about: dict[str, Any]) -> None:
        """Write the results; the JSON file comes last and says that the run is complete."""
        staged = self.folder / f"{self.file('arrays')}.part.npz"
        np.savez(staged, **loop.arrays())
        staged.replace(self.folder / f"{self.file('arrays')}.npz")
        runner = self.environment.runner
        if isinstance(runner, WorkerRunner):  # now, not with the next report: the master may be told to end before it
            report: dict[str, Any] = {}
            self.environment.events.report_to_master.fire(client_id=runner.client_id, data=report)
            runner.send_message("stats", report)
        about |= {
            "schedule": getattr(self, "schedule", None),
            "reasons": {str(status): text for status, text in loop.reasons.items()},
            "python": platform.python_version(),
            "locust": metadata.version("locust"),
            "gevent": metadata.version("gevent"),
        }
        self.publish("result.json", about)

    def fail(self, error: OSError | SeatrialError) -> None:
        """Say why there is no result: to whom started the load, or on the terminal."""
        said = str(error) if isinstance(error, SeatrialError) else f"{type(error).__name__}: {error}"
        if GIVEN:
            self.publish("failed.json", {"error": said})
        else:
            print(f"error: {said}", flush=True)
            self.environment.process_exit_code = 2

    def over(self) -> None:
        """End the test as this way of running Locust wants it, and wait for that."""
        runner = self.environment.runner
        if isinstance(runner, WorkerRunner):
            runner.send_message(_OVER)
        else:
            gevent.spawn(runner.stop if self.environment.web_ui else runner.quit)
        gevent.sleep(3600.0)

    def publish(self, name: str, value: dict[str, Any]) -> None:
        write_atomically(self.folder / self.file(name), json.dumps(value).encode())

    def file(self, name: str) -> str:
        return f"worker-{self.given['worker']}-{name}"


@events.init_command_line_parser.add_listener  # type: ignore[untyped-decorator]
def _options(parser: Any, **_: Any) -> None:
    if not GIVEN:
        plain.add_options(parser)


@events.init.add_listener  # type: ignore[untyped-decorator]
def _init(environment: Any, runner: Any, **_: Any) -> None:
    """Leave when the process that started this one has; print what Locust rounds; let the web UI show the end."""
    if GIVEN:
        gevent.spawn(_quit_when_orphaned, runner, GIVEN["parent"])
        if not isinstance(runner, MasterRunner):  # no points for charts, which cost a sender milliseconds each
            locust.stats.HISTORY_STATS_INTERVAL_SEC = 86400
    if not isinstance(runner, WorkerRunner):
        events.quit.add_listener(lambda **_: print(tables.digits(environment.stats), flush=True))  # type: ignore[no-untyped-call]
    if isinstance(runner, MasterRunner):
        over: list[str] = []

        def one_more(msg: Any, **_: Any) -> None:
            over.append(msg.node_id)
            if environment.web_ui and len(over) == Load.fixed_count:
                gevent.spawn(runner.stop)

        runner.register_message(_OVER, one_more)


def _quit_when_orphaned(runner: Any, parent: int) -> None:
    while os.getppid() == parent:
        gevent.sleep(0.5)
    runner.quit()


@contextmanager
def window(about: dict[str, Any]) -> Iterator[None]:
    """The measured time: no garbage collection, the processor time used, and how long it was waited for."""
    gc.disable()
    began, used, waited = now(), _cpu_seconds(), _waited_seconds()
    try:
        yield
    finally:
        about["elapsed_s"], about["cpu_s"] = now() - began, _cpu_seconds() - used
        about["wait_s"] = _waited_seconds() - waited
        gc.enable()


def _real_time() -> bool:
    """Let this process run as soon as a timer or a reply wakes it, where the machine allows that.

    It sleeps nearly always, so the server loses little; without it a busy neighbour on the same core delays sends by
    milliseconds. Not for the closed loop, which never sleeps and would starve the server.
    """
    try:
        os.sched_setscheduler(0, os.SCHED_FIFO, os.sched_param(1))
    except OSError:
        return False
    return True


def _cpu_seconds() -> float:
    used = resource.getrusage(resource.RUSAGE_SELF)
    return used.ru_utime + used.ru_stime


def _waited_seconds() -> float:
    """Seconds for which this thread could have run and had no core; 0 where the kernel does not tell."""
    try:
        return int(Path("/proc/thread-self/schedstat").read_text().split()[1]) / 1e9
    except (OSError, ValueError, IndexError):
        return 0.0


locust.stats.bucket_response_time = tables.three_digits  # type: ignore[assignment]  # documented as replaceable
