"""The place that a section runs in: device, size, time. And timing there: events beside wall time."""

import time
from collections.abc import Callable
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Any


class MissingPartError(Exception):
    """Something that a section needs is not on this machine; the message names it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Place:
    """`device` is "cuda" or "cpu", where everything is small; `seconds` are left from `began` on."""

    device: str
    seconds: float
    began: float = field(default_factory=time.monotonic)

    @property
    def small(self) -> bool:
        """Return True on the processor, where sections only show that their code runs."""
        return self.device == "cpu"

    def size(self, large: int, small: int) -> int:
        """Return a size for this place."""
        return small if self.small else large

    def left(self) -> float:
        """Return the seconds that are left."""
        return self.seconds - (time.monotonic() - self.began)


@dataclass(frozen=True, slots=True, kw_only=True)
class Times:
    """Medians in seconds of one run: by the device's events with work queued ahead, and by wall time one by one."""

    device: float
    wall: float
    runs: int

    def row(self, **more: Any) -> dict[str, Any]:
        """The times as a row of a record."""
        return more | {"device_seconds": self.device, "wall_seconds": self.wall, "runs": self.runs}


def torch_here() -> Any:
    """Return torch.

    Raises:
        MissingPartError: it is not installed.
    """
    try:
        import torch
    except ImportError as error:
        raise MissingPartError(f"torch cannot be imported: {error}") from error
    return torch


def timed(act: Callable[[int], object], place: Place, *, seconds: float = 1.0, least: int = 5) -> Times:
    """Time ``act(turn)`` after a warm-up of a third of the time; turns count up, so that inputs can rotate."""
    torch = torch_here()
    seconds = min(seconds, 0.05) if place.small else seconds
    _loop(act, seconds / 3, 2, lambda: _wait(torch, place))
    wall: list[float] = []
    until = time.perf_counter() + seconds / 2
    while time.perf_counter() < until or len(wall) < least:
        began = time.perf_counter()
        act(len(wall))
        _wait(torch, place)
        wall.append(time.perf_counter() - began)
    device = _events(torch, act, len(wall)) if not place.small else wall
    return Times(device=median(device), wall=median(wall), runs=len(wall))


def _loop(act: Callable[[int], object], seconds: float, least: int, wait: Callable[[], None]) -> None:
    turn, until = 0, time.perf_counter() + seconds
    while time.perf_counter() < until or turn < least:
        act(turn)
        wait()
        turn += 1


def _events(torch: Any, act: Callable[[int], object], runs: int) -> list[float]:
    marks = [torch.cuda.Event(enable_timing=True) for _ in range(runs + 1)]
    marks[0].record()
    for turn in range(runs):
        act(turn)
        marks[turn + 1].record()
    torch.cuda.synchronize()
    return [first.elapsed_time(second) / 1e3 for first, second in pairwise(marks)]


def _wait(torch: Any, place: Place) -> None:
    if not place.small:
        torch.cuda.synchronize()


def median(values: list[float]) -> float:
    """The middle value; the higher one of two."""
    return sorted(values)[len(values) // 2]


def refused(act: Callable[[], Any]) -> tuple[Any, str]:
    """The result of a call and nothing, or None and why it was refused: libraries refuse in many types of error."""
    try:
        return act(), ""
    except Exception as error:  # noqa: BLE001 - the reason is the finding
        return None, f"{type(error).__name__}: {str(error).strip().splitlines()[0] if str(error).strip() else ''}"[:300]
