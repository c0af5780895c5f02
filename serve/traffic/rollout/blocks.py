"""Blocks: what a proxy saw, cut into equal stretches of time for both arms, as the sequential tests want it.

Pure and incremental. It counts and drops, with a count of everything dropped; it judges nothing.

A request belongs to the block in which it *ended*, for that is when the proxy can know it: a slow one must not vanish
because its block was closed. Shares are counted, not believed: with sticky callers the share in force is not the one
that was asked for. Thresholds of the tail are frozen from the stable version's answers before anything is compared.
"""

import math
from collections import OrderedDict, deque
from collections.abc import Iterable
from dataclasses import asdict, dataclass, field
from typing import Any

from ..seen import Seen
from .plan import Plan

FREEZE = 500  # answers of the stable version that thresholds need at least; a p99 of fewer is a guess
LEARNT = 10_000  # and at most: the latest before the comparison begins
REMEMBERED = 100_000  # request ids, to know a record that comes twice
REMEMBERED_SECONDS = 300.0  # a log is read on from where it was left: what comes twice comes soon
SKEW = 60.0  # seconds by which a record may be ahead of our clock


@dataclass(frozen=True, slots=True, kw_only=True)
class Thresholds:
    """The stable version's p95 and p99 in seconds, over `requests` answers, frozen before the comparison."""

    p95: float
    p99: float
    requests: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Arm:
    """One version in one block.

    `answered` requests have a latency (4xx and 5xx have not: a quick refusal is no quick answer; one that the client
    gave up has, as far as it came), `log_seconds` is the sum of their natural logs. `slow95` and `slow99` count those
    above the thresholds, `beyond95` and `beyond99` those above the thresholds stretched by the margins.
    """

    requests: int = 0
    answered: int = 0
    log_seconds: float = 0.0
    slow95: int = 0
    slow99: int = 0
    beyond95: int = 0
    beyond99: int = 0
    errors: int = 0
    refused: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Block:
    """A stretch of time up to `until` (Unix seconds) at one step. `tails` is whether thresholds were frozen by then."""

    until: float
    step: int
    candidate: Arm
    baseline: Arm
    tails: bool = True

    def to_json(self) -> dict[str, Any]:
        """As JSON values."""
        return asdict(self)

    @staticmethod
    def from_json(value: dict[str, Any]) -> "Block":
        """The counterpart of `to_json`."""
        arms = {name: Arm(**value[name]) for name in ("candidate", "baseline")}
        return Block(until=value["until"], step=value["step"], tails=value["tails"], **arms)


@dataclass(slots=True)
class _Open:
    """An arm that is still being counted."""

    arm: dict[str, float] = field(default_factory=lambda: asdict(Arm()))

    def add(self, seen: Seen, plain: tuple[float, float], margins: tuple[float, float]) -> None:
        self.arm["requests"] += 1
        if seen.failed:
            self.arm["errors"] += 1
        elif refused(seen):
            self.arm["refused"] += 1
        else:
            self.arm["answered"] += 1
            self.arm["log_seconds"] += math.log(max(seen.seconds, 1e-6))
            for name, threshold, margin in zip(("95", "99"), plain, margins, strict=True):
                self.arm[f"slow{name}"] += seen.seconds > threshold
                self.arm[f"beyond{name}"] += seen.seconds > threshold * (1 + margin)

    def closed(self) -> Arm:
        counts = {name: int(value) for name, value in self.arm.items() if name != "log_seconds"}
        return Arm(**counts, log_seconds=self.arm["log_seconds"])


def refused(seen: Seen) -> bool:
    """Whether the service blamed the client: a 4xx, or gRPC's counterparts."""
    if seen.grpc_status is not None:
        return seen.grpc_status in _GRPC_REFUSALS
    return 400 <= seen.status < 500


# INVALID_ARGUMENT, NOT_FOUND, ALREADY_EXISTS, PERMISSION_DENIED, FAILED_PRECONDITION, OUT_OF_RANGE, UNIMPLEMENTED,
# UNAUTHENTICATED
_GRPC_REFUSALS = frozenset({3, 5, 6, 7, 9, 11, 12, 16})


class Cutter:
    """Cuts the stream of one rollout into blocks.

    `after` is the end of the last block that is already known: a stream that is read again from its start after a
    restart adds nothing twice.
    """

    def __init__(
        self,
        plan: Plan,
        model: str,
        stable: int,
        candidate: int,
        *,
        after: float = 0.0,
        thresholds: Thresholds | None = None,
    ) -> None:
        self.plan, self.model = plan, model
        self.versions = {stable: "baseline", candidate: "candidate"}
        self.thresholds = thresholds
        self.dropped = {"twice": 0, "from the future": 0}
        self._resumed = after
        self._margins = (plan.margins.of("p95"), plan.margins.of("p99"))
        self._before: deque[float] = deque(maxlen=LEARNT)  # the stable version's latencies, until thresholds are frozen
        self._ids: OrderedDict[tuple[str, int], float] = OrderedDict()  # when it was
        self._step: int | None = None
        self._from = 0.0
        self._begin("none", 0.0)

    def counts_from(self, step: int, start: float) -> None:
        """From now on count for that step, and only what ended after `start` (routes in force, warm-up over).

        What the last block held is dropped with its step: its share is no longer in force.
        """
        if (step, start) != (self._step, self._from):
            self._step, self._from = step, start
            self._freeze()
            self._begin("both" if self.plan.steps[step].share < 1 else "candidate", max(start, self._resumed))

    def stops(self) -> None:
        """Count for no step (shadow, loading), but go on learning the thresholds."""
        self._step = None

    def add(self, stream: Iterable[Seen], now: float) -> list[Block]:
        """Take what the proxy saw since the last call; returns the blocks that are full."""
        full = []
        for seen in stream:
            if seen.model != self.model or seen.role != "live" or seen.version not in self.versions:
                continue
            end = seen.at + seen.seconds
            if end > now + SKEW:
                self.dropped["from the future"] += 1
            elif self._twice(seen):
                self.dropped["twice"] += 1
            elif end > self._resumed:
                full += self._count(seen, end)
        if self._step is not None and now >= self._start + self.plan.block and self._enough():
            full.append(self._close(now))
        return full

    def _count(self, seen: Seen, end: float) -> list[Block]:
        arm = self.versions[seen.version]
        if self.thresholds is None and arm == "baseline" and not seen.failed and not refused(seen):
            self._before.append(seen.seconds)
            if self._step is not None:
                self._freeze()
        if self._step is None or end < self._from or (self._arms == "candidate" and arm == "baseline"):
            return []
        full = []
        if end >= self._start + self.plan.block and self._enough():
            full.append(self._close(end))
        self._open[arm].add(seen, self._plain, self._margins)
        return full

    def _enough(self) -> bool:
        wanted = self._open if self._arms == "both" else ("candidate",)
        return all(self._open[arm].arm["answered"] >= self.plan.block_requests for arm in wanted)

    def _close(self, now: float) -> Block:
        """End the block at the last edge of the grid before `now`; what comes late belongs to the next one."""
        until = self._start + self.plan.block * max(1, math.floor((now - self._start) / self.plan.block))
        block = Block(
            until=until,
            step=self._step or 0,
            candidate=self._open["candidate"].closed(),
            baseline=self._open["baseline"].closed(),
            tails=self._tails,
        )
        self._begin(self._arms, until)
        return block

    def _begin(self, arms: str, start: float) -> None:
        self._arms, self._start = arms, start
        self._open = {"candidate": _Open(), "baseline": _Open()}
        self._tails = self.thresholds is not None
        self._plain = (
            (self.thresholds.p95, self.thresholds.p99) if self.thresholds is not None else (math.inf, math.inf)
        )

    def _freeze(self) -> None:
        """Freeze the thresholds now, if enough was learnt and they are not frozen yet."""
        if self.thresholds is None and len(self._before) >= FREEZE:
            ordered = sorted(self._before)
            p95, p99 = (ordered[math.ceil(q * len(ordered)) - 1] for q in (0.95, 0.99))
            self.thresholds = Thresholds(p95=p95, p99=p99, requests=len(ordered))
            self._before.clear()

    def _twice(self, seen: Seen) -> bool:
        if not seen.request_id:
            return False
        key = (seen.request_id, seen.version)
        if key in self._ids:
            return True
        self._ids[key] = seen.at
        while len(self._ids) > REMEMBERED or next(iter(self._ids.values())) < seen.at - REMEMBERED_SECONDS:
            self._ids.popitem(last=False)
        return False
