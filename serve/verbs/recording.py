"""The verb that records: sampled requests from the edge, by each plan's policy, into encrypted segments."""

import os
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from seatrial.bench.errors import AnswerError
from seatrial.optimize.environment import home
from seatrial.optimize.errors import ConfigError, MachineError
from seatrial.optimize.interrupts import wished
from seatrial.optimize.locking import locked
from seatrial.optimize.terminal import err

from .. import metrics
from ..monitor.captured.policy import Capture
from ..monitor.captured.rows import Captured, Row, rows
from ..monitor.plan import Plan, load_plan
from ..traffic.envoy.exchanges import WHOLE, Body, Exchange

if TYPE_CHECKING:
    from ..monitor.captured.on_vault import Secret, Vault
    from ..traffic.envoy.on_recorder import Listener

Plans = Annotated[
    list[Path], typer.Argument(metavar="PLAN...", help="Monitoring plans with a table capture, one for each model.")
]
_NICE = 10  # the servers of this machine go first
_LOOK = 1.0  # seconds between two looks at the edge
_EXPIRE = 600.0  # seconds between two looks for segments that are too old


def record(
    plans: Plans,
    edge: Annotated[str, typer.Option("--edge", help="The edge's name; required if several are running.")] = "",
    metrics_port: Annotated[
        int, typer.Option(min=0, max=65535, help="Serve http://127.0.0.1:PORT/metrics for Prometheus; 0: off.")
    ] = 0,
) -> None:
    """Keep sampled requests and answers of an edge with a table record, by each plan's policy, in encrypted segments.

    Runs until SIGTERM or Ctrl-C, which close the open segment; a kill loses that segment alone. No answer waits for it:
    what it does not take is dropped by the edge, and counted. Exit codes: 0 ended, 2 a wrong plan or edge, 4 another
    recorder keeps this model.
    """
    from ..traffic.envoy.recording import CLUSTER
    from .edge import _chosen, _up

    chosen = [_with_capture(load_plan(each), each) for each in plans]
    name = _chosen(edge)
    if _up(name).edge.record is None:
        raise ConfigError(
            "the edge records nothing", where=name, next_step="add [record] to its file, then: seatrial edge down, up"
        )
    with suppress(OSError):
        os.nice(_NICE)
    with ExitStack() as stack:
        counted = stack.enter_context(_counting(metrics_port))
        keepers = {each.model: stack.enter_context(_kept(each, capture, counted)) for each, capture in chosen}
        err.print(f"recording {', '.join(sorted(keepers))} at {name} ({CLUSTER}); Ctrl-C ends this")
        stopping = stack.enter_context(wished())
        _serve(name, keepers, counted, stopping)


def _serve(name: str, keepers: "Mapping[str, Keeper]", counted: "Counted", stopping: Callable[[], bool]) -> None:
    """Listen wherever the edge of that name runs, until asked to stop."""
    from ..traffic.envoy import on_envoy
    from ..traffic.envoy.on_recorder import listening

    while not stopping():
        proxy = on_envoy.status(name)
        if proxy is None:
            _each(keepers)
            time.sleep(_LOOK)
            continue
        socket = proxy.places.recorder
        with listening(socket) as listener:
            looked = time.monotonic()
            while not stopping():
                _taken(listener, keepers, counted, _LOOK / 2)
                _each(keepers)
                if time.monotonic() - looked > _LOOK:
                    looked = time.monotonic()
                    if not socket.exists() or not _runs_there(name, socket):
                        break
        while _taken(listener, keepers, counted, 0.05):
            pass
        counted.unreadable(listener.unreadable)


def _runs_there(name: str, socket: Path) -> bool:
    from ..traffic.envoy import on_envoy

    proxy = on_envoy.status(name)
    return proxy is None or proxy.places.recorder == socket


def _each(keepers: "Mapping[str, Keeper]") -> None:
    for keeper in keepers.values():
        keeper.close_due()


def _taken(listener: "Listener", keepers: "Mapping[str, Keeper]", counted: "Counted", seconds: float) -> bool:
    found = listener.take(seconds)
    for exchange in found:
        counted.seen(exchange)
        keeper = keepers.get(exchange.model)
        if keeper is not None:
            keeper.add(exchange)
    return bool(found)


@dataclass(kw_only=True)
class Keeper:
    """What is kept of one model: the open segment, in memory, and the vault that it is sealed into."""

    capture: Capture
    vault: "Vault"
    secret: "Secret"
    counted: "Counted"
    digests: Callable[[str], Mapping[int, str]]
    _open: list[Row] = field(default_factory=list)
    _since: float = 0.0
    _expired: float = 0.0
    _known: dict[int, str] = field(default_factory=dict)

    def add(self, exchange: Exchange) -> None:
        """Decode, keep what the policy allows, and close the segment where it is full."""
        captured = decoded(exchange, self._digest(exchange.version))
        if not self._open:
            self._since = time.monotonic()
        self._open += rows(captured, self.capture, self.secret.hashing)
        self.counted.kept(exchange.model, captured.reason)
        self.close_due()

    def close_due(self) -> None:
        """Close the open segment where it is full or old enough; delete segments that are too old."""
        full = len(self._open) >= self.capture.segment_rows
        if full or (self._open and time.monotonic() - self._since >= self.capture.segment_seconds):
            self.close()
        if time.monotonic() - self._expired > _EXPIRE or not self._expired:
            self._expired = time.monotonic()
            self.vault.forget(self.capture.retention)

    def close(self) -> None:
        """Seal what is open, if anything; where the disk refuses, it stays open and is tried again later."""
        if not self._open:
            return
        try:
            self.vault.seal(self._open, self.capture, self.secret)
        except OSError as error:
            most = 4 * self.capture.segment_rows
            self.counted.failed(self.vault.model, max(0, len(self._open) - most))
            del self._open[: max(0, len(self._open) - most)]
            self._since = time.monotonic()
            err.print(f"a segment of {self.vault.model} cannot be written: {error.strerror or error}", markup=False)
            return
        self.counted.sealed(self.vault.model, len(self._open))
        self._open = []

    def _digest(self, version: int | None) -> str:
        if version is None:
            return ""
        if version not in self._known:
            self._known |= self.digests(self.vault.model)
        return self._known.setdefault(version, "")


def decoded(exchange: Exchange, digest: str) -> Captured:
    """Return an exchange with the tensors that could be decoded, and the reason where one side could not."""
    from ..traffic.shadow import tensors

    inputs, why = _side("request", exchange.asked, tensors.request)
    well = exchange.status == 200 and exchange.grpc_status in ("", "0")
    outputs: Mapping[str, Any] = {}
    if not well:
        why = why or f"failed: {exchange.details or exchange.status}"
    elif exchange.answered.content or exchange.answered.kept != WHOLE:
        outputs, lost = _side("answer", exchange.answered, lambda *body, **how: tensors.answer(*body, **how).outputs)
        why = why or lost
    return Captured(
        request=exchange.id,
        at=exchange.at,
        version=exchange.version,
        digest=digest,
        status=exchange.status,
        grpc_status=exchange.grpc_status,
        seconds=exchange.seconds,
        reason=why,
        worker=exchange.worker,
        sequence=exchange.sequence,
        inputs=inputs,
        outputs=outputs,
    )


def _side(name: str, body: Body, read: Callable[..., Mapping[str, Any]]) -> tuple[Mapping[str, Any], str]:
    if body.kept != WHOLE:
        return {}, f"{name}: {body.kept or 'none'}"
    try:
        found = read(
            body.content,
            content_type=body.content_type,
            content_encoding=body.content_encoding,
            grpc_encoding=body.grpc_encoding,
            header_length=body.header_length or None,
        )
    except AnswerError:  # its text may quote the body
        return {}, f"{name}: unreadable"
    return found, ""


def _with_capture(plan: Plan, path: Path) -> tuple[Plan, Capture]:
    if plan.capture is None:
        raise ConfigError(
            "the plan keeps nothing of requests",
            where=f"{path}: capture",
            next_step="add [capture.fields.NAME] for each field that may be kept (docs/monitoring.md)",
        )
    return plan, plan.capture


@contextmanager
def _kept(plan: Plan, capture: Capture, counted: "Counted") -> Iterator[Keeper]:
    """Hold the model's captured rows for the length of a block, and close the open segment at its end."""
    from ..monitor.captured.on_vault import Vault
    from .edge import _digests

    folder = home() / "watch" / plan.model
    busy = MachineError(
        "another recorder keeps this model", where=str(folder), next_step="end it first: one recorder for each model"
    )
    with locked(folder.with_name(f"{plan.model}.record.lock"), seconds=2.0, busy=busy):
        vault = Vault(model=plan.model, home=folder)
        secret = vault.secret(make=True)
        keeper = Keeper(capture=capture, vault=vault, secret=secret, counted=counted, digests=_digests)
        try:
            yield keeper
        finally:
            keeper.close()


class Counted:
    """Counts nothing; `_Metrics` does."""

    def seen(self, exchange: Exchange) -> None:
        """Take note of a sampled request that arrived."""

    def kept(self, model: str, reason: str) -> None:
        """Take note of one that a plan asked for."""

    def sealed(self, model: str, count: int) -> None:
        """Take note of rows that are on disk."""

    def failed(self, model: str, count: int) -> None:
        """Take note of a segment that could not be written, and of rows given up for it."""

    def unreadable(self, count: int) -> None:
        """Take note of messages that were no entries of the log."""


class _Metrics(Counted):
    """The recorder's metrics; its own loss is one of them."""

    def __init__(self, registry: Any) -> None:
        from prometheus_client import Counter, Gauge

        self._arrived = Counter(
            "seatrial_capture_arrived", "Sampled requests that reached the recorder.", ("model",), registry=registry
        )
        self._kept = Counter(
            "seatrial_capture_kept",
            "Requests kept, by what is missing of them.",
            ("model", "missing"),
            registry=registry,
        )
        self._rows = Counter("seatrial_capture_rows", "Rows in closed segments.", ("model",), registry=registry)
        self._failed = Counter(
            "seatrial_capture_failed_writes", "Segments that could not be written.", ("model",), registry=registry
        )
        self._given_up = Counter(
            "seatrial_capture_given_up_rows", "Rows given up: the disk took none.", ("model",), registry=registry
        )
        self._unreadable = Counter("seatrial_capture_unreadable", "Messages that were no log.", registry=registry)
        lost = Gauge("seatrial_capture_lost", "Sampled requests that never came, since the start.", registry=registry)
        lost.set_function(lambda: float(self.loss.lost))
        self.loss = Loss()

    def seen(self, exchange: Exchange) -> None:
        self._arrived.labels(exchange.model).inc()
        self.loss.add(exchange.worker, exchange.sequence)

    def kept(self, model: str, reason: str) -> None:
        self._kept.labels(model, reason.partition(" (")[0] if not reason.startswith("failed") else "failed").inc()

    def sealed(self, model: str, count: int) -> None:
        self._rows.labels(model).inc(count)

    def failed(self, model: str, count: int) -> None:
        self._failed.labels(model).inc()
        self._given_up.labels(model).inc(count)

    def unreadable(self, count: int) -> None:
        self._unreadable.inc(count)


class Loss:
    """Sampled requests that never came, by the numbers that each worker of the edge gave them.

    Those under way count until they come.
    """

    def __init__(self) -> None:
        self._workers: dict[str, tuple[int, int, int]] = {}

    def add(self, worker: str, sequence: int) -> None:
        """Take note of one that came."""
        first, last, count = self._workers.get(worker, (sequence, sequence, 0))
        self._workers[worker] = min(first, sequence), max(last, sequence), count + 1

    @property
    def lost(self) -> int:
        """Return how many numbers between the first and the last that came are missing."""
        return sum(last - first + 1 - count for first, last, count in self._workers.values())


@contextmanager
def _counting(port: int) -> Iterator[Counted]:
    if not port:
        yield Counted()
        return
    registry = metrics.registry()
    with metrics.Endpoint(registry, port):
        yield _Metrics(registry)
