"""The real Triton server from the nvidia-pytriton wheel: start one, stop it, keep one up.

Owns the server's process and its files. Servers bind to 127.0.0.1, load the named models only (explicit mode), and
write to a log. A server counts as started only when its own process listens on the ports: a second server on a taken
port fails while the first one goes on answering there.
"""

import os
import secrets
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

from seatrial.optimize import guarding
from seatrial.optimize.environment import environment, home
from seatrial.optimize.interrupts import held

from ...errors import ModelLoadError, ServerError
from ...processes import alive, end, free_ports, holder, is_taken, kill, listening, reap, start_ticks, wait
from ..compiler.flags import flags_for
from ..control import Control
from ..repository import vouching
from ..server import Server as Server
from ..server import log_errors
from . import record, wheel
from .drain import Drained, drain
from .leftovers import clear, new_name, servers, sweep_servers
from .plain import plain

_STARTS = 3
_RESTRICTING = ("http-restricted-api", "grpc-restricted-protocol")
_CLOSED = "trace,logging"  # never requested by seatrial, so the key is stored nowhere
_EMPTY_SECONDS, _HUNG_SECONDS = 1.5, 1.0  # Triton checks once a second whether its models are unloaded
_LOAD_SECONDS = 120.0  # at least, for each model; a larger timeout counts here too


def start(
    repository: Path,
    *,
    models: Sequence[str] = (),
    http_port: int = 0,
    grpc_port: int = 0,
    metrics_port: int = 0,
    log: Path | None = None,
    timeout: float = 60.0,
    foreign: Sequence[str] | None = None,
) -> Server:
    """Start a server on a repository and load `models`; port 0 picks a free one. `timeout` (seconds) is for its start.

    `foreign`: models of other origin that the caller vouches for; None compares nothing (`vouching.before_load`).

    It is started for what their configurations need of it (`flags`), or those of all models where none is named.

    Stop it, or use `serving`: a server whose owner has died ends with it, or else at the next start on this machine.
    `up` is for one that stays.

    Raises:
        ServerError: a port is taken, the wheel or a library is missing, or the server died or did not answer.
        ConfigRuleError: two of the models cannot be served by one server.
        ModelLoadError: a model did not load; quotes the server's reason. The server is stopped.
        IntegrityError, ConfigError: a model is not what was placed; so is it then.
    """
    ports = (http_port, grpc_port, metrics_port)
    for attempt in range(_STARTS):
        try:
            server = _started(repository, models, ports, log, timeout)
            break
        except _PortTaken:
            if all(ports) or attempt == _STARTS - 1:
                raise
    server = replace(server, foreign=None if foreign is None else tuple(foreign))
    try:
        load(server, models, timeout=max(timeout, _LOAD_SECONDS))
    except BaseException:
        discard(server)
        raise
    return server


def stop(server: Server, *, timeout: float = 15.0) -> None:
    """End the server: SIGTERM, and after `timeout` seconds SIGKILL; then clear away what it left.

    Requests that are running complete. An idle keep-alive connection makes it wait five seconds. It looks once a second
    whether its models are gone, so a server whose models were unloaded before stops sooner.
    """
    with held():
        end(server.pid, server.started, timeout=timeout)
        _gone(server.pid, server.scratch, server.shm_prefix)


def restart(server: Server, models: Sequence[str]) -> Server | None:
    """Start the server that is `up` again: same repository, same ports, these models; None if it was taken down.

    A model that does not load keeps none of the others out. Its log is a new one.

    Raises:
        ServerError: it does not start.
    """
    with record.lock():
        there = wanted()
        if there is None or (there != server and running(there)):
            return there
        stop(server, timeout=_HUNG_SECONDS)
        ports = (server.http_port, server.grpc_port, server.metrics_port)
        loaded = (*server.models, *models) if server.models else ()
        again = _started(server.repository, loaded, ports, None, 60.0)
        again = replace(again, models=server.models, foreign=server.foreign)
        try:
            _remember(again)
        except BaseException:
            discard(again)
            raise
    for name in models:
        with suppress(ModelLoadError, *vouching.REFUSALS):
            load(again, (name,))
    return again


def discard(server: Server) -> None:
    """End the server at once, and clear away what it left: for one that was thrown up for a measurement or a proof.

    SIGKILL: a graceful exit polls once a second, needless for a throwaway server.
    """
    with held():
        kill(server.pid, server.started)
        _gone(server.pid, server.scratch, server.shm_prefix)


def _gone(pid: int, scratch: Path, prefix: str) -> None:
    clear(scratch, prefix)
    guarding.release(pid)


def running(server: Server) -> bool:
    """Return whether that very process still runs, even if its number or ports were reused."""
    return alive(server.pid, server.started)


@contextmanager
def serving(
    repository: Path,
    models: Sequence[str] = (),
    *,
    http_port: int = 0,
    grpc_port: int = 0,
    metrics_port: int = 0,
    timeout: float = 60.0,
    foreign: Sequence[str] | None = None,
) -> Iterator[Server]:
    """A server for the length of a block; discarded afterwards, however the block ends. `foreign`: as `start`."""
    ports: dict[str, Any] = {"http_port": http_port, "grpc_port": grpc_port, "metrics_port": metrics_port}
    server = start(repository, models=models, **ports, timeout=timeout, foreign=foreign)
    try:
        yield server
    finally:
        discard(server)


class _PortTaken(ServerError):
    """A port was taken, before or while the server started; worth another try if we chose it."""


def _started(
    repository: Path, models: Sequence[str], wanted: tuple[int, int, int], log: Path | None, timeout: float
) -> Server:
    repository = repository.absolute()
    if not repository.is_dir():
        raise ServerError(
            "there is no such model repository", where=str(repository), next_step="place a model there first"
        )
    flags = flags_for(repository, models)
    sweep_servers()
    ports = tuple(port or free for port, free in zip(wanted, free_ports(3), strict=True))
    _check_ports(ports)
    root, name = wheel.installed(), new_name()
    scratch, prefix = servers() / name, f"seatrial_{name.rpartition('-')[2]}_"
    scratch.mkdir(parents=True)
    log = (log or home() / "triton" / "logs" / f"{name}.log").absolute()
    log.parent.mkdir(parents=True, exist_ok=True)
    pid = 0
    try:
        command = _command(root, repository, ports, prefix) + _meant(root, flags)
        environment = wheel.surroundings(plain(scratch))
        with held():
            pid = _spawn(command, environment, log)
            guarding.guard(pid, folders=(scratch,), shm=prefix)
        server = Server(
            pid=pid,
            started=start_ticks(pid) or 0,
            http_port=ports[0],
            grpc_port=ports[1],
            metrics_port=ports[2],
            repository=repository,
            log=log,
            scratch=scratch,
            shm_prefix=prefix,
        )
        server.write(scratch / "server.json")
        _await_ready(server, timeout)
    except BaseException:
        with held():
            if pid:
                kill(pid, start_ticks(pid) or 0)
            _gone(pid, scratch, prefix)
        raise
    return server


def _command(root: Path, repository: Path, ports: Sequence[int], prefix: str) -> list[str]:
    command = [str(wheel.binary(root)), f"--model-repository={plain(repository)}"]
    command += [f"--backend-directory={plain(wheel.backends(root, home() / 'triton'))}"]
    for side, port in zip(("http", "grpc", "metrics"), ports, strict=True):
        command += [f"--{side}-address=127.0.0.1", f"--{side}-port={port}"]
    return [
        *command,
        "--model-control-mode=explicit",
        "--strict-readiness=false",  # else one model that fails to load makes the whole server unready, for good
        "--exit-on-error=false",
        "--exit-timeout-secs=5",
        "--disable-auto-complete-config",
        f"--allow-gpu-metrics={str(bool(environment().gpus)).lower()}",
        f"--backend-config=python,shm-region-prefix-name={prefix}",
        *(f"--{flag}={_CLOSED}:seatrial-key={secrets.token_hex(16)}" for flag in _RESTRICTING),
    ]


def _meant(root: Path, flags: Sequence[str]) -> list[str]:
    """Return the flags that the models need, with the cache folder of this wheel."""
    cached = any(flag.startswith("--cache-config") for flag in flags)
    return [*flags, *([f"--cache-directory={wheel.caches(root)}"] if cached else [])]


def _spawn(command: list[str], environment: dict[str, str], log: Path) -> int:
    """A child in a session of its own, so that Ctrl-C at our terminal does not reach it before us."""
    write = os.O_WRONLY | os.O_CREAT | os.O_APPEND
    actions = [
        (os.POSIX_SPAWN_OPEN, 0, os.devnull, os.O_RDONLY, 0),
        (os.POSIX_SPAWN_OPEN, 1, str(log), write, 0o644),
        (os.POSIX_SPAWN_DUP2, 1, 2),
    ]
    try:
        return os.posix_spawn(command[0], command, environment, file_actions=actions, setsid=True)
    except OSError as error:
        raise ServerError(
            f"the server cannot be run: {error.strerror or error}",
            where=command[0],
            next_step="install nvidia-pytriton again",
        ) from error


def _await_ready(server: Server, timeout: float) -> None:
    """Until our own process listens on all three ports and says that it lives."""
    ports = {server.http_port, server.grpc_port, server.metrics_port}
    ready = wait(lambda: not running(server) or ports <= listening(server.pid), timeout)
    if not running(server):
        code, reason = reap(server.pid), log_errors(server.log)
        kind = _PortTaken if any(is_taken(port) for port in ports) or "in use" in reason else ServerError
        raise kind(
            f"the Triton server ended during its start (exit {code}): {reason or 'it gave no reason'}",
            where=str(server.log),
            next_step=_port_hint(ports) or "read the log",
        )
    if ready:
        with Control(server.url, timeout=10.0) as control:
            ready = wait(control.live, timeout)
    if not ready:
        raise ServerError(
            f"the Triton server did not answer within {timeout:.0f} seconds",
            where=str(server.log),
            next_step="read the log; on a loaded machine allow more time",
        )


def _check_ports(ports: Sequence[int]) -> None:
    if len(set(ports)) != len(ports):
        raise ServerError(
            f"the ports must differ, got {list(ports)}", next_step="give a separate port for HTTP, gRPC and metrics"
        )
    if any(is_taken(port) for port in ports):
        raise _PortTaken("a port is in use", where="127.0.0.1", next_step=_port_hint(ports))


def _port_hint(ports: Sequence[int] | set[int]) -> str:
    taken = [f"{port}" + (f" by {who}" if (who := holder(port)) else "") for port in sorted(ports) if is_taken(port)]
    return f"in use: {', '.join(taken)}; end that process or choose another port" if taken else ""


def load(server: Server, models: Sequence[str], *, timeout: float = _LOAD_SECONDS) -> None:
    """Load models into a server that runs; `timeout` (seconds) is for each.

    Raises:
        ModelLoadError: a model did not load; quotes the server's reason and, where it has none, its log.
        IntegrityError, ConfigError: as `vouching.before_load`.
    """
    for name in models:
        vouching.before_load(server, (name,))
        before = server.log.stat().st_size
        try:
            with Control.to(server, timeout=timeout) as control:
                control.load(name)
        except ModelLoadError as error:
            said = log_errors(server.log, before) if "failed to poll" in error.what else ""
            raise ModelLoadError(
                f"model {name!r} did not load: {error.what}" + (f" ({said})" if said else ""),
                where=f"{server.repository / name}, log {server.log}",
                next_step="fix the model or its configuration and place it again",
            ) from error


def up(
    repository: Path,
    models: Sequence[str] = (),
    *,
    http_port: int = 0,
    grpc_port: int = 0,
    metrics_port: int = 0,
    timeout: float = 60.0,
    foreign: Sequence[str] = (),
    recover: Callable[[Path], object],
) -> Server:
    """Start a server that stays when this process ends, and remember it; there is one such server at a time.

    `recover` finishes or undoes what switches left half done in the repository (`supervision.lasting` hands that in).

    Raises:
        ServerError: one is up already, or the server cannot start.
        ModelLoadError: a model did not load; nothing stays up.
    """
    with record.lock():
        server = status()
        if server is not None:
            raise ServerError(
                f"a server is already running: http {server.url}, repository {server.repository}",
                where=f"process {server.pid}",
                next_step="use it, or stop it first (seatrial down)",
            )
        _forget()
        recover(repository)
        wanted: dict[str, Any] = {"http_port": http_port, "grpc_port": grpc_port, "metrics_port": metrics_port}
        server = start(repository, models=models, **wanted, foreign=foreign)
        server = replace(server, models=tuple(models))
        try:
            _remember(server)
        except BaseException:
            stop(server)
            record.path().unlink(missing_ok=True)
            raise
        return server


def _remember(server: Server) -> None:
    """Write down the server that is to stay, and let it outlive this process."""
    with held():
        server.write(record.path())
        guarding.release(server.pid)


def down(*, before: Callable[[], None] = lambda: None, timeout: float = 30.0) -> Drained | None:
    """Lead traffic away (`before`), answer what waits, unload, then end the server that `up` started; None without one.

    Draining takes `timeout` seconds at most; an interruption ends the server at once, as does having no model left.
    """
    with record.lock():
        server, drained = status(), None
        if server is not None:
            record.leaving().touch()
            try:
                drained = drain(server, before=before, timeout=timeout)
            except KeyboardInterrupt:
                with held():
                    stop(server, timeout=_HUNG_SECONDS)
                    _forget()
                raise
            stop(server, timeout=_EMPTY_SECONDS if drained.empty else 15.0)
        _forget()
        return drained


def status() -> Server | None:
    """The server that `up` started, if it still runs."""
    server = Server.find(record.path())
    return server if server is not None and running(server) else None


def wanted() -> Server | None:
    """Return the server that `up` started and that was not stopped, whether or not it still runs."""
    return None if record.leaving().exists() else Server.find(record.path())


def _forget() -> None:
    """Remove the record, and what a server left that did not end by our hand."""
    server = Server.find(record.path())
    if server is not None:
        clear(server.scratch, server.shm_prefix)
    record.path().unlink(missing_ok=True)
    record.leaving().unlink(missing_ok=True)
