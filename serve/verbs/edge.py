"""Verbs of the edge: check one, start and stop it, see and set which version takes which share."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated

import typer

from seatrial.optimize import config
from seatrial.optimize.errors import MissingError
from seatrial.optimize.interrupts import wished
from seatrial.optimize.tables import table
from seatrial.optimize.terminal import Json, emit, err, out, progress

from .. import metrics
from ..traffic.edge import Edge
from ..traffic.envoy import keeping
from ..traffic.envoy.metering import EdgeMeter, MeteredEdge
from ..traffic.envoy.proxy import Proxy
from ..traffic.envoy.router import EnvoyRouter
from ..traffic.envoy.routes import RouteTable
from ..traffic.envoy.watching import LOOK_SECONDS, Watcher
from ..traffic.routes import Routes
from ..traffic.trailed import trailed
from ..triton.running.crashes import crashed_since

edge = typer.Typer(
    no_args_is_help=True, help="The proxy before the models: validate its file, start, stop and watch it."
)
routes = typer.Typer(no_args_is_help=True, help="The distribution of a model's requests over its versions.")

File = Annotated[Path, typer.Argument(help="An edge (TOML), for instance serve/edges/scenes.toml.", metavar="EDGE")]
Name = Annotated[str, typer.Argument(help="The edge's name; required if several are running.", metavar="[NAME]")]
At = Annotated[str, typer.Option("--edge", help="The edge's name; required if several are running.")]


@edge.command()
def check(file: File, json_: Json = False) -> None:
    """Validate the configuration of EDGE with Envoy itself; nothing is started or written."""
    from ..traffic.envoy import on_envoy

    chosen = _load(file)
    on_envoy.check(chosen, RouteTable())
    if json_:
        emit({"edge": chosen.name, "ok": True})
    else:
        out.print(f"OK: Envoy accepts {file}", highlight=False)


@edge.command()
def up(file: File, json_: Json = False) -> None:
    """Start the edge and leave it running, with its previous routes.

    It listens on 127.0.0.1 unless the file sets another address, with keys and encryption. edge watch restarts a killed
    edge.
    """
    from ..traffic.envoy import on_envoy

    chosen = _load(file)
    with progress() as report:
        report("edge", 0.1, "starting Envoy")
        proxy = on_envoy.up(chosen)
        report("edge", 1.0, "ready")
    _tell(proxy, json_=json_)


@edge.command()
def down(name: Name = "", json_: Json = False) -> None:
    """Drain the clients, complete running requests, and stop the edge. Its routes stay for the next start."""
    from ..traffic.envoy import on_envoy

    known = on_envoy.names()
    stopped = on_envoy.down(_chosen(name)) if known or name else False
    if json_:
        emit({"stopped": stopped})
    else:
        out.print("the edge was stopped" if stopped else "no edge was running")


@edge.command()
def status(name: Name = "", json_: Json = False) -> None:
    """Show the state of the edge: routes as reported by Envoy, and requests in flight."""
    _tell(_up(name), json_=json_)


@edge.command()
def watch(
    name: Name = "",
    metrics_port: Annotated[
        int, typer.Option(min=0, max=65535, help="Serve http://127.0.0.1:PORT/metrics for Prometheus; 0: off.")
    ] = 0,
) -> None:
    """Restart the edge when it is killed, bound its log, keep models' slo_ms, and refuse bodies that crash a server.

    Runs until edge down, SIGTERM or Ctrl-C. A body that was in flight when a server crashed, and that no server ever
    answered, is refused afterwards with status 422 (edge quarantine shows and lifts that).
    """
    proxy = _up(name)
    err.print("watching; Ctrl-C ends this, and the edge keeps running")
    with _metered(metrics_port) as meter, wished() as stopping:
        watcher = Watcher(proxy, meter=meter, crashed=crashed_since)
        watching = keeping.watch(proxy.folder, look=watcher.look, look_every=LOOK_SECONDS, meter=meter, stop=stopping)
        for event in watching:
            err.print(event, markup=False, highlight=False)


@edge.command()
def quarantine(
    name: Name = "",
    clear: Annotated[bool, typer.Option("--clear", help="Lift the quarantine of all bodies.")] = False,
    json_: Json = False,
) -> None:
    """Show the digests of bodies that are refused because they crashed a server."""
    router = EnvoyRouter(_up(name))
    found = router.quarantine()
    if clear:
        router.pardon()
    if json_:
        emit({"quarantine": found, "cleared": clear})
    else:
        out.print("\n".join(found) or "no body is in quarantine", highlight=False)
        if clear and found:
            out.print(f"{len(found)} bodies were released from quarantine")


@contextmanager
def _metered(port: int) -> Iterator[EdgeMeter]:
    if not port:
        yield EdgeMeter()
        return

    registry = metrics.registry()
    with metrics.Endpoint(registry, port):
        yield MeteredEdge(registry)


@routes.command()
def show(
    model: Annotated[str, typer.Argument(help="One model; default: all.", metavar="[MODEL]")] = "",
    at: At = "",
    json_: Json = False,
) -> None:
    """Show the fraction of requests of each version, as reported by Envoy."""
    proxy = _up(at)
    found = _routes(proxy)
    if model:
        proxy.edge.model(model)
        found = [each for each in found if each.model == model]
    if json_:
        emit(found)
    else:
        _table(found)


@routes.command("set")
def set_(
    model: Annotated[str, typer.Argument(help="A model of the edge.")],
    stable: Annotated[int, typer.Option(help="The version for the requests that the candidate does not take.")],
    candidate: Annotated[int | None, typer.Option(help="The version on trial.")] = None,
    share: Annotated[float, typer.Option(help="The candidate's fraction of requests, 0 to 1.")] = 0.0,
    mirror: Annotated[float, typer.Option(help="The fraction copied to the candidate, 0 to 1.")] = 0.0,
    at: At = "",
    json_: Json = False,
) -> None:
    """Set a model's routes: validated by Envoy, in force on return, read back. No request is lost.

    Users keep their version: a larger fraction moves no user off the candidate.
    """
    wanted = Routes(model=model, stable=stable, candidate=candidate, share=share, mirror=mirror)
    proxy = _up(at)
    EnvoyRouter(proxy, applied=trailed(_digests, _complain)).apply(wanted)
    if json_:
        emit(wanted)
    else:
        _table([wanted])


def _complain(text: str) -> None:
    err.print(text, markup=False, soft_wrap=True)


def _digests(model: str) -> dict[int, str]:
    """Return the artifact of each version that lies in the running server's repository."""
    from ..triton.repository.placement import placements
    from ..triton.running import on_pytriton

    server = on_pytriton.wanted()
    return {} if server is None else {each.version: each.digest for each in placements(server.repository, model)}


def _load(file: Path) -> Edge:
    return config.load(file, Edge).beside(file.parent.absolute())


def _chosen(name: str) -> str:
    from ..traffic.envoy import on_envoy

    known = on_envoy.names()
    if name in known or (not name and len(known) == 1):
        return name or known[0]
    raise MissingError(
        f"edge {name!r} is not running" if name else ("several edges are running" if known else "no edge is running"),
        where=", ".join(known),
        next_step="name one of them" if known else "start one: seatrial edge up EDGE.toml",
    )


def _up(name: str) -> Proxy:
    from ..traffic.envoy import on_envoy

    chosen = _chosen(name)
    proxy = on_envoy.status(chosen)
    if proxy is None:
        raise MissingError(
            f"the edge {chosen} was killed",
            where=str(on_envoy.folder_of(chosen)),
            next_step="start it again: seatrial edge up EDGE.toml",
        )
    return proxy


def _routes(proxy: Proxy) -> list[Routes]:
    router = EnvoyRouter(proxy)
    found = [router.current(model.name) for model in proxy.edge.models]
    return [each for each in found if each is not None]


def _tell(proxy: Proxy, *, json_: bool) -> None:
    found = _routes(proxy)
    if json_:
        about = {"edge": proxy.edge.name, "pid": proxy.pid, "url": proxy.url, "under_way": proxy.admin.requests()}
        logs = {"access_log": str(proxy.places.access_log), "log": str(proxy.log)}
        emit(about | logs | {"routes": found})
        return
    out.print(
        f"the edge {proxy.edge.name} is running: {proxy.url} (HTTP and gRPC), "
        f"{proxy.admin.requests()} requests in flight"
    )
    _table(found)
    out.print(f"access log: {proxy.places.access_log}", soft_wrap=True, highlight=False)


def _table(found: list[Routes]) -> None:
    head = ("model", "stable", "candidate", "share", "copied")
    rows = (
        (
            each.model,
            str(each.stable),
            str(each.candidate or ""),
            *("" if each.candidate is None else f"{value:.4g}" for value in (each.share, each.mirror)),
        )
        for each in found
    )
    out.print(table(head, rows, left=head, look="boxed"))
