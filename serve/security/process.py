"""The server's process on this machine: its arguments, addresses, user and rights.

Reads /proc and psutil; signals nothing. If the process belongs to another user, some of it is not visible.
"""

import ipaddress
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from seatrial.optimize.breach import Breach

from . import arguments
from .rules import breach


@dataclass(frozen=True, slots=True, kw_only=True)
class Seen:
    """A process that listens: number, arguments, the (address, port) pairs it listens on, user id, rights.

    `capabilities` is the effective set as a bit mask, `seccomp` the kernel's mode (0: none).
    """

    pid: int
    arguments: tuple[str, ...]
    listens: tuple[tuple[str, int], ...]
    uid: int
    capabilities: int
    seccomp: int

    @property
    def exposed(self) -> bool:
        """Return whether it listens on an address that other machines can reach."""
        return any(not ipaddress.ip_address(address).is_loopback for address, _ in self.listens)

    def port(self, side: str) -> int | None:
        """The port of its ``http``, ``grpc`` or ``metrics`` side; None where that side is off or not listened on."""
        default = {"http": 8000, "grpc": 8001, "metrics": 8002}[side]
        given = arguments.flags(self.arguments).get(f"{side}-port", [str(default)])[-1]
        return (
            int(given)
            if given.isascii() and given.isdecimal() and int(given) in {port for _, port in self.listens}
            else None
        )

    @property
    def repositories(self) -> tuple[Path, ...]:
        """The model repositories it was given."""
        given = arguments.flags(self.arguments)
        return tuple(Path(each) for key in ("model-repository", "model-store") for each in given.get(key, []))


def listener(port: int) -> Seen | None:
    """The process of this machine that listens on a port; None where it is not to be seen."""
    import psutil

    try:
        owners = {
            each.pid for each in psutil.net_connections(kind="tcp") for _, open_ in _listening(each) if open_ == port
        }
        for pid in owners - {None}:
            process = psutil.Process(pid)
            listens = {pair for each in process.net_connections(kind="tcp") for pair in _listening(each)}
            status = dict(line.split(":\t", 1) for line in Path(f"/proc/{pid}/status").read_text().splitlines())
            return Seen(
                pid=process.pid,
                arguments=tuple(process.cmdline()),
                listens=tuple(sorted(listens)),
                uid=process.uids().effective,
                capabilities=int(status.get("CapEff", "0"), 16),
                seccomp=int(status.get("Seccomp", "0")),
            )
    except (psutil.Error, OSError, ValueError):
        return None
    return None


def _listening(connection: Any) -> list[tuple[str, int]]:
    """Address and port, if the connection is a listener; gRPC's IPv4 addresses are written inside IPv6 ones."""
    if connection.status != "LISTEN":
        return []
    return [(connection.laddr.ip.removeprefix("::ffff:"), connection.laddr.port)]


def audit(seen: Seen, *, exposed: bool) -> Iterator[Breach]:
    """Check the process itself. `exposed` says whether other machines can reach it."""
    where = f"process {seen.pid}"
    for address, port in seen.listens:
        if ipaddress.ip_address(address).is_unspecified:
            yield breach("bound-to-all", where, f"listens on {address}:{port}")
    yield from arguments.secrets(seen.arguments, where, exposed=exposed)
    yield from arguments.settings(seen.arguments, where, exposed=exposed)
    if seen.uid == 0:
        yield breach("root", where, "runs as root", exposed=exposed)
    if seen.capabilities:
        yield breach("capabilities", where, f"effective set {seen.capabilities:x}", exposed=exposed)
    if seen.seccomp == 0:
        yield breach("no-seccomp", where, "no seccomp filter", exposed=exposed)
