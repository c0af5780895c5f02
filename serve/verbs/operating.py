"""Verbs that run a server: up, down, switch, supervise; thin skins over the library functions of the same names."""

import json
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict
from typing import Annotated, Any

import typer

from seatrial.optimize import environment as machine
from seatrial.optimize.interrupts import wished
from seatrial.optimize.names import checked
from seatrial.optimize.terminal import Json, echo, emit, err, out, progress, store

from .. import metrics
from ..errors import ServerError
from ..triton.control import Control
from ..triton.repository import journal
from ..triton.repository.entries import shown
from ..triton.repository.placement import models
from ..triton.repository.vouching import check, placed
from ..triton.server import Server
from ..triton.supervision import lasting
from ..triton.supervision.cache_worth import response_cache_pays
from ..triton.supervision.healing import Backoff
from ..triton.supervision.metering import UNMETERED, Meter, Metered
from ..triton.supervision.supervisor import Pace
from ..triton.supervision.supervisor import supervise as watching
from ..triton.supervision.switch import forgive
from ..triton.supervision.switch import switch as switching
from .options import DEFAULT_REPOSITORY, Repository

Deadline = Annotated[
    float,
    typer.Option(min=0.01, max=3600.0, help="Timeout of a golden request in seconds; raise it for slow models."),
]
DEADLINE = 2.0
LONGEST_PAUSE = 300.0


def up(
    model: Annotated[
        list[str] | None, typer.Option(help="Models to load; default: all that seatrial placed, and those allowed.")
    ] = None,
    repository: Repository = DEFAULT_REPOSITORY,
    http_port: Annotated[int, typer.Option(help="0 chooses a free one.")] = 8000,
    grpc_port: Annotated[int, typer.Option(help="0 chooses a free one.")] = 8001,
    metrics_port: Annotated[int, typer.Option(help="0 chooses a free one.")] = 8002,
    allow_foreign: Annotated[
        list[str] | None,
        typer.Option(help="Load this model although seatrial did not place it: you vouch for its code."),
    ] = None,
    supervised: Annotated[
        bool, typer.Option("--supervise", help="Stay in the foreground as its supervisor (see seatrial supervise).")
    ] = False,
    json_: Json = False,
) -> None:
    """Start the real Triton on loopback with the placed models, and leave it running until seatrial down.

    Refuses changed bytes or code of placed versions, added files, links, and files that other users can change. A model
    that seatrial did not place is loaded only with --allow-foreign MODEL.
    """
    allowed = tuple(allow_foreign or ())
    chosen = tuple(checked(each, "model name", where=str(repository)) for each in model or models(repository))
    names, left = (chosen, ()) if model else placed(repository, chosen, allowed)
    for each in left:
        err.print(f"not loaded: {shown(each)} was not placed by seatrial (--allow-foreign)", markup=False)
    notes = check(repository, names, store(), foreign=allowed)
    for note in notes:
        err.print(f"not verified by seatrial: {note.where}: {note.seen}", markup=False, soft_wrap=True)
    with progress() as report:
        report("up", 0.1, f"starting Triton, loading {', '.join(names) or 'nothing'}")
        server = lasting.up(
            repository, names, http_port=http_port, grpc_port=grpc_port, metrics_port=metrics_port, foreign=allowed
        )
        report("up", 1.0, "ready")
    with Control.to(server) as control:
        states = control.index()
    if json_:
        emit(server.to_json() | {"models": [{"name": s.name, "version": s.version, "state": s.state} for s in states]})
    else:
        out.print(f"Triton is running: http {server.url}, grpc {server.grpc_url}, metrics {server.metrics_url}")
        for state in (each for each in states if each.state):  # the others lie in the repository, not asked for
            out.print(f"  {state.name} version {state.version}: {state.state} {state.reason}".rstrip())
        out.print(f"log: {server.log}", soft_wrap=True)
    if supervised:
        supervise(json_=json_)


def down(
    drain: Annotated[float, typer.Option(help="Seconds to answer waiting requests before the stop.")] = 30.0,
    json_: Json = False,
) -> None:
    """Stop the server of seatrial up: answer waiting requests, unload the models, then end it.

    Redirect traffic first: a stopping server resets late connections.
    """
    from ..triton.running import on_pytriton

    drained = on_pytriton.down(timeout=drain)
    if json_:
        emit({"stopped": drained is not None, "drained": drained})
    elif drained is None:
        out.print("no server was running")
    else:
        left = "" if drained.empty else ", but requests were still in flight and may have been lost"
        out.print(f"Triton was stopped, drained in {drained.seconds:.1f} s{left}")


def switch(
    model: Annotated[str, typer.Argument(help="A placed model of the running server.")],
    versions: Annotated[
        list[int] | None, typer.Argument(help="Versions to serve from now on; default: only show.")
    ] = None,
    retry: Annotated[
        bool, typer.Option("--retry", help="Forget the model's failed loads, which are refused after three tries.")
    ] = False,
    json_: Json = False,
) -> None:
    """Serve exactly these VERSIONS of MODEL: promote, roll back, or run two side by side.

    New versions are checked, loaded beside the serving ones and proven by a golden request before any is unloaded; a
    failing version changes nothing. Versions that keep serving are not touched. Disk and server agree afterwards, and
    the next switch, up or supervise finishes or undoes a crashed switch.

    A canary: seatrial switch scenes 3 4 | Promote: seatrial switch scenes 4 | Roll back: seatrial switch scenes 3

    Unversioned requests go to the highest version at once: callers must name theirs. With live traffic use a rollout.
    """
    checked(model, "model name")
    server = _server()
    if retry:
        forgive(server.repository, model)
    if not versions:
        _show(server, model, json_)
        return
    with progress() as report, Control.to(server) as control:
        report("switch", 0.1, f"{model} to {versions}")
        made = switching(control, server.repository, model, tuple(versions))
        report("switch", 1.0, "done")
    if json_:
        emit(made)
    else:
        loaded = f", loaded {list(made.loaded)}" if made.loaded else ""
        out.print(
            f"{model}: {list(made.before)} -> {list(made.after)}{loaded}; in force after {made.seconds * 1e3:.1f} ms, "
            f"on disk and read back after {made.total * 1e3:.1f} ms"
        )
        for note in made.unverified:
            err.print(f"not verified by seatrial: {note}", markup=False, soft_wrap=True)
        if made.drift:
            err.print(
                f"config.pbtxt was changed since {model} was loaded, and takes effect at its next load: {made.drift}"
            )


def _show(server: Server, model: str, json_: bool) -> None:
    """Print the state of a model by server, disk and journal."""
    from ..triton.repository.placing import chosen

    with Control.to(server) as control:
        ready = sorted(control.ready_versions(model))
        worths = {version: response_cache_pays(control.statistics(model, version)) for version in ready}
    caches = {version: worth for version, worth in worths.items() if worth is not None}
    entry, disk = journal.read(server.repository, model), list(chosen(server.repository, model))
    if json_:
        last = None if entry is None else asdict(entry)
        emit({"model": model, "server": ready, "disk": disk, "last": last, "response_cache": caches})
        return
    out.print(f"{model}: the server serves {ready}, config.pbtxt lists {disk}")
    for version, worth in caches.items():
        out.print(f"response cache of version {version}: {worth}", soft_wrap=True)
    if entry is not None:
        out.print(f"last switch, {entry.at}: {list(entry.before)} -> {list(entry.after)} ({entry.state})")
        for digest, failure in entry.failures.items():
            out.print(f"failed {failure.tries} times: {digest[:19]}: {failure.reason}", soft_wrap=True)


def supervise(
    deadline: Deadline = DEADLINE,
    period: Annotated[float, typer.Option(min=0.01, max=3600.0, help="Seconds between two checks.")] = 0.5,
    attempts: Annotated[
        int, typer.Option(min=1, help="Consecutive attempts after which a version or the server counts as resting.")
    ] = 5,
    longest_pause: Annotated[
        float, typer.Option(min=1.0, max=86400.0, help="Maximum seconds between two attempts.")
    ] = LONGEST_PAUSE,
    metrics_port: Annotated[
        int, typer.Option(min=0, max=65535, help="Serve http://127.0.0.1:PORT/metrics for Prometheus; 0: off.")
    ] = 0,
    json_: Json = False,
) -> None:
    """Watch the running server and restore dead or stalled parts: Triton itself reports a dead model as ready.

    Runs in the foreground, for a terminal or systemd, until the server is stopped or Ctrl-C (exit 0). A golden request
    detects an unhealthy version, which is reloaded while the others serve. A dead or hanging server is restarted on its
    ports with its versions. Attempts pause 1, 2, 4 ... seconds, at most --longest-pause, without end; after two calm
    minutes the pauses are short again. Events: SEATRIAL_HOME/triton/supervision/events.jsonl.

    A systemd unit:  ExecStart=/path/to/seatrial supervise   Restart=on-failure   KillMode=process
    """
    from ..triton.running import on_pytriton

    _server(wanted=True)
    pace = Pace(period=period, deadline=deadline, backoff=Backoff(limit=attempts, ceiling=longest_pause))
    with _metered(metrics_port) as meter, wished() as stopping:
        watching(
            on_pytriton.wanted,
            on_pytriton.restart,
            pace=pace,
            tell=lambda event: _tell(event, json_),
            stop=stopping,
            meter=meter,
        )


@contextmanager
def _metered(port: int) -> Iterator[Meter]:
    """A meter that is read on that loopback port, or one that counts nothing where the port is 0."""
    if not port:
        yield UNMETERED
        return

    registry = metrics.registry()
    with metrics.Endpoint(registry, port):
        yield Metered(registry)


def _tell(event: dict[str, Any], json_: bool) -> None:
    if json_:
        echo(json.dumps(event))
        return
    rest = ", ".join(
        f"{key} {value}" for key, value in event.items() if key not in ("at", "event", "subject") and value
    )
    err.print(f"{event['at']}  {event['subject']}: {event['event']}" + (f"  ({rest})" if rest else ""), soft_wrap=True)


def _server(*, wanted: bool = False) -> Server:
    """The server that is up, or that was and may have died."""
    from ..triton.running import on_pytriton

    server = on_pytriton.wanted() if wanted else on_pytriton.status()
    if server is None:
        raise ServerError("no server is running", where=str(machine.home()), next_step="start one: seatrial up")
    return server
