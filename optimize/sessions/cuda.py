"""CUDA on this machine, asked through the loader and the driver alone: which library or device is missing, and why.

Libraries that load a provider fail with one line in a log and go on without it. What they need is read from the
provider's file (its DT_NEEDED entries) and tried here, so that an error can name it. Imports no library for GPUs.
"""

import ctypes
import struct
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

from .device import Device
from .engine import Missing

DRIVER = "libcuda.so.1"
EXTRA = "pip install 'seatrial[cuda]'"
Loader = Callable[[str], Any]
_DYNAMIC, _NEEDED = 6, 1  # SHT_DYNAMIC, DT_NEEDED (System V ABI)


def driver_missing(device: Device, *, load: Loader = ctypes.CDLL) -> Missing | None:
    """Return what is missing of driver and device, or None: no driver, no GPU, or fewer GPUs than the number names."""
    try:
        driver = load(DRIVER)
    except OSError:
        return Missing(
            what=f"there is no NVIDIA driver on this machine ({DRIVER} cannot be loaded)",
            next_step="use a machine with an NVIDIA GPU and its driver",
        )
    count = ctypes.c_int(0)
    code = driver.cuInit(0) or driver.cuDeviceGetCount(ctypes.byref(count))
    if code or count.value == 0:
        said = f"the driver reports error {code}" if code else "the driver lists none"
        return Missing(
            what=f"there is no usable NVIDIA GPU on this machine ({said})",
            next_step="check nvidia-smi",
        )
    if device.index >= count.value:
        return Missing(
            what=f"there is no device {device}: this machine has {count.value} GPU{'s' * (count.value > 1)}",
            next_step=f"use a number below {count.value}",
        )
    return None


def unloadable(names: Iterable[str], *, load: Loader = ctypes.CDLL) -> tuple[str, ...]:
    """Return those of the shared libraries that the loader does not find, in order."""
    lacking = []
    for name in names:
        try:
            load(name)
        except OSError:
            lacking.append(name)
    return tuple(lacking)


def needed(path: Path) -> tuple[str, ...]:
    """Return the shared libraries that an ELF file of 64 bits, little-endian, names as needed; empty for other files.

    Reads headers and two sections only, since a provider is hundreds of megabytes long.
    """
    with path.open("rb") as file:

        def read(offset: int, size: int) -> bytes:
            file.seek(offset)
            return file.read(size)

        head = read(0, 64)
        if head[:6] != b"\x7fELF\x02\x01":
            return ()
        (table,) = struct.unpack_from("<Q", head, 40)
        size, count = struct.unpack_from("<HH", head, 58)
        sections = [struct.unpack("<IIQQQQIIQQ", read(table + size * number, 64)) for number in range(count)]
        dynamic = next((section for section in sections if section[1] == _DYNAMIC), None)
        if dynamic is None:
            return ()
        strings = read(sections[dynamic[6]][4], sections[dynamic[6]][5])
        entries = struct.iter_unpack("<qQ", read(dynamic[4], dynamic[5]))
        return tuple(_text(strings, place) for tag, place in entries if tag == _NEEDED)


def _text(strings: bytes, place: int) -> str:
    return strings[place : strings.index(b"\0", place)].decode()
