"""Accelerator usage while a block runs: peak memory above a baseline, and energy above idling.

Watches through `bench.measuring.on_nvml`; judges nothing. Where there is no GPU or a counter is missing, the result is
``unavailable`` with the reason: a figure that was not measured is never 0.
"""

import threading
import time
from collections.abc import Mapping
from contextlib import ExitStack
from dataclasses import dataclass, field
from types import TracebackType
from typing import TYPE_CHECKING

from seatrial.optimize.errors import MachineError

from ..measurement import Unavailable
from ..processes import tree
from .usage import DeviceUse, EnergyUse, GpuMemory

if TYPE_CHECKING:
    from .on_nvml import Gpu, Nvml

INTERVAL = 0.003  # seconds between looks; a gauge once a second misses what comes between
STATE_EVERY = 0.1  # seconds between looks at clocks, temperature, throttling
SURE_SECONDS = 60.0  # of a window from which on the energy counter's own granularity no longer shows
IDLE_SECONDS = 2.0


def baseline() -> dict[str, int]:
    """Bytes taken on each GPU now, by UUID; empty where there is none to ask."""
    from .on_nvml import opened

    try:
        with opened() as nvml:
            return nvml.used()
    except MachineError:
        return {}


@dataclass(slots=True)
class DeviceProbe:
    """Watches device memory, clocks and throttling from entering the block to leaving it; `result` tells.

    `before` is what was taken on each GPU before the subject came (`baseline`, with an empty server): `peak` and `last`
    are above it and hold the context too. Without it they are above what was taken when the probe began.
    """

    pids: tuple[int, ...] = ()
    before: Mapping[str, int] = field(default_factory=dict)
    interval: float = INTERVAL
    _unavailable: str = ""
    _begun: dict[str, int] = field(default_factory=dict)
    _peaks: dict[str, int] = field(default_factory=dict)
    _together: int = 0
    _own: dict[str, dict[int, int]] = field(default_factory=dict)
    _last: dict[str, int] = field(default_factory=dict)
    _states: list["tuple[float, Gpu]"] = field(default_factory=list)
    _open: ExitStack = field(default_factory=ExitStack)
    _stop: threading.Event = field(default_factory=threading.Event)
    _thread: threading.Thread | None = None

    def __enter__(self) -> "DeviceProbe":
        from .on_nvml import opened

        try:
            nvml = self._open.enter_context(opened())
            self._begun = nvml.used()
            self._look(nvml)
        except MachineError as error:
            self._unavailable = error.what
            return self
        self._thread = threading.Thread(target=self._watch, args=(nvml,), name="device probe", daemon=True)
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stop.set()
        if self._thread is not None:
            self._thread.join()
        self._open.close()

    @property
    def result(self) -> DeviceUse | Unavailable:
        """Return what was seen, or why there is nothing."""
        if self._unavailable:
            return Unavailable(unavailable=self._unavailable)
        gpus = {gpu.uuid: gpu for _, gpu in self._states}
        told = {uuid: self._of(uuid, gpu) for uuid, gpu in gpus.items()}
        return DeviceUse(
            peak=self._together,
            last=sum(each.last for each in told.values()),
            baseline="empty server" if self.before else "start of the measurement",
            gpus=told,
        )

    def _of(self, uuid: str, gpu: "Gpu") -> GpuMemory:
        before = self._before(uuid)
        own = dict(self._own.get(uuid, {}))
        return GpuMemory(
            name=gpu.name,
            before=before,
            peak=max(0, self._peaks[uuid] - before),
            last=max(0, self._last[uuid] - before),
            by_process=own or "unavailable",
            others=tuple(sorted(set(gpu.by_process or ()) - set(own))),
            states=tuple(
                (at, each.sm_clock, each.memory_clock, each.temperature, each.power, each.throttles)
                for at, each in self._states
                if each.uuid == uuid
            ),
        )

    def _watch(self, nvml: "Nvml") -> None:
        next_state = 0.0
        try:
            while not self._stop.wait(self.interval):
                self._look(nvml, state=time.monotonic() >= next_state)
                if time.monotonic() >= next_state:
                    next_state = time.monotonic() + STATE_EVERY
            self._look(nvml)
        except MachineError as error:
            self._unavailable = error.what

    def _look(self, nvml: "Nvml", *, state: bool = True) -> None:
        self._last = nvml.used()
        self._peaks = {uuid: max(used, self._peaks.get(uuid, 0)) for uuid, used in self._last.items()}
        self._together = max(
            self._together, sum(max(0, used - self._before(uuid)) for uuid, used in self._last.items())
        )
        if state:
            seen = nvml.gpus()
            self._states += [(time.monotonic(), gpu) for gpu in seen]
            mine = set(tree(self.pids))
            for gpu in seen:
                own = self._own.setdefault(gpu.uuid, {})
                held = {pid: used for pid, used in (gpu.by_process or {}).items() if pid in mine}
                own.update({pid: max(used, own.get(pid, 0)) for pid, used in held.items()})

    def _before(self, uuid: str) -> int:
        return self.before.get(uuid, self._begun.get(uuid, 0))


@dataclass(slots=True)
class EnergyMeter:
    """Energy of a block from the GPUs' cumulative counters, less what idling takes; `result` tells.

    Idling is measured for `idle_seconds` before the block begins, with the subject loaded; where there is no counter
    no time is spent on it. `begin` starts the window anew, after a warm-up inside the block.
    """

    idle_seconds: float = IDLE_SECONDS
    _unavailable: str = ""
    _joules: float = 0.0
    _idle_watts: float = 0.0
    _seconds: float = 0.0
    _begun: tuple[float, float] = (0.0, 0.0)

    def __enter__(self) -> "EnergyMeter":
        first = self._read()
        if first is not None:
            time.sleep(self.idle_seconds)
            self._begun = self._read() or first
            self._idle_watts = (self._begun[1] - first[1]) / max(self._begun[0] - first[0], 1e-9)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        last = None if self._unavailable else self._read()
        if last is not None:
            self._seconds, self._joules = last[0] - self._begun[0], last[1] - self._begun[1]

    def begin(self) -> None:
        """Count from now on; what idling takes stays as measured."""
        if not self._unavailable and (now := self._read()) is not None:
            self._begun = now

    def result(self, inferences: int) -> EnergyUse | Unavailable:
        """Return the energy of so many inferences, or why there is nothing to tell."""
        if self._unavailable:
            return Unavailable(unavailable=self._unavailable)
        if self._joules <= 0 or inferences <= 0:
            return Unavailable(unavailable="the energy counter did not advance, or nothing was inferred")
        net = self._joules - self._idle_watts * self._seconds
        short = self._seconds < SURE_SECONDS
        return EnergyUse(
            joules=self._joules,
            idle_watts=self._idle_watts,
            seconds=self._seconds,
            net_joules=net,
            per_inference=net / inferences,
            note=f"window under {SURE_SECONDS:.0f} s: the counter's granularity may be visible" if short else "",
        )

    def _read(self) -> tuple[float, float] | None:
        """The moment and the joules of all GPUs together; None, and the reason kept, where they cannot be read."""
        from .on_nvml import opened

        try:
            with opened() as nvml:
                found = nvml.joules()
        except MachineError as error:
            found = error.what
        if isinstance(found, str):
            self._unavailable = found
            return None
        return time.monotonic(), sum(found.values())
