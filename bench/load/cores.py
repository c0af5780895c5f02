"""On which processor cores the load and its target may run; only looks, and only at this machine."""

import os
from collections.abc import Sequence

import psutil

from ..processes import tree
from ..targets import Endpoint


def client_cores(pinned: Sequence[int] = ()) -> list[int]:
    """Return the cores of a load process: its pinned ones, else those of this process."""
    return sorted(pinned or os.sched_getaffinity(0))


def server_cores(endpoint: Endpoint) -> list[int]:
    """Return the cores of the target's processes; empty if they are elsewhere or not visible.

    The processes are those that the endpoint names, or else whatever listens on its port.
    """
    found: set[int] = set()
    for pid in tree(endpoint.pids or _listening(endpoint.address[1])):
        try:
            found |= set(psutil.Process(pid).cpu_affinity() or ())
        except psutil.Error:
            continue
    return sorted(found)


def _listening(port: int) -> tuple[int, ...]:
    try:
        sockets = psutil.net_connections("tcp")
    except psutil.Error:
        return ()
    listening = {each.laddr[1]: each.pid for each in sockets if each.status == psutil.CONN_LISTEN and each.laddr}
    pid = listening.get(port)
    return () if pid is None else (pid,)
