"""Settings of a plan: the largest batch, the delay, the instances and their threads.

Only values, and which of them a machine's cores allow. Says nothing about how well any of them serves.
"""

from collections.abc import Iterator
from dataclasses import dataclass, replace
from itertools import product
from math import isfinite
from typing import Any

from seatrial.optimize.errors import ConfigError
from seatrial.optimize.record import Record, as_json

from ..deployment import Deployment

_DELAY_SHARES = (0.03, 0.1)  # of the objective's bound: a longer wait would eat what the queue needs
_FEW_CORES = 4  # chosen: up to so many cores every split into copies and threads is tried


@dataclass(frozen=True, slots=True, kw_only=True, order=True)
class Layout:
    """Copies of the model, and ONNX Runtime's threads inside each."""

    instances: int
    threads: int

    def __post_init__(self) -> None:
        if self.instances < 1 or self.threads < 1:
            raise ConfigError(f"a layout needs at least 1 instance and 1 thread, got {self}")

    def __str__(self) -> str:
        return f"{self.instances} x {self.threads}"


@dataclass(frozen=True, slots=True, kw_only=True, order=True)
class Setting(Record):
    """One way to serve: the largest batch (rows), the queue delay (microseconds) and the layout."""

    max_batch: int
    delay_us: int
    layout: Layout

    def __post_init__(self) -> None:
        if self.max_batch < 1 or self.delay_us < 0:
            raise ConfigError(f"a setting needs a batch of at least 1 and a delay of at least 0, got {self}")

    def __str__(self) -> str:
        return f"batch {self.max_batch}, delay {self.delay_us} us, {self.layout} threads"

    @classmethod
    def of(cls, deployment: Deployment) -> "Setting":
        """Return the setting of a deployment."""
        return cls(
            max_batch=max(deployment.max_batch_size, 1),
            delay_us=deployment.batching.max_queue_delay_us,
            layout=Layout(instances=deployment.instances.count, threads=deployment.threads),
        )

    def applied(self, deployment: Deployment) -> Deployment:
        """The deployment with this setting; preferred sizes go, and it warms up with what it batches."""
        sizes = deployment.warmup.batch_sizes
        return replace(
            deployment,
            max_batch_size=self.max_batch,
            threads=self.layout.threads,
            batching=replace(deployment.batching, max_queue_delay_us=self.delay_us, preferred_sizes=()),
            instances=replace(deployment.instances, count=self.layout.instances),
            warmup=replace(deployment.warmup, batch_sizes=tuple(sorted({1, self.max_batch})) if sizes else ()),
        )

    def to_json(self) -> dict[str, Any]:
        """JSON values, flat."""
        return {"max_batch": self.max_batch, "delay_us": self.delay_us, **as_json(self.layout)}

    @classmethod
    def adapt(cls, value: dict[str, Any]) -> dict[str, Any]:
        """Put the layout's values together."""
        layout = {name: value[name] for name in ("instances", "threads") if name in value}
        return {name: item for name, item in value.items() if name not in layout} | {"layout": layout}


def layouts(cores: int) -> tuple[Layout, ...]:
    """Layouts whose threads all find a core: powers of two, and every core to one kind of parallelism or the other.

    On more than four cores only those that use more than half of them, and one thread alone: each costs seconds to
    measure, and a layout that leaves most cores idle bears less than one that does not.
    """
    counts = sorted({1 << power for power in range(cores.bit_length())} | {cores})
    some = [Layout(instances=i, threads=t) for i, t in product(counts, counts) if i * t <= cores]
    least = cores / 2 if cores > _FEW_CORES else 0
    return tuple(each for each in some if each.instances * each.threads > least or each == some[0])


def batches(largest: int) -> tuple[int, ...]:
    """The batch sizes worth trying up to the largest: powers of two, and the largest itself."""
    if largest < 1:
        raise ConfigError(f"the largest batch must be at least 1, got {largest}", next_step="use 1 or more")
    return tuple(sorted({1 << power for power in range(largest.bit_length())} | {largest}))


def delays(seconds: float) -> tuple[int, ...]:
    """Delays (microseconds) worth trying where an answer may take so long."""
    if not (isfinite(seconds) and seconds > 0):
        raise ConfigError(f"the time limit must be positive, got {seconds}")
    return tuple(sorted({0, *(max(int(round(1e6 * seconds * share, -2)), 100) for share in _DELAY_SHARES)}))


def settings(some: tuple[Layout, ...], largest: int, seconds: float) -> Iterator[Setting]:
    """Every setting of these layouts; without batching there is nothing to wait for."""
    for layout, batch in product(some, batches(largest)):
        for delay in delays(seconds) if batch > 1 else (0,):
            yield Setting(max_batch=batch, delay_us=delay, layout=layout)
