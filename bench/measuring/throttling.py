"""Throttling of GPUs while a subject was measured, as broken rules of the run. Reads recorded states; asks no driver.

A card that was slowed by heat, by its board or by a power brake ran at a speed that neither arm decides. Its power cap
is not among these: under load many cards stay at it, and how often a model reaches it is a property of the model.
"""

from collections.abc import Sequence

from ..measurement import Unavailable
from .usage import DeviceUse, State

SLOWING = (
    "hardware slowdown",
    "thermal (software)",
    "thermal (hardware)",
    "power brake",
    "board limit",
    "reliability",
)
MOST = 0.01  # of all looks


def breaches(device: DeviceUse | Unavailable) -> tuple[str, ...]:
    """Return one sentence for each GPU in use that was slowed; `device` is what a `DeviceProbe` recorded."""
    gpus = {} if isinstance(device, Unavailable) else device.gpus
    used = [(uuid, gpu) for uuid, gpu in sorted(gpus.items()) if gpu.peak > 0]
    return tuple(said for uuid, gpu in used if (said := slowed(f"{gpu.name} ({uuid})", gpu.states)))


def slowed(name: str, states: Sequence[State]) -> str:
    """Return the broken rule of one GPU, or an empty string; the last value of each state are its reasons, or None."""
    known = [state[-1] for state in states if state[-1] is not None]
    looks = sum(any(reason in SLOWING for reason in reasons) for reasons in known)
    if not known or looks <= MOST * len(known):
        return ""
    reasons = [reason for reason in SLOWING if any(reason in each for each in known)]
    return f"throttling: {name} was slowed by {', '.join(reasons)} in {looks} of {len(known)} looks (limit {MOST:.0%})"
