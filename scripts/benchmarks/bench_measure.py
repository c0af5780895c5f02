"""Accuracy of memory and server figures, against the kernel's own marks, known leaks and known requests.

Real Triton with a Python model that allocates on cue, and small processes that do the same.
"""

import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from scripts.benchmarks import rows
from scripts.benchmarks.rows import Row, Rows
from seatrial.bench.load.on_locust import load
from seatrial.bench.load.payload import Payload
from seatrial.bench.measurement import Unavailable
from seatrial.bench.measuring.growth import Growth
from seatrial.bench.measuring.probes import MemoryProbe
from seatrial.bench.measuring.usage import Memory
from seatrial.bench.processes import resident, tree
from seatrial.bench.schedule import constant
from seatrial.bench.server_statistics import Window, window
from seatrial.bench.targets import Endpoint, endpoint_of
from seatrial.optimize.errors import MachineError
from seatrial.serve.triton.running.on_pytriton import serving

MIB = 1 << 20
LEAK = 16 << 10  # bytes a request
RATE, SECONDS = 100.0, 20.0
CONFIG = """
name: "cue"
backend: "python"
max_batch_size: 16
input [{ name: "x" data_type: TYPE_FP32 dims: [ 4 ] }]
output [{ name: "y" data_type: TYPE_FP32 dims: [ 4 ] }]
instance_group [{ kind: KIND_CPU count: 1 }]
"""
MODEL = f"""
import triton_python_backend_utils as utils

class TritonPythonModel:
    def initialize(self, args):
        self.kept, self.count = [], 0

    def execute(self, requests):
        return [self.answer(utils.get_input_tensor_by_name(request, "x").as_numpy()) for request in requests]

    def answer(self, x):
        self.count += 1
        cue = int(x[0, 0])
        if cue == 1 and self.count % 50 == 0:
            block = bytearray(150 << 20)
            block[::4096] = b"x" * len(block[::4096])
            del block
        if cue == 2:
            self.kept.append(b"x" * ({LEAK} - 33))
        if cue == 3 and self.count == 500:
            self.kept.append(b"x" * (64 << 20))
        return utils.InferenceResponse([utils.Tensor("y", x)])
"""
CUES = {"steady": 0, "spikes": 1, "leak": 2, "arena": 3}
SPIKE = """
import sys
for line in sys.stdin:
    block = bytearray(int(line) << 20)
    block[::4096] = b"x" * len(block[::4096])
    del block
    print("done", flush=True)
"""
PARENT = """
import subprocess, sys
pipe = subprocess.PIPE
children = [subprocess.Popen([sys.executable, "-c", sys.argv[1]], stdin=pipe, stdout=pipe, text=True) for _ in range(2)]
for line in sys.stdin:
    for child in children:
        child.stdin.write(line)
        child.stdin.flush()
    for child in children:
        child.stdout.readline()
    print("done", flush=True)
for child in children:
    child.stdin.close()
    child.wait()
"""


@dataclass(frozen=True, slots=True, kw_only=True)
class Case:
    """A peak that was reported, and what the kernel says itself."""

    name: str
    reported: int
    kernel: int

    @property
    def off(self) -> float:
        """Relative difference."""
        return self.reported / self.kernel - 1


def peak_memory(folder: Path) -> Row:
    """Three trees: a process that spikes between two looks, one with children, and Triton under load."""
    cases = [_process(), _family(), _triton(folder)]
    worst = max(abs(case.off) for case in cases)
    return Row(
        name="peak-memory",
        claim="peak memory reported vs the kernel's own high-water mark",
        value=", ".join(f"{each.name} {each.reported / MIB:.1f} MiB ({each.off:+.2%})" for each in cases),
        bar="within 2 %",
        met=worst <= 0.02,
    )


def leak(folder: Path) -> Row:
    """A known leak, a 64 MiB arena and no growth, distinguished by the same probe on real Triton."""
    leaked, arena, steady = (_growth(folder / cue, cue) for cue in ("leak", "arena", "steady"))
    slope = leaked.slope / 1000
    named = "step" in arena.note and arena.steps >= 1
    return Row(
        name="leak",
        claim=f"a model that leaks {LEAK} bytes a request; one that takes 64 MiB once; one that does neither",
        value=f"{slope:.0f} bytes a request, at least {leaked.lower / 1000:.0f}; {arena.note}; "
        f"{steady.lower / 1000:.0f} bytes at least ({steady.note})",
        bar="slope within 10 %, surely above 0; the arena named; no leak of 1 % of it claimed where there is none",
        met=abs(slope / LEAK - 1) <= 0.1 and leaked.lower > 0 and named and steady.lower < 0.01 * LEAK * 1000,
    )


def server_counts(folder: Path) -> Row:
    """Requests that the server counted against those that were scheduled: the load's warm-up must not be among them."""
    _, counting, scheduled = _watched(folder, "steady", 3.0)
    counted = getattr(counting.counted, "requests", 0)
    return Row(
        name="server-counts",
        claim="requests in the server's own statistics vs the schedule, warm-up excluded",
        value=f"{counted} of {scheduled}",
        bar="equal",
        met=counted == scheduled,
    )


def _process() -> Case:
    """150 MiB for some milliseconds between two looks; the kernel's word is ``VmHWM`` before the process goes.

    Not ``ru_maxrss``: it also remembers the image before ``exec``, so the size of the parent process.
    """
    child = subprocess.Popen([sys.executable, "-c", SPIKE], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    with MemoryProbe((child.pid,), interval=0.5) as probe:
        _cue(child, 150)
        time.sleep(0.1)
    status = Path(f"/proc/{child.pid}/status").read_text()
    kernel = int(status.partition("VmHWM:")[2].split()[0]) * 1024
    child.communicate()
    return Case(name="spike between looks", reported=probe.result.peak, kernel=kernel)


def _family() -> Case:
    """A parent and two children that take 80 MiB each at once."""
    parent = subprocess.Popen(
        [sys.executable, "-c", PARENT, SPIKE], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    _cue(parent, 1)
    with MemoryProbe((parent.pid,)) as probe:
        _cue(parent, 80)
        time.sleep(0.1)
    marks = _marks((parent.pid,))
    parent.communicate(timeout=10)
    return Case(name="tree of three", reported=probe.result.peak, kernel=sum(marks.values()))


def _triton(folder: Path) -> Case:
    """Spikes of 150 MiB in the stub, every fiftieth request, under an open-loop load."""
    with _served(folder) as endpoint:
        before = _marks(endpoint.pids)
        memory = _loaded(endpoint, "spikes", 5.0, folder)[0]
        after = _marks(endpoint.pids)
    kernel = sum(max(mark, before.get(pid, 0)) for pid, mark in after.items())
    return Case(name="Triton under load", reported=memory.peak, kernel=kernel)


def _cue(process: "subprocess.Popen[str]", mib: int) -> None:
    assert process.stdin is not None
    assert process.stdout is not None
    process.stdin.write(f"{mib}\n")
    process.stdin.flush()
    process.stdout.readline()


def _marks(pids: tuple[int, ...]) -> dict[int, int]:
    """Every process's VmHWM, read anew."""
    return {pid: seen.high_water for pid in tree(pids) if (seen := resident(pid)) is not None}


def _growth(folder: Path, cue: str) -> Growth:
    """Return the growth of the server's memory; raises MachineError where the probe saw too little."""
    found = _watched(folder, cue, SECONDS)[0].growth
    if isinstance(found, Unavailable):
        raise MachineError("the growth of memory was not recorded", where=cue)
    return found


def _watched(folder: Path, cue: str, seconds: float) -> tuple[Memory, Window, int]:
    with _served(folder) as endpoint:
        return _loaded(endpoint, cue, seconds, folder)


def _loaded(endpoint: Endpoint, cue: str, seconds: float, folder: Path) -> tuple[Memory, Window, int]:
    payload = Payload.build(endpoint, {"x": np.full((8, 4), CUES[cue], np.float32)})
    with MemoryProbe(endpoint.pids) as probe, window(endpoint) as counting:
        run = load(endpoint, constant(RATE, seconds), payload, folder=folder / "load", progress=counting.begin)
    probe.answered(run.start + run.done)
    return probe.result, counting, len(run)


@contextmanager
def _served(folder: Path) -> Iterator[Endpoint]:
    """A fresh server with the model, its process and its metrics known."""
    model = folder / "models" / "cue"
    (model / "1").mkdir(parents=True)
    (model / "config.pbtxt").write_text(CONFIG)
    (model / "1" / "model.py").write_text(MODEL)
    with serving(folder / "models", ("cue",)) as server:
        found = endpoint_of(server.url, "cue")
        yield Endpoint(
            url=found.url,
            model=found.model,
            version=found.version,
            inputs=found.inputs,
            outputs=found.outputs,
            pids=(server.pid,),
            metrics_url=server.metrics_url,
        )


ROWS: Rows = {"peak-memory": peak_memory, "leak": leak, "server-counts": server_counts}


def main() -> int:
    """Run, print, and exit 0 where every bar was met."""
    return rows.main("Measure the accuracy of memory and server figures.", ROWS)


if __name__ == "__main__":
    sys.exit(main())
