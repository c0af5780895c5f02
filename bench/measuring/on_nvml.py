"""NVML: what the driver says about each GPU. Reads only, and maps NVML's errors; locks no clock, judges nothing.

What a card, a driver or a container does not tell is None, never 0: many virtual GPUs have no energy counter, and per
process figures are often hidden from containers. Experimental (`optimize.experimental.GPU`).
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import pynvml

from seatrial.optimize import experimental
from seatrial.optimize.errors import MachineError

THROTTLES = {
    "idle": 0x1,
    "application clocks": 0x2,
    "power cap": 0x4,
    "hardware slowdown": 0x8,
    "sync boost": 0x10,
    "thermal (software)": 0x20,
    "thermal (hardware)": 0x40,
    "power brake": 0x80,
    "display clocks": 0x100,
    "board limit": 0x200,
    "reliability": 0x400,
}
"""Names of the bits of ``nvmlDeviceGetCurrentClocksThrottleReasons``; idle is one of them and slows nothing down."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Gpu:
    """One look at one GPU: bytes used on the whole device and by process id, degrees Celsius, hertz, watts.

    `throttles` are the reasons why its clock is below what it could be.
    """

    uuid: str
    name: str
    used: int
    by_process: dict[int, int] | None
    temperature: int | None
    sm_clock: float | None
    memory_clock: float | None
    power: float | None
    throttles: tuple[str, ...] | None


class Nvml:
    """The GPUs of this machine, while the library is open. Its questions raise MachineError where the driver fails."""

    def __init__(self) -> None:
        with _mapped():
            handles = [pynvml.nvmlDeviceGetHandleByIndex(index) for index in range(pynvml.nvmlDeviceGetCount())]
            self._handles = {_text(pynvml.nvmlDeviceGetUUID(handle)): handle for handle in handles}

    def used(self) -> dict[str, int]:
        """Bytes in use on each device by UUID: whole contexts and every process; the cheapest question of all."""
        with _mapped():
            return {uuid: int(pynvml.nvmlDeviceGetMemoryInfo(handle).used) for uuid, handle in self._handles.items()}

    def joules(self) -> dict[str, float] | str:
        """Energy since the driver was loaded, by UUID, from the cumulative counter alone; or why there is none.

        Sampled power is no substitute: on A100 and H100 the sensor sees a quarter of the time (arXiv 2312.02741).
        """
        try:
            return {
                uuid: pynvml.nvmlDeviceGetTotalEnergyConsumption(handle) / 1e3 for uuid, handle in self._handles.items()
            }
        except pynvml.NVMLError as error:
            return f"no cumulative energy counter ({error})"

    def gpus(self) -> tuple[Gpu, ...]:
        """Everything else that the driver tells, for each GPU."""
        used = self.used()
        return tuple(_gpu(uuid, handle, used[uuid]) for uuid, handle in self._handles.items())


@contextmanager
def opened() -> Iterator[Nvml]:
    """The library, open for the length of a block.

    Raises:
        MachineError: there is no driver or no GPU.
    """
    with _mapped():
        pynvml.nvmlInit()
    try:
        nvml = Nvml()
        if not nvml.used():
            raise MachineError("the NVIDIA driver sees no GPU", where="NVML", next_step=_NEXT)
        experimental.used(experimental.GPU)
        yield nvml
    finally:
        pynvml.nvmlShutdown()


@contextmanager
def _mapped() -> Iterator[None]:
    try:
        yield
    except pynvml.NVMLError as error:
        raise MachineError(f"the NVIDIA driver reports: {error}", where="NVML", next_step=_NEXT) from error


_NEXT = "measure on a machine with an NVIDIA GPU and its driver; nvidia-smi must list it"


def _gpu(uuid: str, handle: Any, used: int) -> Gpu:
    bits = _known(lambda: pynvml.nvmlDeviceGetCurrentClocksThrottleReasons(handle))
    sm = _known(lambda: pynvml.nvmlDeviceGetClockInfo(handle, pynvml.NVML_CLOCK_SM))
    memory = _known(lambda: pynvml.nvmlDeviceGetClockInfo(handle, pynvml.NVML_CLOCK_MEM))
    power = _known(lambda: pynvml.nvmlDeviceGetPowerUsage(handle))
    running = _known(lambda: pynvml.nvmlDeviceGetComputeRunningProcesses(handle))
    return Gpu(
        uuid=uuid,
        name=_text(_known(lambda: pynvml.nvmlDeviceGetName(handle)) or ""),
        used=used,
        by_process=_by_process(running),
        temperature=_known(lambda: pynvml.nvmlDeviceGetTemperature(handle, pynvml.NVML_TEMPERATURE_GPU)),
        sm_clock=None if sm is None else sm * 1e6,
        memory_clock=None if memory is None else memory * 1e6,
        power=None if power is None else power / 1e3,
        throttles=None if bits is None else tuple(name for name, bit in THROTTLES.items() if bits & bit),
    )


def _by_process(running: Any) -> dict[int, int] | None:
    """Bytes by process; None where the driver lists none or hides the figures."""
    if not running or any(process.usedGpuMemory is None for process in running):
        return None
    return {int(process.pid): int(process.usedGpuMemory) for process in running}


def _known(ask: Callable[[], Any]) -> Any:
    """The answer, or None where this card or driver does not tell."""
    try:
        return ask()
    except pynvml.NVMLError:
        return None


def _text(value: Any) -> str:
    return value.decode() if isinstance(value, bytes) else str(value)
