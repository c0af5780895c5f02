"""Devices by name: ``cpu``, ``cuda`` (the first GPU) and ``cuda:1``. Asks no machine whether it has one."""

import re
from dataclasses import dataclass
from typing import Literal

from ..errors import ConfigError

Kind = Literal["cpu", "cuda"]
_NAME = re.compile(r"(cpu|cuda)(?::(\d{1,3}))?")


@dataclass(frozen=True, slots=True, kw_only=True)
class Device:
    """One device: its kind, and its number among those of the kind."""

    kind: Kind
    index: int = 0

    def __str__(self) -> str:
        return self.kind if self.kind == "cpu" else f"{self.kind}:{self.index}"


HOST = Device(kind="cpu")


def device_of(text: str) -> Device:
    """Return the device of that name.

    Raises:
        ConfigError: no such name.
    """
    found = _NAME.fullmatch(text)
    if found is None or (found[1] == "cpu" and int(found[2] or 0)):
        raise ConfigError(f"unknown device {text!r}", where="device", next_step='use "cpu", "cuda" or "cuda:1"')
    return Device(kind="cuda" if found[1] == "cuda" else "cpu", index=int(found[2] or 0))
