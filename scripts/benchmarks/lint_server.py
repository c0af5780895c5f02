"""The real server's word on a configuration: does it load, is it refused, does it hang, does it end the server.

One server reads the repositories of many units and loads their targets one by one; a server that ended or hung is
replaced, and the unit that did it is tried once more in a server of its own.
"""

import shutil
import subprocess
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Literal
from uuid import uuid4

from seatrial.serve.errors import ModelLoadError, ServerError
from seatrial.serve.processes import free_ports, kill, start_ticks, wait
from seatrial.serve.triton.control import Control
from seatrial.serve.triton.running import wheel
from seatrial.serve.triton.running.leftovers import clear
from seatrial.serve.triton.running.plain import plain
from seatrial.serve.triton.server import log_errors

Outcome = Literal["loaded", "refused", "hangs", "ended the server"]
PATIENCE = 15.0
"""Seconds that a load may take."""
_MEMORY = 12 << 30


@dataclass(frozen=True, slots=True, kw_only=True)
class Verdict:
    """Behaviour of the server on one target, and the reason that it gave."""

    outcome: Outcome
    reason: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class _Running:
    """A server that was started for a group of repositories."""

    process: subprocess.Popen[bytes]
    started: int
    http: int
    grpc: int
    log: Path


def judge(
    units: Sequence[tuple[Path, str]], folder: Path, *, patience: float = PATIENCE, settle: float = 0.0
) -> list[Verdict]:
    """Let the real server load the target of each repository; in the order given.

    `settle` is how many seconds after a load the server still may end by it.
    """
    found: list[Verdict] = []
    attempts = 0
    while len(found) < len(units):
        attempts += 1
        rest = units[len(found) :]
        found += _in_one_server(rest, folder / f"server-{attempts}", patience, settle)
    return found


def _in_one_server(
    units: Sequence[tuple[Path, str]], folder: Path, patience: float, settle: float
) -> Iterator[Verdict]:
    """Verdicts until the server is lost; the last one is then the one that lost it."""
    with _serving([path for path, _ in units], folder) as server:
        for _, name in units:
            verdict = _load(server, name, patience)
            if verdict.outcome in ("loaded", "refused") and wait(lambda: server.process.poll() is not None, settle):
                verdict = Verdict(outcome="ended the server", reason=_tail(server.log, 0))
            yield verdict
            if verdict.outcome in ("hangs", "ended the server"):
                return


def _load(server: _Running, name: str, patience: float) -> Verdict:
    before = server.log.stat().st_size
    url, grpc = f"127.0.0.1:{server.http}", f"127.0.0.1:{server.grpc}"
    with Control(url, timeout=patience, grpc_url=grpc) as control:
        begun = time.monotonic()
        try:
            control.load(name)
            ready = bool(control.ready_versions(name))
            verdict = Verdict(outcome="loaded" if ready else "refused", reason="" if ready else "no version is ready")
        except (ModelLoadError, ServerError) as error:
            lost = 2.0 if isinstance(error, ServerError) or "no answer" in error.what else 0.0
            if wait(lambda: server.process.poll() is not None, lost):
                verdict = Verdict(outcome="ended the server", reason=_tail(server.log, before))
            elif time.monotonic() - begun >= patience - 1:
                verdict = Verdict(outcome="hangs", reason=error.what)
            else:
                verdict = Verdict(outcome="refused", reason=f"{error.what}; {log_errors(server.log, before)}")
        if verdict.outcome == "loaded":
            with suppress(ModelLoadError, ServerError):
                control.dismiss(name)
    return verdict


def _tail(log: Path, start: int) -> str:
    with log.open("rb") as stream:
        stream.seek(start)
        return stream.read()[-600:].decode(errors="replace")


@contextmanager
def _serving(repositories: Sequence[Path], folder: Path) -> Iterator[_Running]:
    folder.mkdir(parents=True)
    root, prefix = wheel.installed(), f"lint_{uuid4().hex[:12]}_"
    http, grpc, metrics = free_ports(3)
    scratch, log = folder / "tmp", folder / "log"
    scratch.mkdir()
    command = [
        str(wheel.binary(root)),
        *(f"--model-repository={plain(path)}" for path in repositories),
        f"--backend-directory={plain(wheel.backends(root, folder))}",
        f"--cache-directory={wheel.caches(root)}",
        "--cache-config=local,size=1048576",
        "--rate-limit=execution_count",
        *(f"--{side}-address=127.0.0.1" for side in ("http", "grpc", "metrics")),
        *(f"--{side}-port={port}" for side, port in (("http", http), ("grpc", grpc), ("metrics", metrics))),
        "--model-control-mode=explicit",
        "--strict-readiness=false",
        "--exit-on-error=false",
        "--exit-timeout-secs=1",
        "--disable-auto-complete-config",
        "--allow-gpu-metrics=false",
        f"--backend-config=python,shm-region-prefix-name={prefix}",
    ]
    environment = wheel.surroundings(scratch) | {"PYTHONDONTWRITEBYTECODE": "1", "OPENBLAS_NUM_THREADS": "1"}
    limited = ["prlimit", f"--as={_MEMORY}", *command]
    with log.open("wb") as out:
        process = subprocess.Popen(
            limited, env=environment, stdout=out, stderr=subprocess.STDOUT, stdin=subprocess.DEVNULL
        )
    started = start_ticks(process.pid) or 0
    server = _Running(process=process, started=started, http=http, grpc=grpc, log=log)
    try:
        with Control(f"127.0.0.1:{http}", timeout=10.0) as control:
            if not wait(lambda: process.poll() is not None or control.live(), 90.0) or process.poll() is not None:
                raise ServerError("the server did not start", where=str(log), next_step=_tail(log, 0))
        yield server
    finally:
        kill(process.pid, started)
        process.wait()
        clear(scratch, prefix)
        shutil.rmtree(scratch, ignore_errors=True)
