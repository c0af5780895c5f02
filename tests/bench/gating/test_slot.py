"""What a gate's slot records beside latencies: phases and series of memory, first inference, and reasons for gaps."""

import os
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from seatrial.bench.budget import Budget, Design, Limit
from seatrial.bench.gating.gate import gate, read_gate
from seatrial.bench.gating.gate_setup import GateSetup
from seatrial.bench.load_limits import LoadLimits
from seatrial.bench.measurement import Unavailable
from seatrial.bench.measuring.usage import Memory
from seatrial.bench.targets import Endpoint
from seatrial.optimize.artifact import Artifact
from seatrial.optimize.environment import environment
from seatrial.optimize.recipe.metrics import accuracy
from seatrial.optimize.samples import Samples
from tests.support.gating import BASE, CANDIDATE, INPUTS, OUTPUTS, Clock, good

Answer = Callable[[np.ndarray[Any, Any]], np.ndarray[Any, Any]]


@pytest.fixture
def host(kserve: Callable[[Answer], AbstractContextManager[int]]) -> Callable[[Artifact], Any]:
    """A server in this process, which says how long loading took."""

    @contextmanager
    def hosted(artifact: Artifact) -> Iterator[Endpoint]:
        with kserve(good) as port:
            yield Endpoint(
                url=f"127.0.0.1:{port}",
                model=artifact.name,
                version="1",
                inputs=INPUTS,
                outputs=OUTPUTS,
                pids=(os.getpid(),),
                load_seconds=1.5,
            )

    return hosted


@pytest.mark.usefixtures("steady_machine")
@pytest.mark.slow
def test_a_slot_keeps_phases_series_and_reasons(host: Callable[[Artifact], Any], tmp_path: Path) -> None:
    random = np.random.default_rng(0)
    inputs = random.random((40, 4), dtype=np.float32)
    samples = Samples(split="evaluation", inputs={"x": inputs}, labels=inputs[:, :3].argmax(1))
    budget = Budget(
        design=Design(pairs=4, rate=400.0, seconds=1.0, saturation_seconds=0.5),
        limits=(Limit(metric="load_time", max_regression=0.1), Limit(metric="steady_memory", max_regression=0.5)),
        load=LoadLimits(lag=1.0, arrival_p=0.0),
    )
    verdict = gate(
        BASE,
        CANDIDATE,
        budget,
        GateSetup(
            host=host,
            samples=samples,
            metric=lambda outputs, labels: accuracy(outputs["scores"], labels),
            folder=tmp_path,
            generator=Clock().generator,
        ),
    )
    assert verdict.outcome == "PASS", verdict.summary
    run, _ = read_gate(tmp_path)
    for record in run.records:
        memory = record.memory
        assert isinstance(memory, Memory)
        assert set(memory.phases) == {"loaded", "largest_first", "largest_last"}
        assert memory.peak >= memory.last > 0
        series = memory.series
        assert series is not None
        assert len(series.at) == len(series.resident) == len(series.pss)
        assert list(series.at) == sorted(series.at)
        assert record.load_seconds == 1.5
        assert record.startup is not None
        assert record.first_inference is not None
        assert 0 < record.first_inference < record.startup
        assert isinstance(record.server, Unavailable)
        assert "no statistics extension (HTTP 501)" in record.server.unavailable
        if not environment().gpus:
            assert isinstance(record.device, Unavailable)
            assert isinstance(record.energy, Unavailable)
            assert "NVML" in record.device.unavailable
            assert "NVML" in record.energy.unavailable
