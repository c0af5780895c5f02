"""Energy: the driver's cumulative counter against the integral of sampled power, over a window of steady work."""

import threading
import time
from collections.abc import Callable, Sequence
from itertools import pairwise
from typing import Any

from scripts.gpu_sections.place import MissingPartError, Place, torch_here
from scripts.gpu_sections.record import Claim, Found

LIMIT = 0.10  # the power sensor of A100 and H100 sees a part of the time only (arXiv 2312.02741)
WINDOW = 60.0  # seconds
INTERVAL = 0.02


def run(place: Place) -> Found:
    """Idle for a moment, then products for a window; on the CPU there is no counter to hold against anything."""
    torch = torch_here()
    if place.small:
        matrix = torch.randn(64, 64)
        looks = sampled(lambda: 1.0, lambda: matrix @ matrix, 0.1)
        joules = integral(looks)
        row: dict[str, Any] = {"joules_counter": None, "joules_integral": joules}
        return Found(rows=(row,), claims=(judged(None, joules),), notes=("the power is a stand-in of 1 W",))
    power, counter = _driver()
    began = counter()
    time.sleep(2.0)
    idle = (counter() - began) / 2.0
    matrix = torch.randn(4096, 4096, device="cuda", dtype=torch.bfloat16)

    def work() -> None:
        for _ in range(20):
            matrix @ matrix
        torch.cuda.synchronize()

    work()
    before = counter()
    looks = sampled(power, work, min(WINDOW, place.left() - 15))
    counted = counter() - before
    row = {
        "joules_counter": counted,
        "joules_integral": (integrated := integral(looks)),
        "seconds": looks[-1][0] - looks[0][0],
        "idle_watts": idle,
        "watts": sorted(watts for _, watts in looks)[len(looks) // 2],
        "looks": len(looks),
    }
    return Found(rows=(row,), claims=(judged(counted, integrated),))


def sampled(power: Callable[[], float], work: Callable[[], object], seconds: float) -> list[tuple[float, float]]:
    """Seconds and watts, looked at while the work runs; the first and the last look are at its ends."""
    looks = [(time.monotonic(), power())]
    stop = threading.Event()

    def watch() -> None:
        while not stop.wait(INTERVAL):
            looks.append((time.monotonic(), power()))

    thread = threading.Thread(target=watch)
    thread.start()
    try:
        until = time.monotonic() + seconds
        while time.monotonic() < until:
            work()
    finally:
        stop.set()
        thread.join()
    looks.append((time.monotonic(), power()))
    return looks


def integral(looks: Sequence[tuple[float, float]]) -> float:
    """Joules by the trapezoidal rule."""
    return sum((later - earlier) * (first + second) / 2 for (earlier, first), (later, second) in pairwise(looks))


def judged(counted: float | None, integrated: float) -> Claim:
    """The claim; unknown where the card has no counter, or it did not advance."""
    told = None if not counted or counted <= 0 else abs(counted - integrated) / counted
    return Claim(
        claim="energy counter against the integral of power",
        bar=f"<= {LIMIT:.0%} apart",
        value="" if told is None else f"{told:.1%}",
        met=None if told is None else told <= LIMIT,
        why="no energy counter, or it did not advance" if told is None else "",
    )


def _driver() -> tuple[Callable[[], float], Callable[[], float]]:
    """Watts now, and joules since the driver was loaded, of the first device."""
    try:
        import pynvml
        import torch
    except ImportError as error:
        raise MissingPartError(f"nvidia-ml-py: {error}") from error
    pynvml.nvmlInit()
    handle: Any = pynvml.nvmlDeviceGetHandleByUUID(f"GPU-{torch.cuda.get_device_properties(0).uuid}")
    try:
        pynvml.nvmlDeviceGetTotalEnergyConsumption(handle)
    except pynvml.NVMLError as error:
        raise MissingPartError(f"no cumulative energy counter ({error})") from error
    return (
        lambda: float(pynvml.nvmlDeviceGetPowerUsage(handle)) / 1e3,
        lambda: float(pynvml.nvmlDeviceGetTotalEnergyConsumption(handle)) / 1e3,
    )
