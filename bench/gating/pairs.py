"""Pairs of slots: the balanced order in which two arms take turns, and the raw record of a run on disk.

A *slot* is one fresh server with one arm; a *pair* is one slot of each. Slots alternate ABBA or BAAB so that a linear
drift of the machine cancels. Knows how a run is stored (`run.json`, `slot-NN.json`, `slot-NN.npz`), not what it means.
"""

import io
import json
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, field, fields, replace
from datetime import datetime
from pathlib import Path
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from seatrial.optimize.errors import ConfigError, IntegrityError, MissingError
from seatrial.optimize.reading import damage, decode, read_object, without
from seatrial.optimize.store import write_atomically

from ..arrays import read_arrays
from ..measurement import check_machine
from ..verdict import EvaluationSet, Judged

Arm = Literal["base", "candidate"]
ARMS: tuple[Arm, Arm] = ("base", "candidate")
SCHEMA = 1
_ARRAYS = ("latency", "service", "lag", "status", "quality")


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


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class SlotRecord:
    """Raw values of one slot.

    Arrays in seconds, one entry per scheduled request: `latency` from the intended send, `service` from the actual one,
    `lag` between the two (NaN where never sent); `status` as in `bench.load.run`: HTTP status, 0 broken connection, -1
    no reply when the run ended, `latency` then being a lower bound. `quality` holds the per-sample scores of the pair's
    share of the evaluation set, from sample `quality_start` on. `breaches` are validity rules of the load that the slot
    broke, `faults` what is wrong with the arm itself: not loading, dying, NaN or misshapen answers. `fault_kind` is
    "model" where the arm is to blame and "environment" where the machine is.

    `load_seconds` is how long the server took to load the model, `first_inference` how long its first answer took.
    `server` is what the server counted during the open-loop load (sums in seconds: queue, compute; executed batch
    sizes), `device` and `energy` what the accelerator's counters say, `checks` the raw values of further quality checks
    by name; each is empty where nothing was measured.
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
    memory: Mapping[str, Any] = field(default_factory=dict)
    load: Mapping[str, Any] = field(default_factory=dict)
    saturation: Mapping[str, Any] = field(default_factory=dict)
    load_seconds: float | None = None
    first_inference: float | None = None
    server: Mapping[str, Any] = field(default_factory=dict)
    device: Mapping[str, Any] = field(default_factory=dict)
    energy: Mapping[str, Any] = field(default_factory=dict)
    checks: Mapping[str, Any] = field(default_factory=dict)
    load_average: float | None = None
    breaches: tuple[str, ...] = ()
    faults: tuple[str, ...] = ()
    fault_kind: Literal["", "model", "environment"] = ""
    started_at: str = ""
    seconds: float = 0.0

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
class RunHeader:
    """Facts known before the first slot: the arms, the budget, the machine, the time.

    `budget` is the budget's JSON; `price` the pinned price used for dollars; `ledger` the loss (log scale) by metric
    that the budget's ledger already held when the run began; `deployable` what may be asked of the candidate once it is
    deployed (`gating.exercised`); `continued` the pairs after which the run was judged and then continued.
    """

    base: Judged
    candidate: Judged
    budget: Mapping[str, Any]
    samples: EvaluationSet
    price: PinnedPrice
    environment: Mapping[str, Any]
    at: str
    ledger: Mapping[str, float] = field(default_factory=dict)
    deployable: Mapping[str, Any] = field(default_factory=dict)
    continued: tuple[int, ...] = ()


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
    write_json(folder / "run.json", {"schema": SCHEMA} | asdict(header))


def go_on(folder: Path, header: RunHeader) -> None:
    """Put another header in the place of a run's: the same run, with more pairs to come."""
    write_json(folder / "run.json", {"schema": SCHEMA} | asdict(header))


def write_record(folder: Path, record: SlotRecord) -> None:
    """Keep a slot: arrays first, then the JSON that says the slot is whole."""
    buffer = io.BytesIO()
    np.savez_compressed(buffer, **{name: getattr(record, name) for name in _ARRAYS})
    write_atomically(folder / f"{record.name}.npz", buffer.getvalue())
    plain = {key: value for key, value in asdict(record).items() if key not in _ARRAYS}
    write_json(folder / f"{record.name}.json", {"schema": SCHEMA} | plain)


def write_json(path: Path, value: Any) -> None:
    """Write JSON for others to read: staged, fsynced, renamed into place."""
    write_atomically(path, json.dumps(value, indent=1, sort_keys=True, allow_nan=False).encode())


def read_run(folder: Path) -> GateRun:
    """Read a run back, whole or interrupted.

    Raises:
        MissingError: no run there.
        IntegrityError: another schema, or a file that cannot be read.
    """
    path = folder / "run.json"
    head = read_json(path)
    with damage(path, _AGAIN):
        header = decode(RunHeader, {key: value for key, value in head.items() if key != "schema"}, where="")
        check_machine(header.environment)
        datetime.fromisoformat(header.at)
    return GateRun(header=header, records=tuple(sorted(_records(folder), key=lambda r: (r.slot.index, r.attempt))))


def _records(folder: Path) -> Iterator[SlotRecord]:
    for path in sorted(folder.glob("slot-*.json")):
        value = read_json(path)
        del value["schema"]
        plain = decode(_Plain, value, where=str(path), next_step=_AGAIN)
        arrays = path.with_suffix(".npz")
        try:
            stored = read_arrays(arrays, _ARRAYS, next_step=_AGAIN)
        except FileNotFoundError as error:
            raise IntegrityError(
                "the record of a slot lacks its arrays", where=str(arrays), next_step=_AGAIN
            ) from error
        if len({stored[name].size for name in _ARRAYS if name != "quality"}) != 1:
            raise IntegrityError("its arrays have different lengths", where=str(arrays), next_step=_AGAIN)
        told: dict[str, Any] = {each.name: getattr(plain, each.name) for each in fields(_Plain)}
        yield SlotRecord(**(told | stored))


_AGAIN = "restore the folder from a copy, or run the gate again"
_Plain = without(SlotRecord, _ARRAYS)
"""A slot's record without its arrays, as stored in its JSON file."""


def read_json(path: Path) -> dict[str, Any]:
    """Read what `write_json` wrote, of this schema.

    Raises:
        MissingError: no such file.
        IntegrityError: not JSON, or another schema.
    """
    try:
        return read_object(path, schema=SCHEMA, next_step=_AGAIN)
    except FileNotFoundError as error:
        raise MissingError(
            "no such record", where=str(path), next_step="name a folder that `seatrial gate` wrote"
        ) from error
