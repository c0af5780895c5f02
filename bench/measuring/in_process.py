"""Measurement inside the measured process: opens an artifact's session and runs MLPerf's closed-loop scenarios.

Called through `isolate`, in a process that does nothing else. Takes raw times and looks at its own memory;
computes no statistic. On a GPU the clocks are steady before the first figure, the second scenario's energy is counted,
and an engine that can bind buffers is timed on them as well (`bound`).
"""

import gc
import os
import sys
import time
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager, suppress
from dataclasses import dataclass
from typing import Any

import numpy as np

from seatrial.optimize.artifact import Artifact
from seatrial.optimize.errors import ConfigError, MachineError
from seatrial.optimize.samples import Array
from seatrial.optimize.sessions.engine import Opened, engine_of
from seatrial.optimize.sessions.session import Session, open_artifact
from seatrial.optimize.store import Store

from ..measurement import NOTHING, Unavailable
from ..processes import Resident, resident
from .bound import BoundTimes, bound_times, settle
from .device import EnergyMeter
from .usage import EnergyUse

LEAST = 10  # inferences per scenario, however slow the model
MOST = 200_000
WARM = 0.1  # of a scenario's time, before it, not recorded


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """SingleStream asks for one sample after the other, Offline for `batch` samples at a time, each for `seconds`.

    `engine` names another engine than that of the artifact's format, `device` another device than the engine's own.
    """

    seconds: float = 3.0
    batch: int = 32
    threads: int = 1
    engine: str = ""
    device: str = ""

    def __post_init__(self) -> None:
        for name in ("seconds", "batch", "threads"):
            if getattr(self, name) <= 0:
                raise ConfigError(f"must be positive, got {getattr(self, name)}", where=name)


@dataclass(frozen=True, slots=True, kw_only=True)
class InProcess:
    """An open session in this very process, with samples to ask it; the first axis of every array is the sample."""

    session: Session
    samples: Mapping[str, Array]

    def ask(self, start: int, batch: int) -> float:
        """Infer once on `batch` samples from `start` on (round again at the end); seconds that it took.

        Raises:
            StageError: the engine refuses these inputs.
        """
        count = len(next(iter(self.samples.values())))
        if start % count + batch <= count:
            rows: Any = slice(start % count, start % count + batch)  # a view: nothing is copied inside the window
        else:
            rows = np.arange(start, start + batch) % count
        inputs = {name: array[rows] for name, array in self.samples.items()}
        began = time.perf_counter()
        self.session.run(inputs)
        return time.perf_counter() - began


@dataclass(frozen=True, slots=True, kw_only=True)
class Ran:
    """Raw values of one artifact: seconds of every inference by scenario, memory by phase, allocators' peak bytes.

    On a GPU also the energy of the Offline scenario, the times of bound buffers where the engine has them, and the
    nodes that it left to the CPU.
    """

    load_time: float
    first_inference: float
    single_stream: list[float]
    offline: list[float]
    single_batch: int
    batch: int
    phases: Mapping[str, Resident]
    allocators: Mapping[str, str | Mapping[str, int]]
    provider: str
    device: str
    energy: EnergyUse | Unavailable
    bound: BoundTimes | None
    on_cpu: tuple[str, ...] = ()


def measure(artifact: Artifact, store: Store, samples: dict[str, Array], plan: Plan) -> Ran:
    """Raw values of one artifact: seconds per inference of both scenarios, loading, first inference, memory by phase.

    The largest batch is asked for before and after everything else: arenas grow at once, and what is still held at the
    end is the steady state. The engine's library is imported before the clock of `load_time` starts.

    Raises:
        ContractError: this machine breaks the artifact's hardware contract.
        StageError: the engine refuses the file or the samples.
    """
    with suppress(ImportError):  # the session says what is missing
        engine_of(artifact.format, plan.engine).load()
    phases = {"started": _memory()}
    began = time.perf_counter()
    opened = open_artifact(artifact, store, threads=plan.threads, engine=plan.engine, device=plan.device)
    load_time = time.perf_counter() - began
    phases["loaded"] = _memory()
    fixed = fixed_batch(artifact, samples)
    target, batch = InProcess(session=opened.session, samples=samples), fixed or plan.batch
    first = target.ask(0, fixed or 1)
    target.ask(0, batch)
    phases["largest_first"] = _memory()
    on_gpu = not opened.device.startswith("cpu")
    if on_gpu:
        with _sm_clock() as clock:
            settle(lambda: target.ask(0, batch), clock)
    single = _scenario(target, fixed or 1, plan.seconds)
    energy: EnergyUse | Unavailable = NOTHING
    if on_gpu:
        with EnergyMeter() as meter:
            offline = _scenario(target, batch, plan.seconds, begin=meter.begin)
        energy = meter.result(len(offline) * batch)
    else:
        offline = _scenario(target, batch, plan.seconds)
    target.ask(0, batch)
    phases["largest_last"] = _memory()
    return Ran(
        load_time=load_time,
        first_inference=first,
        single_stream=single,
        offline=offline,
        single_batch=fixed or 1,
        batch=batch,
        phases=phases,
        allocators=allocators(),
        provider=opened.provider,
        device=opened.device,
        energy=energy,
        bound=_bound(opened, samples, batch, plan.seconds) if on_gpu else None,
        on_cpu=opened.on_cpu,
    )


def _sm_clock() -> AbstractContextManager[Callable[[], float | None]]:
    from .on_cuda import sm_clock

    return sm_clock()


def _bound(opened: Opened, samples: Mapping[str, Array], batch: int, seconds: float) -> BoundTimes | None:
    """Raw times of bound buffers on a GPU; None where the engine binds none."""
    bind = getattr(opened.session, "bind", None)
    if bind is None:
        return None
    from .on_cuda import events, l2_bytes

    with _sm_clock() as clock:
        return bound_times(
            bind,
            samples,
            batch=batch,
            seconds=seconds,
            cache=l2_bytes(opened.device),
            events=events(opened.device),
            clock=clock,
        )


def fixed_batch(artifact: Artifact, samples: Mapping[str, Array]) -> int | None:
    """The batch that the artifact's inputs prescribe; None for any, or where a run takes one sample of [n, ...]."""
    sizes = {spec.shape[0] if spec.shape else None for spec in artifact.inputs}
    whole = all(samples[spec.name].ndim > len(spec.shape) for spec in artifact.inputs if spec.name in samples)
    first = next(iter(sizes)) if len(sizes) == 1 and not whole else None
    return first if isinstance(first, int) else None


def allocators() -> dict[str, str | Mapping[str, int]]:
    """Return the peak bytes of the engines' own allocators, or the reason why they are unavailable."""
    torch = sys.modules.get("torch")
    told: dict[str, str | Mapping[str, int]] = {
        "onnxruntime": "unavailable: its Python interface reports no arena statistics"
    }
    if torch is None or not torch.cuda.is_available():
        return told | {"torch": "unavailable: torch counts only its GPU allocations, and no GPU is in use"}
    return told | {
        "torch": {
            "allocated": int(torch.cuda.max_memory_allocated()),
            "reserved": int(torch.cuda.max_memory_reserved()),
        }
    }


def _scenario(target: InProcess, batch: int, seconds: float, begin: Callable[[], None] = lambda: None) -> list[float]:
    """Seconds of every inference, back to back, after a warm-up; garbage is collected before and not meanwhile.

    `begin` is called when the warm-up is over.
    """
    _ask_for(target, batch, seconds * WARM, 3)
    gc.collect()
    gc.disable()
    try:
        begin()
        return _ask_for(target, batch, seconds, LEAST)
    finally:
        gc.enable()


def _ask_for(target: InProcess, batch: int, seconds: float, least: int) -> list[float]:
    taken: list[float] = []
    until = time.perf_counter() + seconds
    while (time.perf_counter() < until or len(taken) < least) and len(taken) < MOST:
        taken.append(target.ask(len(taken) * batch, batch))
    return taken


def _memory() -> Resident:
    seen = resident(os.getpid())
    if seen is None:
        raise MachineError("the kernel does not tell this process's memory", where="/proc", next_step="mount /proc")
    return seen
