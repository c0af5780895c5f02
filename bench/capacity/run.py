"""Measures a server's capacity and keeps every probe's raw run; computes the same result again from the folder.

Joins the search with the load generator; decides nothing itself. Layout of a run's folder: ``capacity.json`` (header,
probes made so far, why it ended), ``saturation/``, ``probes/NNN/`` as `bench.load` leaves them.
"""

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import ClassVar

import numpy as np

from seatrial.optimize.environment import environment, now
from seatrial.optimize.errors import IntegrityError
from seatrial.optimize.reading import damage
from seatrial.optimize.record import Record

from ..errors import TargetError
from ..load import on_locust
from ..load.cores import client_cores, server_cores
from ..load.guard import MAX_RATE
from ..load.load_setup import ClientSetup
from ..load.payload import Payload
from ..load.run import CENSORED, OK, LoadRun
from ..load_limits import LoadLimits
from ..measurement import check_machine
from ..schedule import poisson
from ..targets import Endpoint
from .probe import Phase, Probe, evaluate
from .result import Capacity, Header, conclude
from .search import Plan, search
from .slo import Slo

Progress = Callable[[str, float], None]
"""Called with the current activity and the fraction of the time budget that is used."""

START = 0.3  # of the saturation, a load that any server bears well
_SATURATION_SECONDS = 3.0
_RECORD = "capacity.json"
_AGAIN = "restore the folder from a copy, or run seatrial capacity again"
_INTERRUPTED = "interrupted"
_REST = 20.0  # seconds, at most, for an overloaded server to work off abandoned requests


@dataclass(frozen=True, slots=True, kw_only=True)
class CapacitySetup:
    """Setup of a capacity search: `seed` of its arrivals and of the order of its probes, and what its loads need.

    `concurrency` requests are in flight while the server is saturated. `cores` pins the load process, `limits` say
    which probe is valid, `own_target` that a server on another machine is yours to load.
    """

    seed: int = 1
    concurrency: int = 16
    cores: Sequence[int] = ()
    limits: LoadLimits = field(default_factory=LoadLimits)
    own_target: bool = False


SETUP = CapacitySetup()


def capacity(
    endpoint: Endpoint,
    payload: Payload,
    slo: Slo,
    *,
    folder: Path,
    plan: Plan | None = None,
    setup: CapacitySetup = SETUP,
    progress: Progress | None = None,
) -> Capacity:
    """Search the largest Poisson rate within the objective, and keep everything measured in `folder`.

    A few seconds of closed loop say where to start. Ctrl-C loses the probe that runs, no other: `recompute` reads what
    is there.

    Raises:
        ConfigError: a plan beyond the load generator's hard caps.
        TargetError: the target is elsewhere and not said to be yours, unreachable, or answers nothing well.
        LoadError: the load process broke.
    """
    plan = plan or Plan()
    plan = replace(plan, max_rate=min(plan.max_rate, MAX_RATE))
    client = ClientSetup(cores=setup.cores, own_target=setup.own_target)
    if progress:
        progress("saturating", 0.0)
    saturation = _saturation(endpoint, payload, setup.concurrency, folder / "saturation", client)
    header = Header(
        target=endpoint.url + endpoint.path,
        model=endpoint.model,
        slo=slo,
        batch=payload.batch,
        seed=setup.seed,
        saturation=saturation,
        plan=plan,
        limits=setup.limits,
        environment=environment().to_json(),
        cores={"client": tuple(client_cores(setup.cores)), "server": tuple(server_cores(endpoint))},
        at=now(),
    )
    probing = _Probing(
        endpoint=endpoint, payload=payload, header=header, folder=folder, client=client, progress=progress
    )
    _record(folder, header, (), _INTERRUPTED)
    probes, stopped = search(probing, slo, start=START * saturation, plan=plan, seed=setup.seed)
    _record(folder, header, probes, stopped)
    return conclude(header, probes, stopped)


@dataclass(slots=True, kw_only=True)
class _Probing:
    """Offers a Poisson load at a rate, keeps it, and waits until the server has worked it off."""

    endpoint: Endpoint
    payload: Payload
    header: Header
    folder: Path
    client: ClientSetup
    progress: Progress | None
    made: list[Probe] = field(default_factory=list)

    def __call__(self, rate: float, seconds: float, phase: Phase) -> Probe:
        number = len(self.made)
        run = on_locust.load(
            self.endpoint,
            poisson(rate, seconds, self.header.seed * 1000 + number),
            self.payload,
            folder=_probe_folder(self.folder, number),
            progress=partial(self._tell, f"{phase} {rate:.4g}/s for {seconds:.0f} s", seconds),
            client=self.client,
        )
        self.made.append(evaluate(run, self.header.slo, number=number, phase=phase, limits=self.header.limits))
        _record(self.folder, self.header, self.made, _INTERRUPTED)
        time.sleep(_rest(run))
        return self.made[-1]

    def _tell(self, what: str, seconds: float, share: float) -> None:
        if self.progress:
            spent = sum(probe.seconds for probe in self.made)
            self.progress(what, (spent + share * seconds) / self.header.plan.seconds)


def recompute(folder: Path) -> Capacity:
    """The result of a search again, from the raw runs in its folder.

    Raises:
        IntegrityError: the folder holds no search, one of another schema, or a run was changed.
    """
    try:
        record = SearchRecord.read(folder / _RECORD)
    except FileNotFoundError as error:
        raise IntegrityError("not a capacity run", where=str(folder / _RECORD), next_step=_AGAIN) from error
    with damage(folder, _AGAIN):
        header = record.header
        probes = [
            evaluate(
                LoadRun.read(_probe_folder(folder, each.number)),
                header.slo,
                number=each.number,
                phase=each.phase,
                limits=header.limits,
            )
            for each in record.probes
        ]
        return conclude(header, probes, record.stopped)


@dataclass(frozen=True, slots=True, kw_only=True)
class ListedProbe:
    """A probe as the record lists it."""

    number: int
    phase: Phase


@dataclass(frozen=True, slots=True, kw_only=True)
class SearchRecord(Record, schema=1, what="the record of the search", next_step=_AGAIN, computed=("kind",)):
    """A search as far as it got: its parameters, the probes made, why it ended."""

    kind: ClassVar[str] = "capacity run"

    header: Header
    probes: tuple[ListedProbe, ...]
    stopped: str

    def check(self) -> None:
        """Check what is read of the machine."""
        check_machine(self.header.environment)


def is_capacity_run(folder: Path) -> bool:
    """Return whether `capacity` wrote the folder."""
    return (folder / _RECORD).is_file()


def _saturation(endpoint: Endpoint, payload: Payload, concurrency: int, folder: Path, client: ClientSetup) -> float:
    """Requests per second that the server completes when it is never idle."""
    full = on_locust.saturate(
        endpoint, payload, seconds=_SATURATION_SECONDS, concurrency=concurrency, folder=folder, client=client
    )
    if not full.completed:
        raise TargetError(
            f"model {endpoint.model!r} answered no request successfully in {_SATURATION_SECONDS:g} s",
            where="; ".join(f"status {status}: {text}" for status, text in full.reasons.items()) or endpoint.url,
            next_step="read the server's log, or send samples that fit its inputs (--recipe)",
        )
    return full.requests_per_second


def _record(folder: Path, header: Header, probes: Sequence[Probe], stopped: str) -> None:
    listed = tuple(ListedProbe(number=probe.number, phase=probe.phase) for probe in probes)
    SearchRecord(header=header, probes=listed, stopped=stopped).write(folder / _RECORD, indent=1)


def _probe_folder(folder: Path, number: int) -> Path:
    return folder / "probes" / f"{number:03d}"


def _rest(run: LoadRun) -> float:
    """Seconds until a server that was left with unanswered requests has worked them off, at the pace it had."""
    left = int(np.count_nonzero((run.status == CENSORED) & ~np.isnan(run.sent)))
    answered = int(np.count_nonzero(run.status == OK))
    if not left:
        return 0.0
    return min(_REST, left / max(answered / run.schedule.seconds, 1.0))
