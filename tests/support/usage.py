"""What slots and loads used, made up for tests: server counts, memory, GPU memory and energy."""

from collections.abc import Mapping, Sequence
from typing import Any

from seatrial.bench.measuring.growth import Growth, Part
from seatrial.bench.measuring.usage import DeviceUse, EnergyUse, Memory
from seatrial.bench.server_statistics import ServerCounts

NO_COUNTS = ServerCounts(
    requests=0,
    failures=0,
    inferences=0,
    executions=0,
    queue=0.0,
    compute_input=0.0,
    compute_infer=0.0,
    compute_output=0.0,
    batch_sizes={},
)


def executed(sizes: Mapping[int, int]) -> ServerCounts:
    """Return the counts of a server that ran batches of these sizes."""
    stored: dict[str, Any] = NO_COUNTS.to_json() | {"batch_sizes": {str(size): count for size, count in sizes.items()}}
    return ServerCounts.from_json(stored)


def grown(slopes: Sequence[float]) -> Growth:
    """Return growth whose later parts have these slopes, in bytes per 1,000 requests."""
    parts = tuple(Part(begin=1 / 3, slope=each, error=10.0, freedom=30.0, collected=False) for each in slopes)
    return Growth(slope=0.0, lower=0.0, grown=0.0, stepped=0.0, steps=0, shrunk=0.0, note="", parts=parts)


def held(bytes_: int, slopes: Sequence[float]) -> Memory:
    """Return the memory of a server that held so many bytes, with that growth."""
    return Memory(peak=bytes_, last=bytes_, growth=grown(slopes))


def on_gpu(bytes_: int) -> DeviceUse:
    """Return GPU memory with that peak."""
    return DeviceUse(peak=bytes_, last=bytes_, baseline="empty server", gpus={})


def spent(joules: float) -> EnergyUse:
    """Return energy with that many joules per inference."""
    return EnergyUse(joules=joules, idle_watts=0.0, seconds=1.0, net_joules=joules, per_inference=joules)
