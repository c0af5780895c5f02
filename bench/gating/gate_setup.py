"""Arguments of a gate besides its arms and its budget; every gate of a trial takes the same. Values only."""

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

from seatrial.optimize.samples import Samples

from ..load.on_locust import load, saturate
from ..load.run import LoadRun, Saturation
from ..quality.served import Metric
from ..targets import Host

Progress = Callable[[str, float], None]
"""Called with the current activity and the completed fraction of the run (0 to 1)."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Generator:
    """Generator of the load; the default starts Locust."""

    load: Callable[..., LoadRun] = load
    saturate: Callable[..., Saturation] = saturate


@dataclass(frozen=True, slots=True, kw_only=True)
class GateSetup:
    """Arguments of every gate besides its arms, as `bench.gating.gate.gate` takes them.

    Every slot gets a fresh server from `host`, which takes batches up to `max_batch` where that is known. The base
    has its own from `base_host`, where that is given: another engine may serve it. `samples` is the evaluation set with
    labels, `metric` scores answers sample by sample. Raw results go into `folder` as they come.
    """

    host: Host
    samples: Samples
    metric: Metric
    folder: Path
    max_batch: int | None = None
    progress: Progress | None = None
    generator: Generator = field(default_factory=Generator)
    base_host: Host | None = None
