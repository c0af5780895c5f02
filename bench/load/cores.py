"""On which processor cores the load and its target may run; only looks, and only at this machine."""

import os
from collections.abc import Sequence

import psutil

from ..measuring.processes import tree
from ..targets import Endpoint


def client_cores(pinned: Sequence[int] = ()) -> list[int]:
    """Where a load process may run: where it is pinned to, or else wherever this one may."""
    return sorted(pinned or os.sched_getaffinity(0))


def server_cores(endpoint: Endpoint) -> list[int]:
    """Where the target's processes may run; empty where they are not on this machine or not ours to see.

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
