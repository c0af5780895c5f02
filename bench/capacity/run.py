"""Measures a server's capacity and keeps every probe's raw run; computes the same result again from the folder.

Joins the search with the load generator; decides nothing itself. Layout of a run's folder: ``capacity.json`` (header,
probes made so far, why it ended), ``saturation/``, ``probes/NNN/`` as `bench.load` leaves them.
"""

import json
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from optimize.environment import environment, now
from optimize.errors import IntegrityError
from optimize.reading import damage, decode, read_object
from optimize.store import write_atomically

from ..errors import TargetError
from ..load import on_locust
from ..load.cores import client_cores, server_cores
from ..load.guard import MAX_RATE
from ..load.payload import Payload
from ..load.run import CENSORED, OK, LoadRun
from ..load.validity import LoadLimits
from ..measurement import check_machine
from ..schedule import poisson
from ..targets import Endpoint
from .probe import Phase, Probe, evaluate
from .result import SCHEMA, Capacity, Header, conclude, header_json
from .search import Plan, search
from .slo import Slo

Progress = Callable[[str, float], None]
"""Called with what is being done and the share of the time budget that is used."""

START = 0.3  # of the saturation, a load that any server bears well
_SATURATION_SECONDS = 3.0
_RECORD = "capacity.json"
_AGAIN = "restore the folder from a copy, or run seatrial capacity again"
_INTERRUPTED = "interrupted"
_REST = 20.0  # seconds, at most, for an overloaded server to work off what nobody waits for any more


def capacity(
    endpoint: Endpoint,
    payload: Payload,
    slo: Slo,
    *,
    folder: Path,
    plan: Plan | None = None,
    seed: int = 1,
    concurrency: int = 16,
    cores: Sequence[int] = (),
    limits: LoadLimits | None = None,
    own_target: bool = False,
    progress: Progress | None = None,
) -> Capacity:
    """Search the largest Poisson rate within the objective, and keep everything measured in `folder`.

    A few seconds of closed loop with `concurrency` requests in flight say where to start. Ctrl-C loses the probe that
    runs, no other: `recompute` reads what is there.

    Raises:
        ConfigError: a plan beyond the load generator's hard caps.
        TargetError: the target is elsewhere and not said to be yours, unreachable, or answers nothing well.
        LoadError: the load process broke.
    """
    plan, limits = plan or Plan(), limits or LoadLimits()
    plan = Plan(**asdict(plan) | {"max_rate": min(plan.max_rate, MAX_RATE)})
    offering: dict[str, Any] = {"cores": cores, "own_target": own_target}
    if progress:
        progress("saturating", 0.0)
    saturation = _saturation(endpoint, payload, concurrency, folder / "saturation", offering)
    header = Header(
        target=endpoint.url + endpoint.path,
        model=endpoint.model,
        slo=slo,
        batch=payload.batch,
        seed=seed,
        saturation=saturation,
        plan=asdict(plan),
        limits=asdict(limits),
        environment=environment().to_json(),
        cores={"client": client_cores(cores), "server": server_cores(endpoint)},
        at=now(),
    )
    probing = _Probing(
        endpoint=endpoint, payload=payload, header=header, folder=folder, offering=offering, progress=progress
    )
    _record(folder, header, (), _INTERRUPTED)
    probes, stopped = search(probing, slo, start=START * saturation, plan=plan, seed=seed)
    _record(folder, header, probes, stopped)
    return conclude(header, probes, stopped)


@dataclass(slots=True, kw_only=True)
class _Probing:
    """Offers a Poisson load at a rate, keeps it, and waits until the server has worked it off."""

    endpoint: Endpoint
    payload: Payload
    header: Header
    folder: Path
    offering: dict[str, Any]
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
            **self.offering,
        )
        limits = LoadLimits(**self.header.limits)
        self.made.append(evaluate(run, self.header.slo, number=number, phase=phase, limits=limits))
        _record(self.folder, self.header, self.made, _INTERRUPTED)
        time.sleep(_rest(run))
        return self.made[-1]

    def _tell(self, what: str, seconds: float, share: float) -> None:
        if self.progress:
            spent = sum(probe.seconds for probe in self.made)
            self.progress(what, (spent + share * seconds) / float(self.header.plan["seconds"]))


def recompute(folder: Path) -> Capacity:
    """The result of a search again, from the raw runs in its folder.

    Raises:
        IntegrityError: the folder holds no search, one of another schema, or a run was changed.
    """
    path = folder / _RECORD
    try:
        record = read_object(path, schema=SCHEMA, next_step=_AGAIN)
    except FileNotFoundError as error:
        raise IntegrityError("no capacity run", where=str(path), next_step=_AGAIN) from error
    with damage(path, _AGAIN):
        if record.get("kind") != "capacity run":
            raise ValueError(f"kind {record.get('kind')!r}")
        value = dict(record["header"])
        slo = Slo(quantile=value["slo"]["quantile"], seconds=value["slo"]["seconds"])
        header = decode(Header, value | {"slo": asdict(slo)}, where="")
        check_machine(header.environment)
        limits, stopped = decode(LoadLimits, header.limits, where=""), str(record["stopped"])
        listed = decode(list[_Listed], record["probes"], where="")
    with damage(folder, _AGAIN):
        probes = [
            evaluate(
                LoadRun.read(_probe_folder(folder, each.number)),
                header.slo,
                number=each.number,
                phase=each.phase,
                limits=limits,
            )
            for each in listed
        ]
        return conclude(header, probes, stopped)


@dataclass(frozen=True, kw_only=True)
class _Listed:
    """A probe as the record lists it."""

    number: int
    phase: Phase


def is_capacity_run(folder: Path) -> bool:
    """Whether a folder is one that `capacity` wrote."""
    return (folder / _RECORD).is_file()


def _saturation(
    endpoint: Endpoint, payload: Payload, concurrency: int, folder: Path, offering: dict[str, Any]
) -> float:
    """Requests per second that the server completes when it is never idle."""
    full = on_locust.saturate(
        endpoint, payload, seconds=_SATURATION_SECONDS, concurrency=concurrency, folder=folder, **offering
    )
    if not full.completed:
        raise TargetError(
            f"model {endpoint.model!r} answered no request well in {_SATURATION_SECONDS:g} s",
            where="; ".join(f"status {status}: {text}" for status, text in full.reasons.items()) or endpoint.url,
            next_step="look at the server's log, or send samples that it takes (--recipe)",
        )
    return full.requests_per_second


def _record(folder: Path, header: Header, probes: Sequence[Probe], stopped: str) -> None:
    record = {
        "schema": SCHEMA,
        "kind": "capacity run",
        "header": header_json(header),
        "probes": [{"number": probe.number, "phase": probe.phase} for probe in probes],
        "stopped": stopped,
    }
    write_atomically(folder / _RECORD, json.dumps(record, indent=1, default=str).encode())


def _probe_folder(folder: Path, number: int) -> Path:
    return folder / "probes" / f"{number:03d}"


def _rest(run: LoadRun) -> float:
    """Seconds until a server that was left with unanswered requests has worked them off, at the pace it had."""
    left = int(np.count_nonzero((run.status == CENSORED) & ~np.isnan(run.sent)))
    answered = int(np.count_nonzero(run.status == OK))
    if not left:
        return 0.0
    return min(_REST, left / max(answered / run.schedule.seconds, 1.0))
