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


def test_every_gpu_tells_its_memory_and_what_it_does_not_tell_is_none() -> None:
    with opened() as nvml:
        gpus = nvml.gpus()
    assert gpus
    for gpu in gpus:
        assert any(gpu.uuid in line for line in environment().gpus)
        assert gpu.used > 0
        assert gpu.sm_clock is None or gpu.sm_clock > 1e8


def test_what_torch_allocates_shows_above_the_baseline() -> None:
    import torch

    before = device.baseline()
    with device.DeviceProbe(before=before) as probe:
        block = torch.empty(256 << 20, dtype=torch.uint8, device="cuda")
        time.sleep(0.1)
        del block
    assert probe.to_json()["peak"] >= 256 << 20


def test_work_takes_more_energy_than_idling_or_the_counter_says_that_it_is_missing() -> None:
    import torch

    with device.EnergyMeter() as meter:
        matrix = torch.randn(4096, 4096, device="cuda")
        until = time.monotonic() + 3
        while time.monotonic() < until:
            matrix = torch.nn.functional.normalize(matrix @ matrix)
        torch.cuda.synchronize()
    told = meter.to_json(1)
    assert "unavailable" in told or told["per_inference"] > 0
