"""NVML on a real GPU; skipped, with the reason, where there is none."""

import time

import pytest

from seatrial.bench.measuring import device
from seatrial.bench.measuring.on_nvml import opened
from seatrial.optimize.environment import environment

pytestmark = [
    pytest.mark.experimental("GPU"),
    pytest.mark.gpu,
    pytest.mark.skipif(not environment().gpus, reason="no NVIDIA GPU on this machine (nvidia-smi lists none)"),
]
MIB = 1 << 20
SIZES = [64 * MIB, 256 * MIB, 1024 * MIB, 4096 * MIB, 8192 * MIB]


def test_every_gpu_tells_its_memory_and_what_it_does_not_tell_is_none() -> None:
    with opened() as nvml:
        gpus = nvml.gpus()
    assert gpus
    for gpu in gpus:
        assert any(gpu.uuid in line for line in environment().gpus)
        assert gpu.used > 0
        assert gpu.sm_clock is None or gpu.sm_clock > 1e8


@pytest.mark.parametrize("size", SIZES, ids=lambda size: f"{size // MIB} MiB")
def test_a_block_of_memory_shows_as_large_as_the_allocator_says(size: int) -> None:
    """The context is there before: it takes more than a small block, and would hide that one is not seen."""
    import torch

    assert torch.cuda.is_available(), "torch finds no CUDA device although nvidia-smi lists one"
    torch.zeros(1, device="cuda")
    torch.cuda.synchronize()
    torch.cuda.empty_cache()
    if torch.cuda.mem_get_info()[0] < 1.2 * size:
        pytest.skip(f"less than {size // MIB} MiB of GPU memory is free")
    held = torch.cuda.memory_reserved()
    with device.DeviceProbe() as probe:  # its baseline is the warm context
        block = torch.empty(size, dtype=torch.uint8, device="cuda")
        torch.cuda.synchronize()
        reserved = torch.cuda.memory_reserved() - held
        time.sleep(0.3)
    seen = probe.result.to_json()
    del block
    torch.cuda.empty_cache()
    assert reserved >= size
    assert seen["last"] == pytest.approx(reserved, rel=0.02)
    assert seen["peak"] == pytest.approx(reserved, rel=0.02)


def test_work_takes_more_energy_than_idling_or_the_counter_says_that_it_is_missing() -> None:
    import torch

    assert torch.cuda.is_available(), "torch finds no CUDA device although nvidia-smi lists one"
    with device.EnergyMeter() as meter:
        matrix = torch.randn(4096, 4096, device="cuda")
        until = time.monotonic() + 3
        while time.monotonic() < until:
            matrix = torch.nn.functional.normalize(matrix @ matrix)
        torch.cuda.synchronize()
    told = meter.result(1).to_json()
    assert "unavailable" in told or told["per_inference"] > 0
