"""Timing of bound buffers on stand-ins: rotation beyond the cache, events beside wall time, transfers apart."""

import time
from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from seatrial.bench.measurement import NOTHING
from seatrial.bench.measuring import bound, in_process, measure, rotation
from seatrial.bench.measuring.bound import bound_times, settle
from seatrial.bench.measuring.device import EnergyMeter
from seatrial.bench.measuring.in_process import Plan
from seatrial.bench.measuring.usage import EnergyUse
from seatrial.optimize.artifact import Artifact
from seatrial.optimize.draft.finished import sealed
from seatrial.optimize.samples import Array
from seatrial.optimize.sessions.engine import Opened
from seatrial.optimize.store import Store
from tests.support.linear import linear
from tests.support.nvml_card import Card, installed
from tests.support.usage import on_gpu

pytestmark = pytest.mark.experimental("GPU")

X = np.arange(64, dtype=np.float32).reshape(8, 8)


class Buffers:
    """Buffers that note which inputs were run, in host memory."""

    def __init__(self, inputs: Mapping[str, Array], ran: list[int]) -> None:
        self.held, self.ran = dict(inputs), ran
        self.address = self.held["x"].ctypes.data

    def write(self, inputs: Mapping[str, Array]) -> None:
        self.held = {name: array.copy() for name, array in inputs.items()}

    def run(self) -> None:
        self.ran.append(self.address)
        time.sleep(0.0002)

    def read(self) -> dict[str, Array]:
        return {"y": self.held["x"] * 2}


class Clock:
    """Events that count each block as one millisecond."""

    def __init__(self) -> None:
        self.open = False

    def start(self) -> None:
        assert not self.open
        self.open = True

    def stop(self) -> float:
        assert self.open
        self.open = False
        return 0.001


@pytest.mark.parametrize(
    ("batch", "cache", "count"), [(100, 1000, 31), (1000, 1000, 4), (10**6, 1000, 2), (1, 10**9, 256), (0, 0, 2)]
)
def test_copies_exceed_three_caches_and_are_bounded(batch: int, cache: int, count: int) -> None:
    assert rotation.copies(batch, cache) == count
    if 2 < count < rotation.MOST_COPIES:
        assert count * batch > 3 * cache


def test_batches_are_separate_memory_and_follow_the_samples() -> None:
    made = list(rotation.batches({"x": X}, 3, 4))
    assert [list(each["x"][:, 0] // 8) for each in made] == [[0, 1, 2], [3, 4, 5], [6, 7, 0], [1, 2, 3]]
    assert not any(np.shares_memory(one["x"], X) for one in made)
    assert len({each["x"].ctypes.data for each in made}) == 4


def test_the_last_level_is_the_largest_cache(tmp_path: Path) -> None:
    for index, size in enumerate(("48K", "2048K", "260M")):
        folder = tmp_path / f"index{index}"
        folder.mkdir()
        (folder / "size").write_text(size + "\n")
    assert rotation.last_level_cache(tmp_path) == 260 << 20
    assert rotation.last_level_cache(tmp_path / "none") == 0
    assert rotation.last_level_cache() >= 0


def test_runs_rotate_and_events_stand_beside_wall_time_without_transfers() -> None:
    ran: list[int] = []
    cache = X[:2].nbytes
    found = bound_times(
        lambda inputs: Buffers(inputs, ran), {"x": X}, batch=2, seconds=0.05, cache=cache, events=Clock()
    )
    assert found.copies == 4
    assert found.rotated > 3 * cache == 3 * found.cache
    timed = ran[-len(found.wall) :]
    assert len(set(timed)) == 4
    assert timed[:4] == timed[4:8]
    assert found.device == (0.001,) * len(found.wall)
    assert min(found.wall) > 0.0001
    assert min(len(found.write), len(found.read)) >= bound.LEAST
    assert max(found.read) < 0.01
    assert found.steady is None


@pytest.mark.parametrize(
    ("clock", "steady"),
    [
        (lambda at: 1e9, True),
        (lambda at: None, None),
        (lambda at: 1e9 * (1 + at), False),
        (lambda at: 1e9 * min(1.0, 0.5 + at), True),
    ],
)
def test_the_first_figure_waits_for_a_steady_clock(clock: Any, steady: bool | None, monkeypatch: Any) -> None:
    now = [0.0]
    monkeypatch.setattr(time, "perf_counter", lambda: now[0])

    def run() -> None:
        now[0] += 0.01

    assert settle(run, lambda: clock(now[0])) is steady
    assert now[0] >= bound.WINDOW
    if steady is False:
        assert now[0] >= bound.LONGEST
    if clock(0.0) != clock(0.1):
        assert now[0] >= 1.0 - 0.02  # it had to stand still for a window first


@pytest.fixture
def kept(tmp_path: Path) -> tuple[Artifact, Store]:
    store = Store(tmp_path / "home" / "store")
    return sealed(linear(tmp_path / "linear.onnx"), store), store


@pytest.mark.slow
def test_a_run_on_a_gpu_has_bound_times_energy_and_device_memory(
    kept: tuple[Artifact, Store], monkeypatch: pytest.MonkeyPatch
) -> None:
    card: Card = installed(monkeypatch)
    monkeypatch.setattr(bound, "LONGEST", 0.05)

    class Session:
        def run(self, inputs: Mapping[str, Array]) -> dict[str, Array]:
            card.millijoules += 2_000
            return {"y": inputs["x"]}

        def bind(self, inputs: Mapping[str, Array]) -> Buffers:
            return Buffers(inputs, [])

    opened = Opened(session=Session(), provider="CUDAExecutionProvider", device="cuda")
    monkeypatch.setattr(in_process, "open_artifact", lambda *given, **options: opened)
    monkeypatch.setattr(in_process, "EnergyMeter", partial(EnergyMeter, idle_seconds=0.0))
    artifact, store = kept
    told = in_process.measure(artifact, store, {"x": X}, Plan(seconds=0.05, batch=4))
    assert isinstance(told.energy, EnergyUse)
    assert told.energy.joules == pytest.approx(2.0 * len(told.offline))
    assert told.energy.per_inference <= 0.5
    assert told.bound is not None
    assert told.bound.batch == 4
    taken = {(metric.name, scenario) for metric, scenario, _ in measure._on_gpu(told, on_gpu(3))}
    names = {name for name, _ in taken}
    assert names == {"latency", "transfer", "device_memory", "energy"}  # no events without CUDA


@pytest.mark.slow
def test_on_the_processor_nothing_is_added(kept: tuple[Artifact, Store]) -> None:
    artifact, store = kept
    told = in_process.measure(artifact, store, {"x": X}, Plan(seconds=0.02, batch=4))
    assert (told.energy, told.bound) == (NOTHING, None)
    assert measure._on_gpu(told, on_gpu(3)) == []
