"""One real server on one core with our Python backend and other model.py files under the same configuration.

Places, starts and asks; judges nothing. The client has the other core. Processor time is read from /proc for the server
and for each model's stub process, so that a row can say where a request's time goes.
"""

import json
import os
import statistics
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from unittest.mock import patch

from scripts.benchmarks import closed_loop
from scripts.benchmarks.serving_models import ITEMS, samples, write
from seatrial.bench.load.payload import Payload
from seatrial.bench.targets import endpoint_of
from seatrial.optimize.artifact import Artifact, File, Provenance, TensorSpec
from seatrial.optimize.environment import now
from seatrial.optimize.store import Store
from seatrial.serve.caching import Cache
from seatrial.serve.deployment import Batching, Deployment
from seatrial.serve.processes import family
from seatrial.serve.triton.control import Control
from seatrial.serve.triton.repository.placing import place
from seatrial.serve.triton.running.on_pytriton import Server, load, serving

MODEL = "served"
_TICK = os.sysconf("SC_CLK_TCK")


@dataclass(frozen=True, slots=True, kw_only=True)
class Setup:
    """One of the benchmark's models, under our model.py or another's text, and how it is batched."""

    model: str
    code: str | None = None
    cache: Cache | None = None
    max_batch: int = 64
    delay_us: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Window:
    """One closed loop on one model: requests a second, and microseconds of processor time a request."""

    rate: float
    client_us: float
    server_us: float
    stub_us: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Site:
    """The server and its models."""

    server: Server
    cores: tuple[int, int]

    def requests(self, name: str, model: str, count: int = 64) -> tuple[bytes, ...]:
        """Return `count` distinct requests of one sample."""
        endpoint = endpoint_of(self.server.url, name)
        return Payload.build(endpoint, {"x": samples(model, count)}, count=count).requests

    def window(self, name: str, requests: Sequence[bytes], *, seconds: float, connections: int = 32) -> Window:
        """A warm-up of 0.4 s and a measured window."""
        stubs = [pid for pid, _ in family(self.server.pid) if f"/{name}/1/model.py" in _command(pid)]
        before = [cpu_seconds(self.server.pid), sum(map(cpu_seconds, stubs))]
        found = closed_loop.run(
            self.server.url,
            requests,
            connections=connections,
            seconds=seconds,
            warm_up=0.4,
            core=self.cores[1],
        )
        all_replies = found.replies * (found.seconds + 0.4) / found.seconds  # the warm-up's replies are not counted
        used = [cpu_seconds(self.server.pid) - before[0], sum(map(cpu_seconds, stubs)) - before[1]]
        server, stub = (1e6 * seconds / max(all_replies, 1) for seconds in used)
        return Window(
            rate=found.rate, client_us=1e6 * found.cpu_seconds / found.replies, server_us=server, stub_us=stub
        )


def artifact(store: Store, folder: Path, model: str) -> Artifact:
    """One of the benchmark's models, in a store."""
    folder.mkdir(parents=True)
    write(model, folder / "model.onnx")
    made_by = Provenance(
        stage="benchmark", parent=None, config={}, recipe="", samples=None, seed=0, environment={}, at=now()
    )
    made = Artifact(
        name=MODEL,
        format="onnx",
        files=(File.of(folder / "model.onnx"),),
        inputs=(TensorSpec(name="x", dtype="float32", shape=("n", *ITEMS[model])),),
        outputs=(TensorSpec(name="y", dtype="float32", shape=("n", 10)),),
        requires={},
        made_by=made_by,
    )
    return store.put(made, folder)


@contextmanager
def pinned(cores: set[int]) -> Iterator[None]:
    """Processes started in this block run on these cores."""
    before = os.sched_getaffinity(0)
    os.sched_setaffinity(0, cores)
    try:
        yield
    finally:
        os.sched_setaffinity(0, before)


@contextmanager
def site(folder: Path, setups: Mapping[str, Setup], *, alone: bool = True) -> Iterator[Site]:
    """A server with these setups, by name.

    `alone` gives the server the first of this process's cores and the client the last; otherwise both have all.
    """
    store, repository = Store(folder / "store"), folder / "repository"
    models = {setup.model for setup in setups.values()}
    made = {model: artifact(store, folder / f"made-{model}", model) for model in models}
    for name, setup in setups.items():
        deployment = Deployment(
            schema=1,
            name=name,
            max_batch_size=setup.max_batch,
            batching=Batching(max_queue_delay_us=setup.delay_us),
            cache=setup.cache,
        )
        version = place(made[setup.model], deployment, store=store, repository=repository).path
        if setup.code is not None:
            (version / "model.py").unlink()
            (version / "model.py").write_text(setup.code)
    cores = sorted(os.sched_getaffinity(0))
    with (
        patch.dict(os.environ, SEATRIAL_HOME=str(folder / "home")),
        pinned({cores[0]} if alone else set(cores)),
        serving(repository) as server,
    ):
        load(server, tuple(setups))
        with pinned(set(cores)):
            yield Site(server=server, cores=(cores[0], cores[-1]))
        with Control(server.url) as control:
            for name in setups:
                control.unload(name)  # what a model.py tells as it ends


def cpu_seconds(pid: int) -> float:
    """Processor seconds of a process, its ended threads included."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / _TICK


def cpu_of_all(pid: int) -> float:
    """Processor seconds of a process and of what it started and that still runs."""
    return sum(map(cpu_seconds, [pid, *(child for child, _ in family(pid))]))


def spent(folder: Path, name: str) -> tuple[float, float]:
    """Microseconds a request that a timed model.py spent in all and in the model's run; once the server is down."""
    total, running, count = json.loads((folder / "repository" / name / "1" / "spent.json").read_text())
    return 1e6 * total / count, 1e6 * running / count


def ratios(one: Sequence[Window], other: Sequence[Window]) -> tuple[float, float, float]:
    """Median, least and largest ratio of the rates of windows taken in pairs."""
    found = sorted(a.rate / b.rate for a, b in zip(one, other, strict=True))
    return statistics.median(found), found[0], found[-1]


def times(windows: Sequence[Window]) -> str:
    """Describe the CPU time of a request by process."""
    client, server, stub = (
        statistics.median(getattr(window, part) for window in windows) for part in ("client_us", "server_us", "stub_us")
    )
    return f"client {client:.0f}, server {server:.0f}, stub {stub:.0f} us"


def _command(pid: int) -> str:
    return Path(f"/proc/{pid}/cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace")
