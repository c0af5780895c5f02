"""The accelerator's counters, with NVML's functions replaced: there is no other way to have a GPU that spikes on cue.

What a real driver answers is asked in tests/gpu/test_nvml.py.
"""

import time
from types import SimpleNamespace
from typing import Any

import pynvml
import pytest

from seatrial.bench.measuring import device
from seatrial.bench.measuring.on_nvml import THROTTLES
from seatrial.optimize import experimental
from seatrial.optimize.environment import environment
from tests.support.nvml_card import CARD, GIB, Card, installed

pytestmark = pytest.mark.experimental("GPU")


@pytest.fixture
def card(monkeypatch: pytest.MonkeyPatch) -> Card:
    return installed(monkeypatch)


@pytest.mark.skipif(bool(environment().gpus), reason="this machine has a GPU")
def test_without_a_gpu_everything_is_unavailable_with_the_reason_and_takes_no_time() -> None:
    began = time.monotonic()
    with device.DeviceProbe() as probe, device.EnergyMeter(idle_seconds=60.0) as energy:
        pass
    for told in (probe.result.to_json(), energy.result(100).to_json()):
        assert list(told) == ["unavailable"]
        assert "NVML" in told["unavailable"]
    seen: list[experimental.Experimental] = []
    with experimental.reported(seen.append):
        assert device.baseline() == {}
    assert seen == []
    assert time.monotonic() - began < 30.0, "nobody waited for the idle power of no card"


def looked(card: Card) -> None:
    """Wait until the probe has looked at the memory twice: the second look began after this call."""
    looks, until = card.looks, time.monotonic() + 30.0
    while card.looks < looks + 2:
        assert time.monotonic() < until, "the probe does not look"
        time.sleep(0.002)


def test_a_peak_between_two_slow_looks_is_seen_and_is_above_the_empty_server(card: Card) -> None:
    before = device.baseline()
    card.used = 2 * GIB
    with device.DeviceProbe(before=before) as probe:
        card.used = 5 * GIB
        looked(card)
        card.used = 3 * GIB
    told = probe.result.to_json()
    assert told["peak"] == 4 * GIB
    assert told["last"] == 2 * GIB
    assert told["baseline"] == "empty server"
    state = told["gpus"][CARD]["states"][0]
    assert state[1:5] == [1.5e9, 1.5e9, 60, 70.0]
    assert state[5] == ["idle", "power cap"]
    assert told["gpus"][CARD]["by_process"] == "unavailable"


def test_own_and_foreign_processes_on_the_device_are_told_apart(card: Card) -> None:
    import os

    card.processes = [SimpleNamespace(pid=os.getpid(), usedGpuMemory=GIB), SimpleNamespace(pid=1, usedGpuMemory=7)]
    with device.DeviceProbe(pids=(os.getpid(),)) as probe:
        pass
    told = probe.result.to_json()["gpus"][CARD]
    assert told["by_process"] == {str(os.getpid()): GIB}
    assert told["others"] == [1]
    card.processes[1].usedGpuMemory = None
    with device.DeviceProbe(pids=(os.getpid(),)) as probe:
        pass
    assert probe.result.to_json()["gpus"][CARD]["by_process"] == "unavailable"


def test_bytes_of_a_process_that_has_ended_are_known(card: Card) -> None:
    import subprocess

    child = subprocess.Popen(["sleep", "60"])
    try:
        card.processes = [SimpleNamespace(pid=child.pid, usedGpuMemory=3 * GIB)]
        with device.DeviceProbe(pids=(child.pid,)) as probe:
            card.processes = []
            child.kill()
            child.wait()
    finally:
        child.kill()
    assert probe.result.to_json()["gpus"][CARD]["by_process"] == {str(child.pid): 3 * GIB}


def test_the_peak_of_two_gpus_is_the_highest_sum_of_one_moment(card: Card) -> None:
    card.count = 2
    with device.DeviceProbe() as probe:
        for filled in (0, 1):
            card.extra = {filled: 4 * GIB}
            looked(card)
        card.extra = {}
    told = probe.result.to_json()
    assert [each["peak"] for each in told["gpus"].values()] == [4 * GIB, 4 * GIB]
    assert told["peak"] == 4 * GIB


@pytest.mark.parametrize(("bits", "reasons"), [(0x200, ("board limit",)), (0x400 | 0x1, ("idle", "reliability"))])
def test_every_bit_of_the_driver_has_a_name(card: Card, bits: int, reasons: tuple[str, ...]) -> None:
    card.bits = bits
    with device.DeviceProbe() as probe:
        pass
    assert probe.result.to_json()["gpus"][CARD]["states"][0][5] == list(reasons)
    every = sum(getattr(pynvml, name) for name in BITS)
    assert every == pynvml.nvmlClocksThrottleReasonAll == sum(THROTTLES.values())


BITS = sorted(
    name for name in dir(pynvml) if name.startswith("nvmlClocksThrottleReason") and name[24:] not in ("All", "None")
)
BITS.remove("nvmlClocksThrottleReasonUserDefinedClocks")  # another name of one bit


def test_what_a_card_does_not_tell_is_none_and_not_zero(card: Card) -> None:
    card.mute = {"nvmlDeviceGetClockInfo", "nvmlDeviceGetPowerUsage", "nvmlDeviceGetCurrentClocksThrottleReasons"}
    with device.DeviceProbe() as probe:
        pass
    assert probe.result.to_json()["gpus"][CARD]["states"][0][1:] == [None, None, 60, None, None]


def test_a_driver_that_fails_meanwhile_leaves_no_half_of_a_record(card: Card) -> None:
    with device.DeviceProbe() as probe:
        card.mute = {"nvmlDeviceGetMemoryInfo"}
    assert list(probe.result.to_json()) == ["unavailable"]


def test_energy_is_net_of_idling_and_per_inference(card: Card, monkeypatch: pytest.MonkeyPatch) -> None:
    clock = iter([0.0, 2.0, 12.0])
    joules = iter([0, 100_000, 1_100_000])  # 50 W idle, then 100 W

    def read(handle: Any) -> int:
        return next(joules)

    monkeypatch.setattr(pynvml, "nvmlDeviceGetTotalEnergyConsumption", read)
    monkeypatch.setattr(time, "sleep", lambda seconds: None)
    monkeypatch.setattr(time, "monotonic", lambda: next(clock))
    with device.EnergyMeter() as meter:
        pass
    told = meter.result(1000).to_json()
    assert told["idle_watts"] == pytest.approx(50)
    assert told["joules"] == pytest.approx(1000)
    assert told["per_inference"] == pytest.approx((1000 - 50 * 10) / 1000)
    assert "granularity" in told["note"]


def test_a_window_can_begin_after_a_warm_up(card: Card, monkeypatch: pytest.MonkeyPatch) -> None:
    clock, joules = iter([0.0, 2.0, 5.0, 15.0]), iter([0, 100_000, 900_000, 1_900_000])
    monkeypatch.setattr(pynvml, "nvmlDeviceGetTotalEnergyConsumption", lambda handle: next(joules))
    monkeypatch.setattr(time, "sleep", lambda seconds: None)
    monkeypatch.setattr(time, "monotonic", lambda: next(clock))
    with device.EnergyMeter() as meter:
        meter.begin()
    told = meter.result(1000).to_json()
    assert (told["joules"], told["seconds"], told["idle_watts"]) == (1000.0, 10.0, 50.0)


def test_a_missing_or_dead_counter_is_unavailable(card: Card) -> None:
    with device.EnergyMeter(idle_seconds=0.0) as meter:
        pass
    assert "did not advance" in meter.result(10).to_json()["unavailable"]
    card.mute = {"nvmlDeviceGetTotalEnergyConsumption"}
    with device.EnergyMeter() as meter:
        pass
    assert "no cumulative energy counter" in meter.result(10).to_json()["unavailable"]


def test_readings_of_a_card_are_reported_as_experimental(card: Card) -> None:
    seen: list[experimental.Experimental] = []
    with experimental.reported(seen.append), device.DeviceProbe():
        device.baseline()
    assert seen == [experimental.GPU]
