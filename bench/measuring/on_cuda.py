"""CUDA through torch and NVML, for timing: events, the L2 cache's size, the clock of a device's multiprocessors.

Experimental (`optimize.experimental.GPU`): never run on a GPU.
"""

from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from typing import Any

import torch

from seatrial.optimize.errors import MachineError


class CudaEvents:
    """A pair of timing events on the current stream of a device.

    An engine that works on another stream and waits for it is timed too: its run returns before the second event is
    recorded, so the difference is then wall time as the device's clock sees it.
    """

    def __init__(self, device: str) -> None:
        self._device = torch.device(device)
        with torch.cuda.device(self._device):
            self._first: Any = torch.cuda.Event(enable_timing=True)  # type: ignore[no-untyped-call]
            self._second: Any = torch.cuda.Event(enable_timing=True)  # type: ignore[no-untyped-call]

    def start(self) -> None:
        """Record the first event."""
        self._first.record(torch.cuda.current_stream(self._device))

    def stop(self) -> float:
        """Record the second event, wait for it, and return the seconds between them."""
        self._second.record(torch.cuda.current_stream(self._device))
        self._second.synchronize()
        return float(self._first.elapsed_time(self._second)) / 1e3


def events(device: str) -> CudaEvents | None:
    """Events of a CUDA device; None on the processor, or where this torch has no CUDA."""
    return CudaEvents(device) if torch.device(device).type == "cuda" and torch.cuda.is_available() else None


def l2_bytes(device: str) -> int:
    """Bytes of a device's L2 cache; 0 where torch does not say."""
    if not torch.cuda.is_available():
        return 0
    return int(getattr(torch.cuda.get_device_properties(torch.device(device)), "L2_cache_size", 0))


@contextmanager
def sm_clock() -> Iterator[Callable[[], float | None]]:
    """A function that returns the highest clock of this machine's GPUs in hertz; None where no driver tells."""
    from .on_nvml import opened

    with ExitStack() as stack:
        nvml: Any = None
        with suppress(MachineError):
            nvml = stack.enter_context(opened())

        def read() -> float | None:
            with suppress(MachineError):
                return max((gpu.sm_clock for gpu in nvml.gpus() if gpu.sm_clock), default=None) if nvml else None
            return None

        yield read
