"""Planted faults: stages that make a model slower, and those that do not."""

import numpy as np

from scripts.benchmarks.faults import Fault
from seatrial.optimize.artifact import Artifact, File, Provenance
from seatrial.optimize.building.gain import changes, dropped, judge, rule
from seatrial.optimize.timing.pace import paced

_MADE = Provenance(stage="quantize", parent=None, config={}, recipe="", samples=None, seed=0, environment={}, at="")


def _artifact(size: int) -> Artifact:
    file = File(path="model.onnx", digest="sha256:" + "0" * 64, size=size)
    return Artifact(name="m", format="onnx", files=(file,), inputs=(), outputs=(), requires={}, made_by=_MADE)


def _called_slower(random: np.random.Generator, ratio: float) -> bool:
    """Return True if a stage of that true latency ratio, of any size, is called slower and left out by ``drop``."""
    noise, drift = random.uniform(0.005, 0.05), random.normal(0, 0.1, 12)
    logs = random.normal(np.log(0.01) + drift[:, None], noise, (12, 2)) + np.array([0.0, np.log(ratio)])
    parent, child = _artifact(100_000), _artifact(int(random.uniform(0.2, 1.3) * 100_000))
    against = paced(np.exp(logs), 32)
    slower = judge(parent, child, against) == "slower"
    return slower and dropped(changes(parent, child, against), rule("drop"))


FAULTS = (
    Fault(
        name="slower-stage",
        claim="a stage 1.1 to 3 times as slow, whatever its size, is called slower and left out; one no slower is not",
        planted=lambda random: _called_slower(random, random.uniform(1.1, 3.0)),
        sound=lambda random: _called_slower(random, random.uniform(0.2, 1.0)),
    ),
)
