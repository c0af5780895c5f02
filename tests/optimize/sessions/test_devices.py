"""Devices by name, and what an engine lacks to run on one: libraries, driver, GPU; read from files and the loader."""

import ctypes
import struct
from pathlib import Path
from typing import Any

import pytest

from seatrial.optimize.errors import ConfigError
from seatrial.optimize.sessions.cuda import DRIVER, driver_missing, needed, unloadable
from seatrial.optimize.sessions.device import Device, device_of


@pytest.mark.parametrize(
    ("text", "kind", "index", "shown"),
    [("cpu", "cpu", 0, "cpu"), ("cuda", "cuda", 0, "cuda:0"), ("cuda:2", "cuda", 2, "cuda:2")],
)
def test_a_device_has_a_kind_and_a_number(text: str, kind: str, index: int, shown: str) -> None:
    found = device_of(text)
    assert (found.kind, found.index, str(found)) == (kind, index, shown)


@pytest.mark.parametrize("text", ["gpu", "cuda:", "cuda:-1", "cpu:1", "CUDA", "", "cuda:1 "])
def test_other_names_are_refused(text: str) -> None:
    with pytest.raises(ConfigError, match="unknown device"):
        device_of(text)


class Driver:
    """A driver's library with so many GPUs, or one that fails to start."""

    def __init__(self, gpus: int, code: int = 0) -> None:
        self.gpus, self.code = gpus, code

    def __call__(self, name: str) -> "Driver":
        assert name == DRIVER
        return self

    def cuInit(self, flags: int) -> int:
        return self.code

    def cuDeviceGetCount(self, count: Any) -> int:
        count._obj.value = self.gpus
        return 0


def without(name: str) -> Any:
    raise OSError(f"{name}: cannot open shared object file")


@pytest.mark.parametrize(
    ("load", "index", "said"),
    [
        (without, 0, "there is no NVIDIA driver on this machine (libcuda.so.1 cannot be loaded)"),
        (Driver(0), 0, "no usable NVIDIA GPU on this machine (the driver lists none)"),
        (Driver(1, 100), 0, "no usable NVIDIA GPU on this machine (the driver reports error 100)"),
        (Driver(1), 1, "there is no device cuda:1: this machine has 1 GPU"),
        (Driver(2), 3, "there is no device cuda:3: this machine has 2 GPUs"),
    ],
)
def test_what_a_machine_lacks_is_named(load: Any, index: int, said: str) -> None:
    found = driver_missing(Device(kind="cuda", index=index), load=load)
    assert found is not None
    assert said in found.what
    assert found.next_step


def test_a_machine_with_the_gpu_lacks_nothing() -> None:
    assert driver_missing(Device(kind="cuda", index=1), load=Driver(2)) is None


def test_the_needed_libraries_are_read_from_the_file_itself() -> None:
    import _ctypes

    assert any(name.startswith("libc.so") for name in needed(Path(_ctypes.__file__)))
    assert unloadable(needed(Path(_ctypes.__file__))) == ()
    assert unloadable(("libc.so.6", "libabsent.so.9")) == ("libabsent.so.9",)


@pytest.mark.parametrize("data", [b"", b"text", b"\x7fELF\x01\x01" + bytes(58), b"\x7fELF\x02\x01" + bytes(58)])
def test_other_files_need_nothing(tmp_path: Path, data: bytes) -> None:
    path = tmp_path / "file"
    path.write_bytes(data)
    assert needed(path) == ()


def test_the_order_of_needed_libraries_is_kept(tmp_path: Path) -> None:
    strings, path = b"\0libone.so.1\0libtwo.so.2\0", tmp_path / "made.so"
    dynamic = struct.pack("<qQqQqQqQ", 1, 13, 1, 1, 14, 0, 0, 0)
    base = 64 + len(strings) + len(dynamic)
    head = b"\x7fELF\x02\x01" + bytes(34) + struct.pack("<Q", base) + bytes(10) + struct.pack("<HHH", 64, 3, 0)
    rows = [
        (0, 0, 0, 0, 0, 0, 0, 0, 0, 0),
        (0, 3, 0, 0, 64, len(strings), 0, 0, 0, 0),
        (0, 6, 0, 0, 64 + len(strings), len(dynamic), 1, 0, 0, 16),
    ]
    path.write_bytes(head + strings + dynamic + b"".join(struct.pack("<IIQQQQIIQQ", *row) for row in rows))
    assert needed(path) == ("libtwo.so.2", "libone.so.1")


def test_the_loader_is_the_systems_own() -> None:
    assert unloadable(["libc.so.6"], load=ctypes.CDLL) == ()
