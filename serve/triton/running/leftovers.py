"""Leftovers of servers and their removal: private folders, shared memory, stubs that wait in it, logs.

Each server has a folder named for the process that started it, so that a later process knows that the owner is gone.
Starts nothing; ends only servers whose owner has died.
"""

import shutil
import signal
from contextlib import suppress
from pathlib import Path
from uuid import uuid4

from seatrial.optimize.environment import home
from seatrial.optimize.errors import IntegrityError
from seatrial.optimize.processes import own
from seatrial.optimize.scratch import abandoned

from ...processes import kill, mentioning, send
from ..server import Server
from .record import path

_SHM = Path("/dev/shm")
_LOGS_KEPT = 50


def servers() -> Path:
    """The folder of the servers' private folders."""
    return home() / "triton" / "servers"


def new_name() -> str:
    """Process, its start time and a token: by this a later process knows that the owner is gone."""
    return f"{own()}-{uuid4().hex[:12]}"


def sweep_servers() -> None:
    """Stop servers whose owner was killed before it could, all but the one that `up` started; drop the oldest logs.

    The record is read once the owner is known to have ended: `up` writes it before it ends.
    """
    for scratch in abandoned(servers()):
        kept = Server.find(path())
        if kept is not None and scratch == kept.scratch:
            continue
        prefix = f"seatrial_{scratch.name.rpartition('-')[2]}_"
        with suppress(IntegrityError):
            if (server := Server.find(scratch / "server.json")) is not None:
                kill(server.pid, server.started)
        for unrecorded in mentioning(prefix):  # killed after the server was started and before it was written down
            kill(*unrecorded)
        clear(scratch, prefix)
    logs = sorted((home() / "triton" / "logs").glob("*-*-*.log"), key=lambda path: path.stat().st_mtime)
    for old in logs[:-_LOGS_KEPT]:
        old.unlink(missing_ok=True)


def clear(scratch: Path, prefix: str) -> None:
    """The private folder, and what a server that did not end well leaves: shared memory and stubs that wait in it."""
    regions = list(_SHM.glob(f"{prefix}*"))
    for stub in mentioning(f" {prefix}") if regions else []:  # the region's name stands in the stub's command line
        send(*stub, signal.SIGKILL)
    for region in regions:
        region.unlink(missing_ok=True)
    shutil.rmtree(scratch, ignore_errors=True)
