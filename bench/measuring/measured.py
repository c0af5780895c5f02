"""A measured run: its folder of raw values, and every figure that people read, recomputed from them each time.

Reads and writes the folder (`measure.json`, `measurements.json`); measures nothing and starts nothing. `summary.json`
beside them is a copy for other tools and is never read back.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import numpy.typing as npt
from rich.table import Table

from seatrial.optimize import tables
from seatrial.optimize.errors import ConfigError, IntegrityError, MissingError
from seatrial.optimize.reading import damage
from seatrial.optimize.record import Record
from seatrial.optimize.units import format_range, format_value

from .. import server_statistics
from ..load.run import LoadRun
from ..load.validity import breaches
from ..measurement import Measurement, Metric, Unavailable
from ..server_statistics import Counted, ServerCounts
from .growth import Growth
from .order_statistics import quantiles
from .usage import DeviceUse, EnergyUse, Memory

KIND = "measure"
HEADER, VALUES, SUMMARY, LOAD = "measure.json", "measurements.json", "summary.json", "load"
STREAMS = ("latency", "service", "device_time", "transfer")  # metrics of which one run holds a stream of times
_BLOCKS = 20
_AGAIN = "restore the folder from a copy, or measure again"

LATENCY = Metric(name="latency", unit="s", direction="lower", summary="seconds of each request or inference")
SERVICE = Metric(name="service", unit="s", direction="lower", summary="seconds from the actual send to the reply")
DEVICE_TIME = Metric(
    name="device_time", unit="s", direction="lower", summary="seconds of each run between two events of the device"
)
TRANSFER = Metric(name="transfer", unit="s", direction="lower", summary="seconds of each copy to or from the device")
MODEL_MEMORY = Metric(
    name="model_memory",
    unit="B",
    direction="lower",
    summary="high-water mark above the process with its engine and no model",
)
ACHIEVED = Metric(name="achieved", unit="1/s", direction="higher", summary="answered inferences per second offered")


@dataclass(frozen=True, slots=True, kw_only=True)
class Figure:
    """One metric under one scenario: `value` with a 95 % interval, of latencies also the tail.

    `value` is the median of latencies, the harmonic mean of the batches' rates (samples over time), the share of failed
    requests, or the one value that was taken; `p99_upper` and `n_effective` are as in `order_statistics`.
    """

    metric: str
    unit: str
    scenario: str
    n: int
    value: float
    interval: tuple[float, float] | None = None
    p99: float | None = None
    p99_upper: float | None = None
    n_effective: int | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class ArtifactSubject:
    """An artifact of the store that was measured."""

    name: str
    digest: str
    format: str


@dataclass(frozen=True, slots=True, kw_only=True)
class EndpointSubject:
    """A served model that was measured."""

    name: str
    model: str
    version: str


@dataclass(frozen=True, slots=True, kw_only=True)
class EngineUsed(Record, sparse=("on_cpu",)):
    """The engine that ran an artifact, with the provider and the device that it really used.

    `on_cpu` lists the nodes of a model on another device that the engine left to the CPU.
    """

    name: str
    provider: str
    device: str
    on_cpu: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class MeasuredHeader(
    Record,
    schema=1,
    what="the header of a measured run",
    next_step=_AGAIN,
    computed=("kind",),
    sparse=("engine", "threads", "cores", "server", "energy"),
):
    """Facts of a measured run beside its values: the subject, how it ran, what it used, where and when.

    `engine`, `threads` and `cores` belong to an artifact's run, `server` and `energy` to an endpoint's.
    """

    kind: ClassVar[str] = KIND

    subject: ArtifactSubject | EndpointSubject
    engine: EngineUsed | None = None
    threads: int | None = None
    cores: tuple[int, ...] | None = None
    memory: Memory | Unavailable
    server: Counted | None = None
    device: DeviceUse | Unavailable
    energy: EnergyUse | Unavailable | None = None
    environment: Mapping[str, Any]
    at: str

    @property
    def short(self) -> "MeasuredHeader":
        """Return the header without the series of memory."""
        told = self.memory if isinstance(self.memory, Unavailable) else replace(self.memory, series=None)
        return replace(self, memory=told)


@dataclass(frozen=True, slots=True, kw_only=True)
class Values(Record, schema=1, what="the values of a measured run", next_step=_AGAIN):
    """Raw values of a measured run."""

    measurements: tuple[Measurement, ...]

    def check(self) -> None:
        """Check each."""
        for each in self.measurements:
            each.check()


@dataclass(frozen=True, slots=True, kw_only=True)
class Summary(Record, schema=1):
    """Summary of a measured run. `breaches` make it invalid; `notes` weaken a value; `about` is the run's header
    without the series of memory."""

    about: MeasuredHeader
    figures: tuple[Figure, ...]
    breaches: tuple[str, ...]
    notes: tuple[str, ...]

    @property
    def exit_code(self) -> int:
        """0 where everything was answered and may be believed, 1 where requests failed, 4 where the run is invalid."""
        failed = any(figure.metric == "errors" and figure.value > 0 for figure in self.figures)
        return 4 if self.breaches else 1 if failed else 0

    def to_json(self) -> dict[str, Any]:
        """JSON values with a schema number, the header without its own."""
        about = {key: item for key, item in self.about.to_json().items() if key not in ("schema", "kind")}
        return Record.to_json(self) | {"about": about}


def open_run(folder: Path) -> None:
    """Make the folder of a run.

    Raises:
        ConfigError: it holds a run already, which is never overwritten.
    """
    folder.mkdir(parents=True, exist_ok=True)
    if (folder / HEADER).exists():
        raise ConfigError(
            "this folder already holds a run", where=str(folder), next_step="name another folder, or none"
        )


def write(folder: Path, header: MeasuredHeader, measurements: Sequence[Measurement]) -> Summary:
    """Keep a run, and what it says. The header comes last: a folder with one is whole."""
    Values(measurements=tuple(measurements)).write(folder / VALUES)
    header.write(folder / HEADER, indent=1)
    return recompute(folder)


def is_measured(folder: Path) -> bool:
    """Return whether that folder holds a run of this kind."""
    return (folder / HEADER).is_file()


def recompute(folder: Path) -> Summary:
    """Every figure of a run from its raw values, offline; also written to ``summary.json``.

    Raises:
        MissingError: no run there.
        IntegrityError: it cannot be read.
    """
    about, measurements = read(folder)
    run = LoadRun.read(folder / LOAD) if (folder / LOAD / "run.json").is_file() else None
    with damage(folder, _AGAIN):
        figures = tuple(_figure(each) for each in measurements)
        summary = Summary(
            about=about.short,
            figures=figures,
            breaches=breaches(run) if run is not None else (),
            notes=tuple(_notes(about, figures)),
        )
        summary.write(folder / SUMMARY, indent=1)
    return summary


def read(folder: Path) -> tuple[MeasuredHeader, tuple[Measurement, ...]]:
    """Header and raw values of a run.

    Raises: as `recompute`.
    """
    if not is_measured(folder):
        raise MissingError(
            "there is no measured run", where=str(folder), next_step="name a folder that `seatrial measure` wrote"
        )
    try:
        return MeasuredHeader.read(folder / HEADER), Values.read(folder / VALUES).measurements
    except FileNotFoundError as error:
        raise IntegrityError("the run lacks its values", where=str(folder / VALUES), next_step=_AGAIN) from error


def _figure(measurement: Measurement) -> Figure:
    metric, values = measurement.metric, np.asarray(measurement.values, np.float64)
    named: dict[str, Any] = {
        "metric": metric.name,
        "unit": metric.unit,
        "scenario": measurement.scenario,
        "n": values.size,
    }
    if metric.name == "throughput":
        return Figure(**named, value=harmonic_mean(values), interval=_rate_interval(values))
    if metric.name not in STREAMS:
        return Figure(**named, value=float(values.mean()))
    found = quantiles(values)
    return Figure(
        **named,
        value=found.median,
        interval=found.interval,
        p99=found.p99,
        p99_upper=found.p99_upper,
        n_effective=found.n_effective,
    )


def harmonic_mean(rates: npt.NDArray[np.float64]) -> float:
    """The rate over all of equally large pieces of work, whose rates [n] are in 1/s: work over time."""
    return float(rates.size / np.sum(1 / rates))


def _rate_interval(rates: npt.NDArray[np.float64]) -> tuple[float, float] | None:
    """A 95 % t interval of that rate, in 1/s, from blocks of `rates` [n], which are nearly independent."""
    if rates.size < 2 * _BLOCKS:
        return None
    from scipy import stats

    blocks = np.array([harmonic_mean(block) for block in np.array_split(rates, _BLOCKS)])
    reach = float(stats.t.ppf(0.975, _BLOCKS - 1) * blocks.std(ddof=1) / np.sqrt(_BLOCKS))
    centre = harmonic_mean(rates)
    return centre - reach, centre + reach


def _notes(about: MeasuredHeader, figures: Sequence[Figure]) -> list[str]:
    notes = [
        (
            f"{each.scenario}: {each.n} latencies, equivalent to {each.n_effective} independent ones, are "
            "too few to bound p99"
        )
        for each in figures
        if each.metric == "latency" and each.p99_upper is None
    ]
    for name in ("memory", "server", "device", "energy"):
        found = getattr(about, name)
        if isinstance(found, Unavailable) and found.unavailable:
            notes.append(f"{name}: {found.unavailable}")
    if isinstance(about.memory, Memory):
        if about.memory.of:
            notes.append(f"memory is that of {about.memory.of} and its children")
        if isinstance(about.memory.growth, Growth):
            notes.append(f"memory {about.memory.growth.note}")
    return notes


def table(summary: Summary) -> Table:
    """The run for people: one line a figure."""
    rows = [
        (
            f"{each.metric} (median)" if each.metric in STREAMS else each.metric.replace("_", " "),
            format_value(each.value, each.unit),
            format_range(*each.interval, each.unit, between=" to ") if each.interval else "",
            format_value(each.p99, each.unit, missing=""),
            format_value(each.p99_upper, each.unit, missing=""),
            each.scenario,
        )
        for each in summary.figures
    ]
    server = summary.about.server
    if isinstance(server, ServerCounts) and server.requests:
        lines = server_statistics.lines(server)
        rows += [(f"server: {what}", value, "", "", "", about) for what, value, about in lines]
    head = ("what", "value", "95 % interval", "p99", "p99 at most", "scenario")
    return tables.table(head, rows, left=("what", "scenario"), look="ruled")
