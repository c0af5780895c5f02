"""Waterfall of a request's mean time: the change from base to candidate, in parts that add up to the total.

Pure arithmetic. Means, because only means of parts add up to the mean of the whole; quantiles do not.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from ..gating.pairs import SlotRecord
from ..load.run import OK
from ..measurement import Unavailable
from ..server_statistics import Counted

LAG, NETWORK, QUEUE, COPIES, COMPUTE, SERVICE = "client lag", "network", "queue", "copies", "compute", "service"
ABOUT: Mapping[str, str] = {
    LAG: "sent later than intended, caused by the client",
    NETWORK: "service time seen by the client minus the server's own account: transport, protocol, front end",
    QUEUE: "waiting in the server for an instance or a batch",
    COPIES: "copying inputs in and outputs out",
    COMPUTE: "the model's own execution",
    SERVICE: "from the send to the reply; the server's own account was not recorded",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Split:
    """Mean seconds of a request by part, in the order of its way; `bounded` where the accounts did not fit together."""

    parts: Mapping[str, float]
    bounded: bool = False

    @property
    def whole(self) -> float:
        """The mean latency from the intended send."""
        return sum(self.parts.values())


def split(latency: float, lag: float, server: Mapping[str, float] | None) -> Split:
    """Divide a mean latency into what the client, the way and the server took; seconds.

    `server` holds mean seconds per request (`QUEUE`, `COPIES`, `COMPUTE`), or None where the server kept no account.
    No part is negative: lag is cut to the latency, and where the server accounts for more than the client saw (the two
    count different requests, or clocks differ) its parts shrink in proportion and the way is 0, with `bounded` set.
    """
    whole = max(latency, 0.0)
    late = min(max(lag, 0.0), whole)
    service = whole - late
    bounded = latency < 0 or late != lag
    if server is None:
        return Split(parts={LAG: late, SERVICE: service}, bounded=bounded)
    told = {name: max(server[name], 0.0) for name in (QUEUE, COPIES, COMPUTE)}
    total = sum(told.values())
    if total > service:
        told = {name: value * (service / total) for name, value in told.items()}
        return Split(parts={LAG: late, NETWORK: 0.0} | told, bounded=True)
    return Split(parts={LAG: late, NETWORK: service - total} | told, bounded=bounded or min(server.values()) < 0)


def server_means(server: Counted) -> dict[str, float] | None:
    """A slot's server account (sums in seconds) as means per request; None where it has none."""
    if isinstance(server, Unavailable) or not server.requests:
        return None
    copies = server.compute_input + server.compute_output
    sums = {QUEUE: server.queue, COPIES: copies, COMPUTE: server.compute_infer}
    return {name: seconds / server.requests for name, seconds in sums.items()}


def slot_split(record: SlotRecord, *, with_server: bool) -> Split | None:
    """One slot's parts, over its answered requests; None where nothing was answered."""
    answered = record.status == OK
    if not answered.any():
        return None
    latency, lag = float(np.mean(record.latency[answered])), float(np.mean(record.lag[answered]))
    return split(latency, lag, server_means(record.server) if with_server else None)


def arms(pairs: Sequence[tuple[SlotRecord, SlotRecord]]) -> tuple[Split, Split] | None:
    """Base's and candidate's parts, each the mean over its slots; None without answered requests.

    The server's own account is used where every slot has one, so that both arms are divided alike.
    """
    everywhere = all(server_means(record.server) is not None for pair in pairs for record in pair)
    found = [
        [split for pair in pairs if (split := slot_split(pair[arm], with_server=everywhere)) is not None]
        for arm in (0, 1)
    ]
    return (_mean(found[0]), _mean(found[1])) if all(found) else None


def change(base: Split, candidate: Split) -> dict[str, float]:
    """Candidate minus base for each part; the sum is the change of the whole."""
    return {name: candidate.parts[name] - base.parts[name] for name in base.parts}


def largest(base: Split, candidate: Split) -> tuple[str, float]:
    """The part that changed most, in the direction of the whole change, and by how much."""
    steps = change(base, candidate)
    sign = 1.0 if candidate.whole >= base.whole else -1.0
    name = max(steps, key=lambda each: sign * steps[each])
    return name, steps[name]


def _mean(splits: Sequence[Split]) -> Split:
    parts = {name: float(np.mean([each.parts[name] for each in splits])) for name in splits[0].parts}
    return Split(parts=parts, bounded=any(each.bounded for each in splits))
