"""Runs a load with Locust in processes of its own, and makes one run of what they left.

Never imports Locust: its gevent patches would reach into the process that judges. Refuses what could hurt by accident
(`guard`), starts and ends the processes (`processes`), judges nothing.
"""

import time
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from pathlib import Path
from typing import Any

import numpy as np

from seatrial.optimize import interrupts, scratch
from seatrial.optimize.interrupts import held
from seatrial.optimize.store import write_atomically

from ..errors import LoadError
from ..schedule import Schedule
from ..targets import Endpoint
from . import guard, parameters, shared_memory
from .cores import client_cores, server_cores
from .guard import AbortRules
from .load_setup import CLIENT, OPEN_LOOP, ClientSetup, OpenLoopSetup, WebUi
from .payload import Payload
from .processes import Outcome, Progress, running
from .run import UNRECORDED, Client, LoadRun, Saturation

__all__ = [
    "AbortRules",
    "ClientSetup",
    "LoadRun",
    "OpenLoopSetup",
    "Progress",
    "Saturation",
    "WebUi",
    "load",
    "saturate",
]

_EXCHANGE = ".load"


def load(
    endpoint: Endpoint,
    schedule: Schedule,
    payload: Payload,
    *,
    folder: Path,
    client: ClientSetup = CLIENT,
    loop: OpenLoopSetup = OPEN_LOOP,
    progress: Progress | None = None,
    ui: WebUi | None = None,
) -> LoadRun:
    """Offer exactly the schedule to the endpoint, open loop, and keep the raw result in `folder`.

    `client` sets up each worker, `loop` says how they share the schedule; `run.about` says whether they ran in real
    time. A run that was stopped early has `faults`, as it has where a worker was lost. The table of Locust's master, or
    that of the only worker, lands in ``locust.log``. With `ui` Locust's web UI shows the run, until Ctrl-C at the most.

    Raises:
        ConfigError: more than the hard caps allow.
        TargetError: the target is not on this machine, cannot be reached, or refuses the requests as malformed.
        LoadError: the load processes broke or did not end in time.
        KeyboardInterrupt: as it came; what was measured until then has been saved.
    """
    given = parameters.open_loop(
        schedule,
        in_flight=loop.in_flight,
        workers=loop.workers,
        warmup=client.warmup,
        drain=loop.drain,
        real_time=loop.real_time,
    )
    _check(endpoint, payload, schedule.seconds + loop.drain, loop.in_flight, loop.workers, client.own_target)
    with _exchange(folder, payload) as exchange, _regions(endpoint, payload):
        schedule.save(exchange / "schedule.npz")
        each = [
            given
            | parameters.load_process(
                endpoint,
                payload.protocol,
                exchange,
                worker=worker,
                workers=loop.workers,
                cores=client.cores,
                abort=client.abort,
            )
            for worker in range(loop.workers)
        ]
        announce = ui.announce if ui else None
        with running(
            each, exchange, seconds=schedule.seconds, drain=loop.drain, progress=progress, ui=announce
        ) as outcome:
            run = _merged(outcome, endpoint, schedule, payload, client.cores)
            run.save(folder)
            if ui and not outcome.interrupted:
                with interrupts.answering():
                    time.sleep(ui.seconds)
    _interrupt(outcome, folder)
    return run


def saturate(
    endpoint: Endpoint,
    payload: Payload,
    *,
    seconds: float,
    concurrency: int,
    folder: Path,
    client: ClientSetup = CLIENT,
    progress: Progress | None = None,
) -> Saturation:
    """Keep `concurrency` requests in flight for `seconds`, closed loop: the most that the server can do.

    Its latencies are those of a full queue and say nothing about users; use `load` for those.

    Raises: as `load`.
    """
    _check(endpoint, payload, seconds, concurrency, 1, client.own_target)
    given = parameters.closed_loop(concurrency, seconds, warmup=client.warmup)
    with _exchange(folder, payload) as exchange, _regions(endpoint, payload):
        given |= parameters.load_process(
            endpoint, payload.protocol, exchange, worker=0, workers=1, cores=client.cores, abort=client.abort
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
                about=Client(
                    **_versions(about), protocol=payload.protocol, client_wait=about["wait_s"] / about["elapsed_s"]
                ),
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
        interrupt.add_note(f"stopped early; partial results are in {folder}")
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
        raise LoadError("a load process sent another schedule than the one assigned to it", next_step="run it again")
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
        about=Client(
            **_versions(abouts[0]),
            workers=workers,
            real_time=all(about["real_time"] for about in abouts),
            protocol=payload.protocol,
            client_wait=max(about["wait_s"] / about["elapsed_s"] for about in abouts),
            cores=tuple(client_cores(cores)),
            server_cores=tuple(server_cores(endpoint)),
        ),
        faults=outcome.faults,
    )


def _reasons(abouts: Sequence[dict[str, Any]]) -> dict[int, str]:
    return {int(status): text for about in reversed(abouts) for status, text in about["reasons"].items()}


def _versions(about: dict[str, Any]) -> dict[str, Any]:
    return {name: about[name] for name in ("python", "locust", "gevent", "warmup_errors")}
