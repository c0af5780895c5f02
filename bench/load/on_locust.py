"""Runs a load with Locust in processes of its own, and makes one run of what they left.

Never imports Locust: its gevent patches would reach into the process that judges. Refuses what could hurt by accident
(`guard`), starts and ends the processes (`processes`), judges nothing.
"""

import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from pathlib import Path
from typing import Any

import numpy as np

from optimize import interrupts, scratch
from optimize.interrupts import held
from optimize.store import write_atomically

from ..errors import LoadError
from ..schedule import Schedule
from ..targets import Endpoint
from . import guard, parameters, shared_memory
from .cores import client_cores, server_cores
from .guard import AbortRules
from .payload import Payload
from .processes import Outcome, Progress, running
from .run import UNRECORDED, LoadRun, Saturation

__all__ = ["AbortRules", "LoadRun", "Progress", "Saturation", "load", "saturate"]

_EXCHANGE = ".load"
UI_SECONDS = 300.0  # that Locust's web UI stays after the run


def load(
    endpoint: Endpoint,
    schedule: Schedule,
    payload: Payload,
    *,
    folder: Path,
    in_flight: int = 256,
    workers: int = 1,
    warmup: int = 16,
    drain: float = 10.0,
    cores: Sequence[int] = (),
    real_time: bool = True,
    own_target: bool = False,
    abort: AbortRules | None = None,
    progress: Progress | None = None,
    ui: Callable[[str], None] | None = None,
    ui_seconds: float = UI_SECONDS,
) -> LoadRun:
    """Offer exactly the schedule to the endpoint, open loop, and keep the raw result in `folder`.

    At most `in_flight` requests per worker are open; arrivals beyond that are recorded as censored. `warmup` requests
    per worker go first, unrecorded. After the last arrival late replies are awaited for `drain` seconds. `cores` pins
    the load processes; `real_time` lets them run first where the machine allows it (`run.about` says whether it did),
    which keeps neighbours on the same cores out of the figures. `own_target` says that a server on another machine is
    yours to load. `abort` stops the run early, which then has `faults`, as it has where a worker was lost. Several
    `workers` report to a Locust master; its table, or that of the only worker, lands in ``locust.log``. `ui` is told
    where Locust's web UI is, which stays for `ui_seconds` after the run or until Ctrl-C.

    Raises:
        ConfigError: more than the hard caps allow.
        TargetError: the target is not on this machine, cannot be reached, or refuses the requests as malformed.
        LoadError: the load processes broke or did not end in time.
        KeyboardInterrupt: as it came; what was measured until then has been saved.
    """
    given = parameters.open_loop(
        schedule, in_flight=in_flight, workers=workers, warmup=warmup, drain=drain, real_time=real_time
    )
    _check(endpoint, payload, schedule.seconds + drain, in_flight, workers, own_target)
    with _exchange(folder, payload) as exchange, _regions(endpoint, payload):
        schedule.save(exchange / "schedule.npz")
        each = [
            given
            | parameters.load_process(
                endpoint, payload.protocol, exchange, worker=worker, workers=workers, cores=cores, abort=abort
            )
            for worker in range(workers)
        ]
        with running(each, exchange, seconds=schedule.seconds, drain=drain, progress=progress, ui=ui) as outcome:
            run = _merged(outcome, endpoint, schedule, payload, cores)
            run.save(folder)
            if ui and not outcome.interrupted:
                with interrupts.answering():
                    time.sleep(ui_seconds)
    _interrupt(outcome, folder)
    return run


def saturate(
    endpoint: Endpoint,
    payload: Payload,
    *,
    seconds: float,
    concurrency: int,
    folder: Path,
    warmup: int = 16,
    cores: Sequence[int] = (),
    own_target: bool = False,
    abort: AbortRules | None = None,
    progress: Progress | None = None,
) -> Saturation:
    """Keep `concurrency` requests in flight for `seconds`, closed loop: the most that the server can do.

    Its latencies are those of a full queue and say nothing about users; use `load` for those.

    Raises: as `load`.
    """
    _check(endpoint, payload, seconds, concurrency, 1, own_target)
    given = parameters.closed_loop(concurrency, seconds, warmup=warmup)
    with _exchange(folder, payload) as exchange, _regions(endpoint, payload):
        given |= parameters.load_process(
            endpoint, payload.protocol, exchange, worker=0, workers=1, cores=cores, abort=abort
        )
        with running([given], exchange, seconds=seconds, drain=0.0, progress=progress) as outcome:
            [(about, arrays)] = [result for result in outcome.results if result]
            saturation = Saturation(
                **arrays,
                seconds=min(seconds, about["elapsed_s"]) if outcome.faults else seconds,
                concurrency=concurrency,
                batch=payload.batch,
                client_cpu=about["cpu_s"] / about["elapsed_s"],
                start=about["start"],
                target=endpoint.url + endpoint.path,
                reasons=_reasons([about]),
                about=_versions(about) | {"protocol": payload.protocol},
                faults=outcome.faults,
            )
            saturation.save(folder)
    _interrupt(outcome, folder)
    return saturation


def _check(
    endpoint: Endpoint, payload: Payload, seconds: float, in_flight: int, workers: int, own_target: bool
) -> None:
    guard.check(endpoint, payload.protocol, seconds=seconds, in_flight=in_flight, workers=workers, own=own_target)


@contextmanager
def _exchange(folder: Path, payload: Payload) -> Iterator[Path]:
    """A folder inside `folder` through which this process and the load processes talk; gone afterwards."""
    scratch.sweep(folder, _EXCHANGE)
    with scratch.folder(_EXCHANGE, folder.absolute()) as exchange:
        payload.save(exchange / "payload.npz")
        try:
            yield exchange
        finally:
            logs = [exchange / "master.log", *sorted(exchange.glob("worker-*.log"))]
            with held():
                write_atomically(folder / "locust.log", b"".join(log.read_bytes() for log in logs if log.exists()))


def _regions(endpoint: Endpoint, payload: Payload) -> AbstractContextManager[object]:
    return shared_memory.registered(endpoint, payload.regions) if payload.regions else nullcontext()


def _interrupt(outcome: Outcome, folder: Path) -> None:
    if outcome.interrupted:
        interrupt = KeyboardInterrupt()
        interrupt.add_note(f"stopped early; what was measured lies in {folder}")
        raise interrupt


def _merged(
    outcome: Outcome, endpoint: Endpoint, schedule: Schedule, payload: Payload, cores: Sequence[int]
) -> LoadRun:
    """The workers' shares put back into the order of the schedule; a lost worker's arrivals are unrecorded.

    Raises:
        LoadError: a worker sent another schedule.
    """
    abouts = [result[0] for result in outcome.results if result]
    if any(about["schedule"] != schedule.digest for about in abouts):
        raise LoadError("a load process sent another schedule than it was given", next_step="run it again")
    count, workers = len(schedule), len(outcome.results)
    arrays = {
        "intended": schedule.offsets,
        "sent": np.full(count, np.nan),
        "done": np.full(count, np.nan),
        "status": np.full(count, UNRECORDED, np.int16),
    }
    for worker, result in enumerate(outcome.results):
        if result is not None:
            for name in ("sent", "done", "status"):
                arrays[name][worker::workers] = result[1][name]
    unrecorded = {UNRECORDED: "; ".join(outcome.faults)} if np.any(arrays["status"] == UNRECORDED) else {}
    return LoadRun(
        **arrays,
        schedule=schedule,
        batch=payload.batch,
        client_cpu=max(about["cpu_s"] / about["elapsed_s"] for about in abouts),
        elapsed=max(about["elapsed_s"] for about in abouts),
        start=abouts[0]["start"],
        target=endpoint.url + endpoint.path,
        reasons=_reasons(abouts) | unrecorded,
        about=_versions(abouts[0])
        | {
            "workers": workers,
            "real_time": all(about["real_time"] for about in abouts),
            "protocol": payload.protocol,
            "cores": client_cores(cores),
            "server_cores": server_cores(endpoint),
        },
        faults=outcome.faults,
    )


def _reasons(abouts: Sequence[dict[str, Any]]) -> dict[int, str]:
    return {int(status): text for about in reversed(abouts) for status, text in about["reasons"].items()}


def _versions(about: dict[str, Any]) -> dict[str, Any]:
    return {name: about[name] for name in ("python", "locust", "gevent", "warmup_errors")}
