"""NVML's functions replaced by a GPU whose figures a test sets."""

from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import pynvml
import pytest

GIB = 1 << 30
CARD = "GPU-1"


class Card:
    """One GPU whose figures a test sets; functions named in `mute` are not supported by it."""

    def __init__(self) -> None:
        self.looks = 0
        self.used, self.millijoules, self.mute, self.bits = 1 * GIB, 1000, set[str](), 0x1 | 0x4
        self.processes: list[Any] = []
        self.count, self.extra = 1, dict[int, int]()

    def memory(self, handle: int) -> SimpleNamespace:
        self.looks += 1
        return SimpleNamespace(used=self.used + self.extra.get(handle, 0))

    def answers(self) -> dict[str, Callable[..., Any]]:
        return {
            "nvmlInit": lambda: None,
            "nvmlShutdown": lambda: None,
            "nvmlDeviceGetCount": lambda: self.count,
            "nvmlDeviceGetHandleByIndex": lambda index: index,
            "nvmlDeviceGetUUID": lambda handle: CARD if handle == 0 else f"{CARD}-{handle}",
            "nvmlDeviceGetName": lambda handle: "A card",
            "nvmlDeviceGetMemoryInfo": self.memory,
            "nvmlDeviceGetTotalEnergyConsumption": lambda handle: self.millijoules,
            "nvmlDeviceGetCurrentClocksThrottleReasons": lambda handle: self.bits,
            "nvmlDeviceGetClockInfo": lambda handle, kind: 1500,
            "nvmlDeviceGetPowerUsage": lambda handle: 70_000,
            "nvmlDeviceGetTemperature": lambda handle, kind: 60,
            "nvmlDeviceGetComputeRunningProcesses": lambda handle: self.processes,
        }


def installed(monkeypatch: pytest.MonkeyPatch) -> Card:
    """A card that NVML lists from now on."""
    made = Card()
    for name, answer in made.answers().items():

        def asked(*arguments: Any, name: str = name, answer: Callable[..., Any] = answer) -> Any:
            if name in made.mute:
                raise pynvml.NVMLError(pynvml.NVML_ERROR_NOT_SUPPORTED)
            return answer(*arguments)

        monkeypatch.setattr(pynvml, name, asked)
    return made
