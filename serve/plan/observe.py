"""Measures the latency-per-batch curve on real servers: one layout after the other, round after round, closed loop.

The curve comes from the server's own counters while single requests queue up, so that it holds what the python
backend adds to every request, and what instances take from each other and from the client on the same cores.
"""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from bench.load import on_locust
from bench.load.payload import Payload
from bench.server_statistics import ModelStatistics, statistics
from bench.targets import Endpoint
from optimize.artifact import Artifact
from optimize.environment import environment
from optimize.errors import ConfigError
from optimize.samples import Array
from optimize.store import Store

from ..deployment import Deployment
from ..errors import ServerError
from ..triton.host import host
from .curve import Curve, Executions, Window
from .setting import Layout, Setting

ROUNDS, SECONDS = 2, 0.6
_JOINED = 16  # rows of one request, against as many requests of one row
_MOST_IN_FLIGHT = 128
_KEPT = 1000  # latencies of a window

Progress = Callable[[float, str], None]
Inputs = Callable[[Endpoint], dict[str, Array]]
"""What to send to an endpoint: some samples for each input."""


@dataclass(frozen=True, kw_only=True)
class Bench:
    """Where settings are tried: an artifact, how it is deployed but for the setting, what is sent, a scratch folder.

    `cores` pins the client; None leaves it wherever it may run.
    """

    artifact: Artifact
    deployment: Deployment
    store: Store
    inputs: Inputs
    scratch: Path
    client_cores: Sequence[int] = ()

    def __post_init__(self) -> None:
        if self.deployment.max_batch_size < 1:
            raise ConfigError(
                "a model that does not batch has no batch to plan",
                where=self.deployment.name,
                next_step="set max_batch_size to the largest batch to consider, for a model with a symbolic batch axis",
            )
        if self.deployment.instances.kind != "cpu":
            raise ConfigError(
                "only layouts on the CPU can be planned: cores bound instances and threads",
                where=self.deployment.name,
                next_step='write instances.kind = "cpu", or choose count and batch by hand',
            )

    @contextmanager
    def serving(self, setting: Setting) -> Iterator[Endpoint]:
        """A fresh server with that setting, gone afterwards."""
        hosted = host(self.store, setting.applied(self.deployment), scratch=self.scratch)
        with hosted(self.artifact) as endpoint:
            yield endpoint

    def payload(self, endpoint: Endpoint, rows: int = 1) -> Payload:
        """Requests of so many rows."""
        return Payload.build(endpoint, self.inputs(endpoint), rows)


def observe(
    bench: Bench,
    some: Sequence[Layout],
    *,
    largest: int,
    rounds: int = ROUNDS,
    seconds: float = SECONDS,
    progress: Progress | None = None,
) -> Curve:
    """The curve of these layouts for batches up to `largest`; every round visits them all, in turning order.

    Raises:
        SeatrialError: whatever placing, starting or loading raises.
    """
    windows: list[Window] = []
    for number in range(rounds):
        order = list(some)[:: -1 if number % 2 else 1]
        for place, layout in enumerate(order):
            if progress:
                progress((number * len(order) + place) / (rounds * len(order)), f"{layout} threads")
            setting = Setting(max_batch=largest, delay_us=0, layout=layout)
            with bench.serving(setting) as endpoint:
                windows += _windows(bench, endpoint, layout, number, largest, seconds)
    here = environment()
    return Curve(
        subject=bench.artifact.digest,
        largest=largest,
        cores=here.cores,
        windows=tuple(windows),
        environment=here.to_json(),
    )


def concurrencies(layout: Layout, largest: int) -> tuple[int, ...]:
    """Requests in flight, from nothing queueing to always a full batch for every instance."""
    many = [step * layout.instances for step in (4, 16, 2 * largest)]
    return tuple(sorted({1, *(min(each, _MOST_IN_FLIGHT) for each in many)}))


def _windows(
    bench: Bench, endpoint: Endpoint, layout: Layout, number: int, largest: int, seconds: float
) -> Iterator[Window]:
    single = bench.payload(endpoint)
    for concurrency in concurrencies(layout, largest):
        yield _window(bench, endpoint, single, layout, number, concurrency, seconds)
    if largest > 1:
        joined = bench.payload(endpoint, min(_JOINED, largest))
        yield _window(bench, endpoint, joined, layout, number, 1, seconds)


def _window(
    bench: Bench, endpoint: Endpoint, payload: Payload, layout: Layout, number: int, concurrency: int, seconds: float
) -> Window:
    looks: list[ModelStatistics] = []

    def begin(_: float) -> None:
        if not looks:  # the warm-up is over, nothing has been sent that counts
            looks.append(_counted(endpoint))

    folder = bench.scratch / "windows"
    run = on_locust.saturate(
        endpoint,
        payload,
        seconds=seconds,
        concurrency=concurrency,
        folder=folder,
        cores=bench.client_cores,
        progress=begin,
    )
    first, last = looks[0], _counted(endpoint)
    executions = (
        Executions(
            size=size,
            count=count - first.batch_sizes.get(size, 0),
            seconds=(last.batch_ns[size] - first.batch_ns.get(size, 0)) * 1e-9,
        )
        for size, count in sorted(last.batch_sizes.items())
    )
    alone = concurrency == 1 and payload.batch == 1
    return Window(
        layout=layout,
        round=number,
        concurrency=concurrency,
        rows=payload.batch,
        seconds=run.seconds,
        completed=run.completed,
        executions=tuple(each for each in executions if each.count > 0),
        latencies=tuple(run.latency[:_KEPT].tolist()) if alone else (),
    )


def _counted(endpoint: Endpoint) -> ModelStatistics:
    found = statistics(endpoint)
    if isinstance(found, str):
        raise ServerError("the server does not count its batches", where=found, next_step="use a Triton that does")
    return found
