"""Memory: blocks of 64 MiB to 8 GiB in a warm context, as the driver sees them and as the allocator reports them."""

import time
from typing import Any

from scripts.gpu_sections.place import MissingPartError, Place, torch_here
from scripts.gpu_sections.record import Claim, Found

MIB = 1 << 20
SIZES = (64, 256, 1024, 4096, 8192)  # MiB
LIMIT = 0.02


def run(place: Place) -> Found:
    """Allocate, look, free; the context is there before the first look."""
    torch = torch_here()
    look = _resident if place.small else _driver()
    torch.zeros(1, device=place.device)
    rows: list[dict[str, Any]] = []
    for size in SIZES if not place.small else (16, 64):
        rows.append(_block(torch, place, size * MIB, look))
    return Found(rows=tuple(rows), claims=(judged(rows),))


def _block(torch: Any, place: Place, size: int, look: Any) -> dict[str, Any]:
    _emptied(torch, place)
    before, held = look(), _held(torch, place)
    block = torch.ones(size, dtype=torch.uint8, device=place.device)
    if not place.small:
        torch.cuda.synchronize()
    time.sleep(0.2)
    reserved = size if place.small else _held(torch, place) - held
    seen = look() - before
    del block
    _emptied(torch, place)
    return {"bytes": size, "allocator": reserved, "seen": seen, "apart": abs(seen - reserved) / reserved}


def judged(rows: list[dict[str, Any]]) -> Claim:
    """The claim over all blocks."""
    worst = max(row["apart"] for row in rows)
    return Claim(
        claim="the driver's bytes of a block against the allocator's, worst of all sizes",
        bar=f"<= {LIMIT:.0%}",
        value=f"{worst:.2%}",
        met=worst <= LIMIT,
    )


def _emptied(torch: Any, place: Place) -> None:
    if not place.small:
        torch.cuda.empty_cache()
        torch.cuda.synchronize()


def _held(torch: Any, place: Place) -> int:
    return 0 if place.small else int(torch.cuda.memory_reserved())


def _driver() -> Any:
    """Bytes in use on the first device by NVML."""
    try:
        import pynvml
    except ImportError as error:
        raise MissingPartError(f"nvidia-ml-py: {error}") from error
    import torch

    pynvml.nvmlInit()
    uuid = f"GPU-{torch.cuda.get_device_properties(0).uuid}"
    handle = pynvml.nvmlDeviceGetHandleByUUID(uuid)
    return lambda: int(pynvml.nvmlDeviceGetMemoryInfo(handle).used)


def _resident() -> int:
    """Resident bytes of this process: what stands for the device's on the CPU."""
    with open("/proc/self/statm") as file:
        return int(file.read().split()[1]) * 4096
