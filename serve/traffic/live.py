"""The live world: the Envoy and the Triton that are up on this machine, as a rollout's controller reaches them.

Finds them, checks that a rollout can be judged on them, and joins the parts; moves nothing by itself.
"""

from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from pathlib import Path

from seatrial.optimize.errors import ConfigError, MissingError, SeatrialError
from seatrial.optimize.store import Store
from seatrial.optimize.units import format_count

from ..errors import ServerError
from ..triton.proof.replaying import reference, replayed
from ..triton.repository.placement import Placement, placements
from ..triton.running import on_pytriton
from ..triton.server import Server
from ..triton.supervision.fleet import TritonFleet
from .edge import Capturing
from .envoy import access_log, on_capture, on_envoy
from .envoy.proxy import Proxy, read, running
from .envoy.router import EnvoyRouter
from .rollout.controller import RolloutPorts
from .rollout.evidence import Judgement
from .rollout.machine import Phase, Rollout
from .rollout.steady import SteadyClock
from .seen import Seen
from .shadow.agreement import ANY, UNSAID
from .shadow.joining import Shadow
from .trailed import trailed


@dataclass(frozen=True, slots=True, kw_only=True)
class LiveSite:
    """Site of a rollout: one edge before one server."""

    proxy: Proxy
    server: Server

    def stable(self, model: str) -> int:
        """The version that takes the model's traffic now.

        Raises:
            ConfigError: the edge does not offer the model.
            RouterError: the edge does not say.
        """
        routes = EnvoyRouter(self.proxy).current(model)
        return self.proxy.edge.model(model).stable if routes is None else routes.stable

    def placement(self, model: str, version: int) -> Placement:
        """Return the placement of that version.

        Raises:
            MissingError: it was not.
        """
        known = {each.version: each for each in placements(self.server.repository, model)}
        if version not in known:
            raise MissingError(
                f"{model} has no version {version}",
                where=str(self.server.repository),
                next_step=f"placed versions: {sorted(known)}; place one with seatrial place"
                if known
                else "place the model with seatrial place",
            )
        return known[version]

    def digests(self, model: str) -> dict[int, str]:
        """Return the artifact of each placed version of the model."""
        return {each.version: each.digest for each in placements(self.server.repository, model)}


def find(edge: str = "") -> LiveSite:
    """The server that is up and the edge of that name (default: the only one), also while either is being brought back.

    Raises:
        ServerError: no server is up.
        MissingError: no such edge is up, or several are and none was named.
    """
    server = on_pytriton.wanted()
    if server is None:
        raise ServerError(
            "no server is running", next_step="start one with seatrial up, and seatrial supervise beside it"
        )
    names = on_envoy.names()
    if not (edge in names or (not edge and len(names) == 1)):
        raise MissingError(
            f"edge {edge!r} is not running"
            if edge
            else ("several edges are running" if names else "no edge is running"),
            where=", ".join(names),
            next_step="select one with --edge" if names else "start one: seatrial edge up EDGE.toml",
        )
    proxy = read(on_envoy.folder_of(edge or names[0]))
    if proxy is None:
        raise MissingError(
            "the edge was just stopped", where=edge or names[0], next_step="start it again: seatrial edge up"
        )
    return LiveSite(proxy=proxy, server=server)


def world(
    place: LiveSite, rollout: Rollout, store: Store, *, complain: Callable[[str], None] = lambda text: None
) -> RolloutPorts:
    """Everything that a controller of this rollout reaches. `complain` is told why routes are not in the trail.

    Raises:
        ConfigError: on this edge the rollout could not be judged; says why.
        MissingError: a version is not placed.
    """
    place.placement(rollout.model, rollout.stable)
    placement = place.placement(rollout.model, rollout.candidate)
    _check(place, rollout, comparable=reference(placement, store) is not None)
    log, clock = place.proxy.places.access_log, SteadyClock(after=max(rollout.started, rollout.entered, rollout.routed))
    comparing = _Comparing(place, rollout, clock)
    return RolloutPorts(
        router=EnvoyRouter(place.proxy, applied=trailed(place.digests, complain)),
        fleet=TritonFleet(on_pytriton.status, load=rollout.plan.load),
        seen=Following(log, _from(log, rollout, clock), clock),
        golden=_replaying(placement, rollout, store),
        agreement=comparing.look,
        close=comparing.forget,
        clock=clock,
    )


def _from(log: Path, rollout: Rollout, clock: SteadyClock) -> access_log.LogPosition:
    """The log's beginning where the rollout counts already; its end where it does not, or where the machine's clock was
    set back since: what was counted before could not be told from what is new.
    """
    again = rollout.active is Phase.STEP and not clock.correction()
    return access_log.LogPosition() if again else access_log.end(log)


class Following:
    """An access log as it grows; each call gives what was written since the last, in the time of `clock`."""

    def __init__(self, log: Path, place: access_log.LogPosition, clock: SteadyClock | None = None) -> None:
        self._log, self._place, self._clock = log, place, clock or SteadyClock()

    def __call__(self) -> Iterable[Seen]:
        """Return the new records."""
        found, self._place = access_log.read(self._log, self._place)
        late = self._clock.correction()
        return [replace(each, at=each.at + late) for each in found] if late else found


def _check(place: LiveSite, rollout: Rollout, *, comparable: bool) -> None:
    edge, shadow = place.proxy.edge, rollout.plan.shadow
    model = edge.model(rollout.model)

    def refuse(wrong: bool, what: str, fix: str) -> None:
        if wrong:
            raise ConfigError(what, where=f"edge {edge.name}, model {model.name}", next_step=fix)

    ours = {edge.server.http.rpartition(":")[2], edge.server.grpc.rpartition(":")[2]}
    refuse(
        ours != {str(place.server.http_port), str(place.server.grpc_port)},
        (f"the edge leads to {edge.server.http} and {edge.server.grpc}, but the running server is {place.server.url}"),
        "name the running server in the edge's [server]",
    )
    refuse(edge.shadow is not None, "copies go to another server, which this rollout does not load", "omit [shadow]")
    refuse(
        model.fallback is not None,
        "a fallback answers in place of a failing candidate, so its failures would not be visible",
        "omit the fallback while a version is on trial",
    )
    refuse(
        shadow is not None and edge.capture is None,
        "the plan compares mirrored answers, but this edge captures none",
        "add [capture] to the edge and start it again, or set mirror = 0 in the plan's [shadow]",
    )
    refuse(
        shadow is None and not comparable,
        "the candidate's answers cannot be compared: there is no mirror and no ONNX artifact of it in the store",
        "set a mirror in the plan's [shadow]",
    )


def _replaying(placement: Placement, rollout: Rollout, store: Store) -> Callable[[], Judgement]:
    def look() -> Judgement:
        artifact, server = reference(placement, store), on_pytriton.status()
        if artifact is None:
            said = (
                "there is no ONNX artifact to compare with; the model loaded and answered in the right form, "
                "and the mirror compares"
            )
            return Judgement(outcome="PASS", reasons=(f"golden: {said}",))
        if server is None:
            raise ServerError("no server is running", next_step="wait until seatrial supervise restarts it")
        report = replayed(server, placement, artifact, store)
        return Judgement(outcome="PASS" if report.passed else "FAIL", reasons=(str(report),))

    return look


class _Comparing:
    """The shadow comparison of one rollout, from its beginning however often the controller was started anew."""

    def __init__(self, place: LiveSite, rollout: Rollout, clock: SteadyClock) -> None:
        self._folder, self._rollout, self._clock = place.proxy.folder, rollout, clock
        self._shadow = Shadow(stable=rollout.stable, candidate=rollout.candidate)
        self._collector = on_capture.Collector(
            place.proxy.places.capture,
            self._reopen,
            ttl=(place.proxy.edge.capture or Capturing()).keep_seconds,
        )

    def look(self) -> Judgement:
        """Judge all copied requests so far."""
        plan = self._rollout.plan.shadow
        if plan is None:
            return Judgement(outcome="PASS", reasons=("the plan compares nothing",))
        found = on_capture.look(
            self._collector,
            self._shadow,
            plan.outputs or {ANY: UNSAID},
            compared_at_least=plan.compared_at_least,
            mine=self._is_mine,
        )
        forecast = f"needs about {format_count(found.needed)} more compared requests" if found.needed else ""
        told = found.reasons or (f"{found.compared} mirrored requests were answered alike",)
        return Judgement(outcome=found.outcome, reasons=told, forecast=forecast)

    def _is_mine(self, record: on_capture.Recorded) -> bool:
        mine = self._rollout.stable if record.arm == "stable" else self._rollout.candidate
        named = (record.model, record.version) == (self._rollout.model, mine)
        return named and record.at + self._clock.correction() >= self._rollout.started

    def forget(self) -> None:
        """Delete the captured answers, which are no longer needed."""
        if (proxy := read(self._folder)) is None or proxy.edge.capture is None:
            return
        self._collector.forget_all()
        on_capture.make_private(proxy.places.capture)
        self._reopen()

    def _reopen(self) -> None:
        """Of the process of now; one that is down opens its files when it comes back."""
        proxy = read(self._folder)
        try:
            if proxy is not None and running(proxy):
                proxy.admin.reopen_logs()
        except SeatrialError:  # killed at this moment
            return
