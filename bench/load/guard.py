"""Protection of a target: hard caps, refusal of foreign machines, and rules that stop a run early.

Pure; sends nothing and stops nothing itself.
"""

import ipaddress
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from seatrial.optimize.errors import ConfigError

from ..errors import TargetError
from ..targets import Endpoint, split_url
from .run import Floats
from .wire import Wire

MAX_RATE = 20_000.0  # arrivals per second; a load process reaches a few thousand
MAX_SECONDS = 3600.0
MAX_IN_FLIGHT = 8192  # connections, and with them file handles, on both sides
MAX_WORKERS = 64


@dataclass(frozen=True, slots=True, kw_only=True)
class AbortRules:
    """Conditions for stopping a run early, over the last `window` seconds of at least `least` requests.

    Every load process judges its own share; the first that objects stops all.
    `errors` is the largest share of failed requests (0 to 1), `p99` the largest 99th percentile in seconds, counting
    how long unanswered requests have waited; None for either is no rule.
    """

    errors: float | None = None
    p99: float | None = None
    window: float = 10.0
    least: int = 100

    def __post_init__(self) -> None:
        if not (self.errors is None or 0 <= self.errors <= 1) or not (self.p99 is None or self.p99 > 0):
            raise ConfigError(
                f"abort rules out of range: {self}", next_step="use an error rate of 0 to 1 and a positive p99"
            )
        if self.window <= 0 or self.least < 1:
            raise ConfigError(f"abort rules out of range: {self}")

    def to_json(self) -> dict[str, Any]:
        """JSON values that make the same rules again."""
        return asdict(self)

    def breach(self, waits: Floats, failed: int) -> str:
        """Return the reason to stop now, given the window's waits (seconds) and failures; empty to go on."""
        if len(waits) < self.least:
            return ""
        share = failed / len(waits)
        if self.errors is not None and share > self.errors:
            return f"{share:.1%} of the last {len(waits)} requests failed (limit {self.errors:.1%})"
        if self.p99 is None or (reached := float(np.quantile(waits, 0.99))) <= self.p99:
            return ""
        return f"p99 of the last {len(waits)} requests is {reached * 1e3:.1f} ms (limit {self.p99 * 1e3:.1f} ms)"


def check(endpoint: Endpoint, protocol: Wire, *, seconds: float, in_flight: int, workers: int, own: bool) -> None:
    """Refuse a load beyond the hard caps, or on a machine that is not this one and not said to be the caller's.

    Raises:
        ConfigError: beyond a cap.
        TargetError: not this machine; shared memory never reaches another.
    """
    for host in {address(endpoint, protocol)[0], endpoint.address[0]}:
        if not is_loopback(host) and (not own or protocol == "shm"):
            shared = protocol == "shm"
            raise TargetError(
                f"{host} is not this machine" + (", so no memory can be shared with it" if shared else ""),
                where=endpoint.url,
                next_step="use http or grpc"
                if shared
                else "load only servers that you own, and confirm it (own_target, --i-own-this-target)",
            )
    for name, value, cap in (
        ("seconds", seconds, MAX_SECONDS),
        ("requests in flight", in_flight, MAX_IN_FLIGHT),
        ("workers", workers, MAX_WORKERS),
    ):
        if not 0 < value <= cap:
            raise ConfigError(f"{name} must be above 0 and at most {cap:g}, got {value}")


def address(endpoint: Endpoint, protocol: Wire) -> tuple[str, int]:
    """Host and port that requests go to.

    Raises:
        ConfigError: gRPC without an address.
    """
    if protocol != "grpc":
        return endpoint.address
    if endpoint.grpc_url is None:
        raise ConfigError(
            "the server's gRPC address is unknown",
            where=endpoint.url,
            next_step="pass it: --grpc-url 127.0.0.1:8001 (Triton's default port)",
        )
    return split_url(endpoint.grpc_url.removeprefix("grpc://"))[:2]


def is_loopback(host: str) -> bool:
    """Return whether a host name or address is this machine."""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"
