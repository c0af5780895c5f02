"""Long runs of the watching processes: supervise, edge watch and a rollout's controller with few descriptors.

Triton and Envoy serve a tiny model to steady callers while the three look 20 times a second, each allowed 256
descriptors. Every second it is noted what they hold; at the end a model process is killed. The rollout holds a step
within one block of evidence: a controller keeps each block, about 2 kB, on purpose. ``--seconds`` (or the environment's
SOAK_SECONDS) makes it shorter; below ten minutes memory still settles, and that row says so.
"""

import argparse
import json
import os
import resource
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from urllib.request import urlopen

import numpy as np
import psutil

from scripts.benchmarks.rows import Row, Rows
from scripts.benchmarks.rows import main as run_rows
from scripts.benchmarks.steadiness import Slope, slope
from scripts.benchmarks.trial import NAME, PLAN, Asking, up
from seatrial.optimize.environment import home
from seatrial.serve.errors import RequestError, ServerError
from seatrial.serve.processes import free_ports, wait
from seatrial.serve.traffic.rollout.machine import Phase
from seatrial.serve.traffic.rollout.records import Records
from seatrial.serve.triton.control import Control
from seatrial.serve.triton.running import on_pytriton
from seatrial.serve.triton.running.stubs import stubs

ROOT = Path(__file__).resolve().parents[2]
SECONDS = 1800.0
DESCRIPTORS = 256
RATE = 20.0
PERIOD = 0.02  # seconds between two looks of supervise, which asks two versions at each; a look takes time as well
INTERVAL = 0.05  # and of the rollout's controller
BACK_SECONDS = 5.0
_HELD = (
    PLAN.replace("interval = 0.1", f"interval = {INTERVAL}")
    .replace("block = 0.2", "block = 100000.0")
    .replace("requests = 40", "requests = 100000000")
    .replace("dwell = 60.0", "dwell = 100000.0")
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Sample:
    """Resources of one process at one time: open descriptors, private resident bytes, threads."""

    at: float
    descriptors: int
    memory: int
    threads: int


def soak(folder: Path, *, seconds: float | None = None) -> Row:
    """Let the three look for that long, then kill a model process."""
    seconds = float(os.environ.get("SOAK_SECONDS", SECONDS)) if seconds is None else seconds
    os.environ["SEATRIAL_HOME"] = str(folder / "home")
    (folder / "plan.toml").write_text(_HELD)
    with up(folder) as (_, proxy), ExitStack() as stack:
        stack.enter_context(Asking(proxy.url, clients=2, pause=0.1, most=seconds + 300.0))
        port = free_ports(1)[0]
        words = {
            "supervise": ("supervise", "--period", str(PERIOD), "--metrics-port", str(port), "--json"),
            "edge watch": ("edge", "watch", NAME),
            "rollout": ("rollout", "start", NAME, "--candidate", "2", "--plan", str(folder / "plan.toml")),
        }
        processes = {name: stack.enter_context(_few(name, *each)) for name, each in words.items()}
        records = Records(home() / "rollouts", NAME)
        holds = wait(lambda: records.exists() and records.load().phase is Phase.STEP, 60.0)
        samples = {name: list[Sample]() for name in words}
        until, probes = time.monotonic() + seconds, 0.0
        while time.monotonic() < until and all(each.poll() is None for each in processes.values()):
            for name, process in processes.items():
                samples[name].append(sample(process.pid))
            probes = _probes(port) or probes
            time.sleep(1.0)
        ended = [name for name, process in processes.items() if process.poll() is not None]
        holds = holds and records.load().phase is Phase.STEP
        back = _back()
    looks = _events()
    if os.environ.get("SOAK_SAMPLES"):
        Path(os.environ["SOAK_SAMPLES"]).write_text(
            json.dumps(
                {name: [[s.at, s.descriptors, s.memory, s.threads] for s in each] for name, each in samples.items()}
            )
        )
    return _row(seconds, samples, ended, holds, back, looks, probes / seconds)


@contextmanager
def _few(name: str, *words: str) -> Iterator["subprocess.Popen[bytes]"]:
    """A verb of the command in a process of its own with few descriptors, ended after the block."""
    environment = os.environ | {"PYTHONPATH": os.pathsep.join([str(ROOT), *sys.path])}
    with (home() / f"{name}.log").open("ab") as log:
        process = subprocess.Popen(
            [sys.executable, "-m", "seatrial.serve.cli", *words],
            cwd=ROOT,
            env=environment,
            stdout=log,
            stderr=log,
            preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_NOFILE, (DESCRIPTORS, DESCRIPTORS)),
        )
        try:
            yield process
        finally:
            process.kill()
            process.wait()


def sample(pid: int) -> Sample:
    """Return what a process holds now."""
    process = psutil.Process(pid)
    status = Path(f"/proc/{pid}/status").read_text()
    own = next(int(line.split()[1]) for line in status.splitlines() if line.startswith("RssAnon"))
    return Sample(at=time.monotonic(), descriptors=process.num_fds(), memory=own * 1024, threads=process.num_threads())


def _probes(port: int) -> float:
    """The golden requests that supervise counts; 0 where its metrics do not say."""
    try:
        with urlopen(f"http://127.0.0.1:{port}/metrics", timeout=5.0) as reply:
            lines = reply.read().decode().splitlines()
    except OSError:
        return 0.0
    return sum(float(line.rpartition(" ")[2]) for line in lines if line.startswith("seatrial_supervisor_probes_total"))


def _back() -> float:
    """Kill the model process of the version that serves; the seconds until it answers again, infinite where never."""
    server = on_pytriton.wanted()
    struck = [] if server is None else [stub for stub in stubs(server.pid) if stub.version == 1]
    if server is None or not struck:
        return float("inf")
    began = time.monotonic()
    for stub in struck:
        os.kill(stub.pid, signal.SIGKILL)

    def answers() -> bool:
        try:
            with Control(server.url, timeout=1.0) as control:
                return bool(control.infer(NAME, 1, {"x": np.ones((1, 3), np.float32)}))
        except (RequestError, ServerError):
            return False

    return time.monotonic() - began if wait(answers, 60.0) else float("inf")


def _events() -> list[str]:
    log = home() / "triton" / "supervision" / "events.jsonl"
    return [json.loads(line)["event"] for line in log.read_text().splitlines()] if log.exists() else []


def _row(
    seconds: float,
    samples: Mapping[str, Sequence[Sample]],
    ended: Sequence[str],
    holds: bool,
    back: float,
    events: Sequence[str],
    rate: float,
) -> Row:
    told, flat = [], not ended
    for name, each in samples.items():
        if len(each) < 40:
            flat = False
            told.append(f"{name}: only {len(each)} samples")
            continue
        times = [one.at for one in each]
        descriptors = slope(times, [float(one.descriptors) for one in each])
        memory = slope(times, [float(one.memory) for one in each])
        flat = flat and descriptors.flat and memory.flat and max(one.descriptors for one in each) < DESCRIPTORS
        most = max(one.threads for one in each)
        told.append(
            f"{name}: descriptors {_spelled(descriptors, 1.0, '')}, memory {_spelled(memory, 1 / 1024, ' kB')}, "
            f"threads at most {most}"
        )
    blind = events.count("cannot look")
    return Row(
        name="soak",
        claim=f"supervise, edge watch, rollout controller for {seconds / 60:.3g} minutes at {RATE:.0f} probes a "
        f"second, ulimit -n {DESCRIPTORS}",
        value=f"{rate:.1f} probes a second by supervise alone; {'; '.join(told)}; "
        f"killed model process back after {back:.1f} s; "
        f"the rollout {'held its step' if holds else 'DID NOT HOLD ITS STEP'}"
        + (f"; ended: {', '.join(ended)}" if ended else "")
        + (f"; could not look {blind} times" if blind else ""),
        bar=f"99 % intervals of all slopes include 0, back within {BACK_SECONDS:.0f} s, at least {RATE:.0f} probes a "
        "second",
        met=flat and holds and not blind and back <= BACK_SECONDS and rate >= RATE,
    )


def _spelled(found: Slope, factor: float, unit: str) -> str:
    hour = 3600 * factor
    return (
        f"{found.first * factor:.1f} to {found.last * factor:.1f}{unit} "
        f"({found.slope * hour:+.3g} [{found.low * hour:+.3g}, {found.high * hour:+.3g}] an hour)"
    )


ROWS: Rows = {"soak": soak}


def main() -> int:
    """Run the row, for as long as the command line says."""
    parser = argparse.ArgumentParser(add_help=False)
    parser.add_argument("--seconds", type=float, default=None)
    arguments, rest = parser.parse_known_args()
    if arguments.seconds is not None:
        os.environ["SOAK_SECONDS"] = str(arguments.seconds)
    sys.argv[1:] = rest
    return run_rows("Measure long runs of the watching processes (--seconds N: shorter).", ROWS)


if __name__ == "__main__":
    raise SystemExit(main())
