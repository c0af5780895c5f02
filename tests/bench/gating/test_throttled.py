"""A gate on a GPU that was slowed by something other than the models is invalid, and says so."""

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from seatrial.bench.budget import Budget, Design, Limit
from seatrial.bench.gating.gate import gate
from seatrial.bench.gating.gate_setup import GateSetup
from seatrial.bench.load_limits import LoadLimits
from seatrial.bench.measurement import Unavailable
from seatrial.bench.measuring.throttling import breaches, slowed
from seatrial.bench.measuring.usage import GpuMemory, State
from seatrial.bench.report.advice import next_steps
from seatrial.bench.targets import Endpoint
from seatrial.optimize.artifact import Artifact
from seatrial.optimize.recipe.metrics import accuracy
from seatrial.optimize.samples import Samples
from tests.support.gating import BASE, CANDIDATE, INPUTS, OUTPUTS, Clock, good
from tests.support.nvml_card import CARD, GIB, Card, installed
from tests.support.usage import on_gpu

pytestmark = pytest.mark.experimental("GPU")

Answer = Callable[[np.ndarray[Any, Any]], np.ndarray[Any, Any]]
Kserve = Callable[[Answer], AbstractContextManager[int]]


def seen(*reasons: tuple[str, ...] | None) -> tuple[State, ...]:
    return tuple((0.1 * at, 1e9, 1e9, 60, 70.0, each) for at, each in enumerate(reasons))


@pytest.mark.parametrize("reason", ["thermal (hardware)", "power brake", "board limit", "reliability"])
def test_a_card_that_was_slowed_is_named_with_the_reason(reason: str) -> None:
    said = slowed("L4", seen(("idle",), (reason, "power cap"), ()))
    assert said == f"throttling: L4 was slowed by {reason} in 1 of 3 looks (limit 1%)"


@pytest.mark.parametrize("reasons", [("idle",), ("power cap",), ("application clocks",), (), None])
def test_what_both_arms_share_or_the_model_causes_is_no_fault(reasons: tuple[str, ...] | None) -> None:
    assert slowed("L4", seen(reasons, reasons)) == ""


def test_one_look_of_many_is_not_enough_and_an_unused_card_does_not_count() -> None:
    rare = seen(("power brake",), *[()] * 199)
    assert slowed("L4", rare) == ""
    states = seen(("power brake",))
    hot = GpuMemory(name="L4", before=0, peak=5, last=5, by_process="unavailable", others=(), states=states)
    assert len(breaches(replace(on_gpu(5), gpus={"GPU-1": hot}))) == 1
    assert breaches(replace(on_gpu(5), gpus={"GPU-1": replace(hot, peak=0)})) == ()
    assert breaches(Unavailable(unavailable="no GPU")) == ()


@pytest.mark.usefixtures("steady_machine")
@pytest.mark.parametrize(
    ("bits", "outcome"), [(0x40, "INVALID"), (0x200, "INVALID"), (0x400, "INVALID"), (0x4, "PASS")]
)
def test_a_throttled_gpu_makes_the_gate_invalid(
    bits: int, outcome: str, kserve: Kserve, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    card: Card = installed(monkeypatch)
    card.bits, card.mute = bits, {"nvmlDeviceGetTotalEnergyConsumption"}

    @contextmanager
    def host(artifact: Artifact) -> Iterator[Endpoint]:
        with kserve(good) as port:
            baseline = {CARD: card.used - GIB}
            yield Endpoint(
                url=f"127.0.0.1:{port}",
                model=artifact.name,
                version="1",
                inputs=INPUTS,
                outputs=OUTPUTS,
                device_baseline=baseline,
            )

    inputs = np.random.default_rng(0).random((40, 4), dtype=np.float32)
    design = Design(pairs=4, rate=400.0, seconds=1.0, saturation_seconds=0.5, reruns=0)
    budget = Budget(
        design=design, limits=(Limit(metric="p50", max_regression=5.0),), load=LoadLimits(lag=1.0, arrival_p=0.0)
    )
    means = GateSetup(
        host=host,
        samples=Samples(split="evaluation", inputs={"x": inputs}, labels=inputs[:, :3].argmax(1)),
        metric=lambda outputs, labels: accuracy(outputs["scores"], labels),
        folder=tmp_path,
        generator=Clock().generator,
    )
    verdict = gate(BASE, CANDIDATE, budget, means)
    assert verdict.outcome == outcome, verdict.summary
    if outcome == "INVALID":
        assert any("throttling: A card (GPU-1) was slowed by" in reason for reason in verdict.reasons)
        assert any("let the GPU cool" in step for step in next_steps(verdict))
