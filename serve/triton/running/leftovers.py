"""What servers leave behind: private folders, shared memory, stubs that wait in it, logs; and clearing it away.

Each server has a folder named for the process that started it, so that a later process knows that the owner is gone.
Starts nothing; ends only servers whose owner has died.
"""

import os
import shutil
import signal
from pathlib import Path
from uuid import uuid4

from optimize.environment import home

from ..server import read_server
from .process import alive, end, mentioning, send, start_ticks

_SHM = Path("/dev/shm")
_LOGS_KEPT = 50


def servers() -> Path:
    """The folder of the servers' private folders."""
    return home() / "triton" / "servers"


def new_name() -> str:
    """Process, its start time and a token: by this a later process knows that the owner is gone."""
    return f"{os.getpid()}-{start_ticks(os.getpid())}-{uuid4().hex[:12]}"


def sweep(keep: Path | None) -> None:
    """Stop servers whose owner was killed before it could, all but the one with that folder; drop the oldest logs."""
    for scratch in servers().glob("*-*-*"):
        pid, ticks, token = scratch.name.split("-")
        if alive(int(pid), int(ticks)) or scratch == keep:
            continue
        server = read_server(scratch / "server.json")
        if server is not None:
            end(server.pid, server.started, timeout=15.0)
        clear(scratch, f"seatrial_{token}_")
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
