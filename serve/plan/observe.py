"""Measures the latency-per-batch curve on real servers: one layout after the other, round after round, closed loop.

The curve comes from the server's own counters while single requests queue up, so that it holds what the python
backend adds to every request, and what instances take from each other and from the client on the same cores.
"""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from seatrial.bench.load import on_locust
from seatrial.bench.load.payload import Payload
from seatrial.bench.server_statistics import ModelStatistics, statistics
from seatrial.bench.targets import Endpoint
from seatrial.optimize import scratch
from seatrial.optimize.artifact import Artifact
from seatrial.optimize.environment import environment
from seatrial.optimize.errors import ConfigError
from seatrial.optimize.samples import Array
from seatrial.optimize.store import Store

from ..deployment import Deployment
from ..errors import ServerError
from ..triton.running.host import host
from .curve import Curve, Executions, Window
from .setting import Layout, Setting

ROUNDS, SECONDS = 2, 0.6
_JOINED = 16  # rows of one request, against as many requests of one row
_MOST_IN_FLIGHT = 128
_KEPT = 1000  # latencies of a window

Progress = Callable[[float, str], None]
Inputs = Callable[[Endpoint], dict[str, Array]]
"""Request inputs for an endpoint: some samples for each input."""


@dataclass(frozen=True, kw_only=True)
class Bench:
    """Test bench of settings: an artifact, its deployment except for the setting, the inputs, a scratch folder.

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
                "the model does not batch, so there is no batch size to plan",
                where=self.deployment.name,
                next_step="set max_batch_size to the largest batch to consider, for a model with a symbolic batch axis",
            )
        if self.deployment.instances.kind != "cpu":
            raise ConfigError(
                "only CPU layouts can be planned: cores bound instances and threads",
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
    with scratch.folder("windows", bench.scratch) as raw:
        for number in range(rounds):
            order = list(some)[:: -1 if number % 2 else 1]
            for place, layout in enumerate(order):
                if progress:
                    progress((number * len(order) + place) / (rounds * len(order)), f"{layout} threads")
                with bench.serving(Setting(max_batch=largest, delay_us=0, layout=layout)) as endpoint:
                    looking = _Looking(
                        bench=bench, endpoint=endpoint, layout=layout, round=number, seconds=seconds, folder=raw
                    )
                    windows += looking.windows(largest)
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


@dataclass(frozen=True, slots=True, kw_only=True)
class _Looking:
    """Windows on one server."""

    bench: Bench
    endpoint: Endpoint
    layout: Layout
    round: int
    seconds: float
    folder: Path

    def windows(self, largest: int) -> Iterator[Window]:
        """Single requests, few to many in flight; then requests of many rows, one at a time."""
        single = self.bench.payload(self.endpoint)
        for concurrency in concurrencies(self.layout, largest):
            yield self.window(single, concurrency)
        if largest > 1:
            yield self.window(self.bench.payload(self.endpoint, min(_JOINED, largest)), 1)

    def window(self, payload: Payload, concurrency: int) -> Window:
        """One closed loop, and what the server counted meanwhile."""
        looks: list[ModelStatistics] = []

        def begin(_: float) -> None:
            if not looks:  # the warm-up is over, nothing has been sent that counts
                looks.append(_counted(self.endpoint))

        run = on_locust.saturate(
            self.endpoint,
            payload,
            seconds=self.seconds,
            concurrency=concurrency,
            folder=self.folder,
            client=on_locust.ClientSetup(cores=self.bench.client_cores),
            progress=begin,
        )
        alone = concurrency == 1 and payload.batch == 1
        return Window(
            layout=self.layout,
            round=self.round,
            concurrency=concurrency,
            rows=payload.batch,
            seconds=run.seconds,
            completed=run.completed,
            executions=_between(looks[0], _counted(self.endpoint)),
            latencies=tuple(run.latency[:_KEPT].tolist()) if alone else (),
        )


def _between(first: ModelStatistics, last: ModelStatistics) -> tuple[Executions, ...]:
    found = (
        Executions(
            size=size,
            count=count - first.batch_sizes.get(size, 0),
            seconds=(last.batch_ns[size] - first.batch_ns.get(size, 0)) * 1e-9,
        )
        for size, count in sorted(last.batch_sizes.items())
    )
    return tuple(each for each in found if each.count > 0)


def _counted(endpoint: Endpoint) -> ModelStatistics:
    found = statistics(endpoint)
    if isinstance(found, str):
        raise ServerError(
            "the server does not report batch statistics",
            where=found,
            next_step="use a Triton release that reports them",
        )
    return found
