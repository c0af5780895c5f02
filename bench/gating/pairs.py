"""Pairs of slots: the balanced order in which two arms take turns, and the raw record of a run on disk.

A *slot* is one fresh server with one arm; a *pair* is one slot of each. Slots alternate ABBA or BAAB so that a linear
drift of the machine cancels. Knows how a run is stored (`run.json`, `slot-NN.json`, `slot-NN.npz`), not what it means.
"""

import io
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from datetime import datetime
from pathlib import Path
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from seatrial.optimize.errors import ConfigError, IntegrityError, MissingError
from seatrial.optimize.record import Record
from seatrial.optimize.store import write_atomically

from ..arrays import read_arrays
from ..budget import Budget
from ..measurement import NOTHING, Unavailable, check_machine
from ..measuring.usage import DeviceUse, EnergyUse, Memory
from ..quality.evidence import Share
from ..server_statistics import Counted
from ..verdict import EvaluationSet, Judged

Arm = Literal["base", "candidate"]
ARMS: tuple[Arm, Arm] = ("base", "candidate")
_ARRAYS = ("latency", "service", "lag", "status", "quality")
_AGAIN = "restore the folder from a copy, or run the gate again"


@dataclass(frozen=True, slots=True, kw_only=True)
class Slot:
    """One turn: pair and position count from 0, `index` is its place in the whole run; `seed` is the pair's."""

    index: int
    pair: int
    arm: Arm
    position: int
    seed: int


def plan(pairs: int, seed: int) -> tuple[Slot, ...]:
    """The order of a run: blocks of two pairs, each ABBA or BAAB as a seeded coin falls.

    Both slots of a pair share a seed, from which the load's arrivals are drawn: common random numbers.

    Raises:
        ConfigError: an odd number of pairs, which cannot be balanced.
    """
    if pairs < 2 or pairs % 2:
        raise ConfigError(
            f"pairs must be even to balance the order, got {pairs}",
            where="design.pairs",
            next_step="use an even number",
        )
    random = np.random.default_rng(seed)
    slots: list[Slot] = []
    order = ARMS
    for pair in range(pairs):
        order = order[::-1] if pair % 2 or random.integers(2) else order
        for position, arm in enumerate(order):
            slots.append(Slot(index=len(slots), pair=pair, arm=arm, position=position, seed=seed * 1000 + pair))
    return tuple(slots)


@dataclass(frozen=True, slots=True, kw_only=True)
class ClientUse:
    """The load generator during a slot's open loop: share of a core, and what went wrong by status."""

    client_cpu: float
    reasons: Mapping[int, str]


@dataclass(frozen=True, slots=True, kw_only=True)
class SaturationUse:
    """A slot's closed loop: requests `completed` and failed (`errors`), shares of a core that the client took."""

    batch: int
    client_cpu: float
    client_wait: float = 0.0
    errors: int
    completed: int
    server: Counted = NOTHING


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class SlotRecord(Record, schema=1, what="the record of a slot", next_step=_AGAIN, beside=_ARRAYS, sparse=("engine",)):
    """Raw values of one slot.

    Arrays in seconds, one entry per scheduled request: `latency` from the intended send, `service` from the actual one,
    `lag` between the two (NaN where never sent); `status` as in `bench.load.run`: HTTP status, 0 broken connection, -1
    no reply when the run ended, `latency` then being a lower bound. `quality` holds the per-sample scores of the pair's
    share of the evaluation set, from sample `quality_start` on. `breaches` are validity rules of the load that the slot
    broke, `faults` what is wrong with the arm itself: not loading, dying, NaN or misshapen answers. `fault_kind` is
    "model" where the arm is to blame and "environment" where the machine is.

    `load_seconds` is how long the server took to load the model, `first_inference` how long its first answer took.
    `server` is what the server counted during the open-loop load, `device` and `energy` what the accelerator's counters
    say; each is unavailable where nothing was measured. `checks` holds the raw values of the quality checks.
    `engine` is what ran the model in the server, where its host says so.
    """

    slot: Slot
    attempt: int
    latency: npt.NDArray[np.float64] = field(default_factory=lambda: np.empty(0))
    service: npt.NDArray[np.float64] = field(default_factory=lambda: np.empty(0))
    lag: npt.NDArray[np.float64] = field(default_factory=lambda: np.empty(0))
    status: npt.NDArray[np.int64] = field(default_factory=lambda: np.empty(0, np.int64))
    quality: npt.NDArray[np.float64] = field(default_factory=lambda: np.empty(0))
    quality_start: int = 0
    throughput: float | None = None
    peak_memory: float | None = None
    startup: float | None = None
    control: float | None = None
    memory: Memory | Unavailable = NOTHING
    load: ClientUse | Unavailable = NOTHING
    saturation: SaturationUse | Unavailable = NOTHING
    load_seconds: float | None = None
    first_inference: float | None = None
    server: Counted = NOTHING
    device: DeviceUse | Unavailable = NOTHING
    energy: EnergyUse | Unavailable = NOTHING
    checks: Share | Unavailable = NOTHING
    load_average: float | None = None
    breaches: tuple[str, ...] = ()
    faults: tuple[str, ...] = ()
    fault_kind: Literal["", "model", "environment"] = ""
    started_at: str = ""
    seconds: float = 0.0
    engine: str = ""

    @property
    def name(self) -> str:
        """The file name without ending; a rerun keeps the first attempt beside it."""
        return f"slot-{self.slot.index:02d}" + (f"-rerun{self.attempt}" if self.attempt else "")

    @property
    def usable(self) -> bool:
        """Return whether its values may be compared."""
        return not self.breaches and not self.faults

    def faulty(self, fault: str, kind: Literal["model", "environment"]) -> "SlotRecord":
        """The same record with one more fault; an environment fault is never turned into the model's."""
        kinds = (self.fault_kind, kind)
        return replace(self, faults=(*self.faults, fault), fault_kind="environment" if "environment" in kinds else kind)


@dataclass(frozen=True, slots=True, kw_only=True)
class PinnedPrice:
    """Price of a machine hour as a run used it; 0 dollars where none was pinned."""

    name: str = ""
    machine: str = ""
    usd_hour: float = 0.0
    source: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class DeployedTensor:
    """An input or output of a deployed model."""

    name: str
    shape: tuple[int | str, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class SampledTensor(DeployedTensor):
    """An input, with the shape of the evaluation samples without the batch; empty where there are none."""

    sampled: tuple[int, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Deployable:
    """Batches and shapes that a deployed model takes; `max_batch` is None where the servers' limit is not known."""

    max_batch: int | None = None
    inputs: tuple[SampledTensor, ...] = ()
    outputs: tuple[DeployedTensor, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class RunHeader(Record, schema=1, what="the header of the run", next_step=_AGAIN):
    """Facts known before the first slot: the arms, the budget, the machine, the time.

    `price` the pinned price used for dollars; `ledger` the loss (log scale) by metric
    that the budget's ledger already held when the run began; `deployable` what may be asked of the candidate once it is
    deployed (`gating.exercised`); `continued` the pairs after which the run was judged and then continued.
    """

    base: Judged
    candidate: Judged
    budget: Budget
    samples: EvaluationSet
    price: PinnedPrice
    environment: Mapping[str, Any]
    at: str
    ledger: Mapping[str, float] = field(default_factory=dict)
    deployable: Deployable = Deployable()
    continued: tuple[int, ...] = ()

    def check(self) -> None:
        """Check what is read of the machine, and the time."""
        check_machine(self.environment)
        datetime.fromisoformat(self.at)


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class GateRun:
    """A run as far as it got: the header, and the records of every slot and attempt in the order taken."""

    header: RunHeader
    records: tuple[SlotRecord, ...]

    def first(self, pairs: int) -> "GateRun":
        """The run as it stood after that many pairs."""
        return replace(self, records=tuple(record for record in self.records if record.slot.pair < pairs))

    def final(self) -> dict[tuple[int, Arm], SlotRecord]:
        """The last attempt of each slot by pair and arm."""
        found: dict[tuple[int, Arm], SlotRecord] = {}
        for record in sorted(self.records, key=lambda each: each.attempt):
            found[record.slot.pair, record.slot.arm] = record
        return found

    def named(self, arm: Arm) -> Judged:
        """The artifact of an arm."""
        return self.header.base if arm == "base" else self.header.candidate

    def arm(self, arm: Arm) -> list[SlotRecord]:
        """The last attempts of one arm, by pair."""
        return [record for (_, each), record in sorted(self.final().items()) if each == arm]


def write_header(folder: Path, header: RunHeader) -> None:
    """Open a run's folder.

    Raises:
        ConfigError: the folder already holds a run, which is never overwritten.
    """
    folder.mkdir(parents=True, exist_ok=True)
    if (folder / "run.json").exists():
        raise ConfigError("the folder already holds a run", where=str(folder), next_step="name another folder")
    header.write(folder / "run.json", indent=1)


def go_on(folder: Path, header: RunHeader) -> None:
    """Put another header in the place of a run's: the same run, with more pairs to come."""
    header.write(folder / "run.json", indent=1)


def write_record(folder: Path, record: SlotRecord) -> None:
    """Keep a slot: arrays first, then the JSON that says the slot is whole."""
    buffer = io.BytesIO()
    np.savez_compressed(buffer, **{name: getattr(record, name) for name in _ARRAYS})
    write_atomically(folder / f"{record.name}.npz", buffer.getvalue())
    record.write(folder / f"{record.name}.json", indent=1)


def read_run(folder: Path) -> GateRun:
    """Read a run back, whole or interrupted.

    Raises:
        MissingError: no run there.
        IntegrityError: another schema, or a file that cannot be read.
    """
    try:
        header = RunHeader.read(folder / "run.json")
    except FileNotFoundError as error:
        raise no_record(folder / "run.json") from error
    return GateRun(header=header, records=tuple(sorted(_records(folder), key=lambda r: (r.slot.index, r.attempt))))


def no_record(path: Path) -> MissingError:
    """Return the error of a folder without that record of a gate."""
    return MissingError("no such record", where=str(path), next_step="name a folder that `seatrial gate` wrote")


def _records(folder: Path) -> Iterator[SlotRecord]:
    for path in sorted(folder.glob("slot-*.json")):
        arrays = path.with_suffix(".npz")
        try:
            stored: dict[str, Any] = read_arrays(arrays, _ARRAYS, next_step=_AGAIN)
            record = SlotRecord.read(path, **stored)
        except FileNotFoundError as error:
            lacking = "arrays" if error.filename == str(arrays) else "record"
            raise IntegrityError(f"a slot lacks its {lacking}", where=str(error.filename), next_step=_AGAIN) from error
        if len({stored[name].size for name in _ARRAYS if name != "quality"}) != 1:
            raise IntegrityError("its arrays have different lengths", where=str(arrays), next_step=_AGAIN)
        yield record
