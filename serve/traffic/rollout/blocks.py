"""Blocks: what a proxy saw, cut into equal stretches of time for both arms, as the sequential tests want it.

Pure and incremental. It counts and drops, with a count of everything dropped; it judges nothing.

A request belongs to the block in which it *ended*, for that is when the proxy can know it: a slow one must not vanish
because its block was closed. Shares are counted, not believed: with sticky callers the share in force is not the one
that was asked for. Thresholds of the tail are frozen from the stable version's answers before anything is compared.

Callers do not write the evidence: a failure counts where the other version answered the same request (`Seen.result`),
latencies are compared over like requests (`matching`), and one client counts for so many requests of a block at most.
"""

import math
import zlib
from collections import Counter, OrderedDict, defaultdict, deque
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

from seatrial.optimize.record import Record

from ..seen import Seen
from .matching import OTHERS, Matched, kind_of, typical_factors
from .plan import Plan

FREEZE = 500  # answers of the stable version that thresholds need at least; a p99 of fewer is a guess
LEARNT = 10_000  # and at most: the latest before the comparison begins
REMEMBERED = 100_000  # request ids, to know a record that comes twice
REMEMBERED_SECONDS = 300.0  # a log is read on from where it was left: what comes twice comes soon
SKEW = 60.0  # seconds by which a record may be ahead of our clock
BY_GROUP = ("measured", "slow95", "slow99", "beyond95", "beyond99")
NAMED = 32  # clients whose slow answers are counted apart
CLIENT_MOST = 2_000  # requests of one client that a block counts of each version


@dataclass(frozen=True, slots=True, kw_only=True)
class Thresholds:
    """The stable version's p95 and p99 in seconds, over `requests` answers, frozen before the comparison.

    They hold for requests of a `typical` factor of 1; for another kind they are that many times as long. A kind that
    is not there is not counted in the tails; where there are no factors at all, every kind has 1.
    """

    p95: float
    p99: float
    requests: int
    typical: Mapping[str, float] = field(default_factory=dict)

    def factor(self, kind: str) -> float | None:
        """Return how many times as long a request of that kind takes; None where that is not known."""
        return self.typical.get(kind) if self.typical else 1.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Arm:
    """One version in one block.

    `answered` requests have a latency (4xx and 5xx have not: a quick refusal is no quick answer; one without an answer
    until its timeout has, and one that the client gave up late, as far as it came). Of these, `matched` are of kinds
    that both arms have (None: all), and `log_seconds` is `answered` times their mean log latency. Of the `measured`,
    which are of kinds with thresholds (None: all), `slow95` and `slow99` count those above the thresholds, `beyond95`
    and `beyond99` those above the thresholds stretched by the margins. `groups` are the counts named in `BY_GROUP` for
    each client, by a digest of its name, empty for all others.
    `unconfirmed` failures could not be asked of the other version, and count for nothing else.
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
    unconfirmed: int = 0
    matched: int | None = None
    measured: int | None = None
    groups: Mapping[str, tuple[int, ...]] = field(default_factory=dict)

    def of(self, name: str) -> float:
        """One count; those that earlier records lack are all the answers."""
        value = getattr(self, name)
        return float(self.answered if value is None else value)


@dataclass(frozen=True, slots=True, kw_only=True)
class Block(Record):
    """A stretch of time up to `until` (Unix seconds) at one step. `tails` is whether thresholds were frozen by then."""

    until: float
    step: int
    candidate: Arm
    baseline: Arm
    tails: bool = True


@dataclass(slots=True)
class _Open:
    """A block that is still being counted: events of each arm, and answers by kind."""

    arms: dict[str, Counter[str]] = field(default_factory=lambda: {"candidate": Counter(), "baseline": Counter()})
    matched: Matched = field(default_factory=Matched)
    clients: Counter[tuple[str, str]] = field(default_factory=Counter)
    groups: dict[tuple[str, str], Counter[str]] = field(default_factory=lambda: defaultdict(Counter))

    def is_full_of(self, client: str, arm: str) -> bool:
        """Count a client's request; whether the block has enough of that client's already."""
        if client:
            self.clients[client, arm] += 1
        return self.clients[client, arm] > CLIENT_MOST

    def event(self, arm: str, *names: str) -> None:
        """Count one request that ended in no answer."""
        self.arms[arm].update(names)

    def answer(self, arm: str, seen: Seen, kind: str, limits: Mapping[str, float], group: str) -> None:
        """Count one answer; `limits` are seconds by the name of what counts those above them."""
        slow = (name for name, most in limits.items() if seen.seconds > most)
        counted = ("measured", *slow) if limits else ()
        self.arms[arm].update(("requests", "answered", *counted))
        self.groups[arm, group].update(counted)
        self.matched.add(arm, kind, seen.seconds, seen.client)

    def closed(self, arm: str, *, alone: bool) -> Arm:
        """The arm as it is; `alone` where there is nothing to match it with."""
        counts, means = dict(self.arms[arm]), self.matched.means()
        measured = counts.pop("measured", 0)
        groups = {
            group: tuple(of[name] for name in BY_GROUP) for (side, group), of in self.groups.items() if side == arm
        }
        if alone:
            logs = math.fsum(logs for _, logs in self.matched.arms[arm].values())
            return Arm(**counts, log_seconds=logs, measured=measured, groups=groups)
        return Arm(
            **counts,
            measured=measured,
            groups=groups,
            log_seconds=counts.get("answered", 0) * means.get(arm, 0.0),
            matched=self.matched.counts()[arm],
        )


class BlockAggregator:
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
        self.dropped: Counter[str] = Counter({"twice": 0, "from the future": 0})
        self._resumed = after
        self._margins = (plan.margins.of("p95"), plan.margins.of("p99"))
        # The stable version's answers, kind and seconds, until thresholds are frozen.
        self._before: deque[tuple[str, float]] = deque(maxlen=LEARNT)
        self._ids: OrderedDict[tuple[str, int], float] = OrderedDict()  # when it was
        self._named: dict[str, str] = {}
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
            if seen.model != self.model or seen.role != "live" or seen.judged not in self.versions:
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
        arm, kind = self.versions[seen.judged], kind_of(seen)
        if self.thresholds is None and arm == "baseline" and seen.result in ("answered", "late", "abandoned"):
            self._before.append((kind, seen.seconds))
            if self._step is not None:
                self._freeze()
        if self._step is None or end < self._from or (self._arms == "candidate" and arm == "baseline"):
            return []
        full = []
        if end >= self._start + self.plan.block and self._enough():
            full.append(self._close(end))
        self._add(seen, arm, kind)
        return full

    def _add(self, seen: Seen, arm: str, kind: str) -> None:
        """Count one request in the open block, if it says something about its version."""
        result = seen.result
        if result == "shared":
            self.dropped["refused by both versions"] += 1
        elif self._open.is_full_of(seen.client, arm):
            self.dropped["of a client that counts enough"] += 1
        elif result == "unconfirmed":
            self._open.event(arm, "unconfirmed")
        elif result in ("failed", "refused"):
            self._open.event(arm, "requests", "errors" if result == "failed" else "refused")
        elif result == "abandoned" and seen.seconds <= self._limits(kind).get("slow99", math.inf):
            self.dropped["given up early"] += 1  # the caller's doing: it says nothing about the version
        else:
            self._open.answer(arm, seen, kind, self._limits(kind), self._group(seen.client))

    def _group(self, client: str) -> str:
        """The name under which a client's slow answers are counted apart: a digest, or none for the later ones."""
        if client and client not in self._named and len(self._named) < NAMED:
            self._named[client] = f"{zlib.crc32(client.encode(errors='replace')):08x}"
        return self._named.get(client, OTHERS)

    def _limits(self, kind: str) -> Mapping[str, float]:
        """Seconds above which an answer of that kind is slow, by the name of the count."""
        if kind not in self._known:
            known = self.thresholds if self._tails else None
            factor = None if known is None else known.factor(kind)
            if known is None or factor is None:
                self._known[kind] = {}
            else:
                plain = {"95": known.p95 * factor, "99": known.p99 * factor}
                margins = dict(zip(plain, self._margins, strict=True))
                self._known[kind] = {f"slow{q}": value for q, value in plain.items()} | {
                    f"beyond{q}": value * (1 + margins[q]) for q, value in plain.items()
                }
        return self._known[kind]

    def _enough(self) -> bool:
        if self._arms != "both":
            return self._open.arms["candidate"]["answered"] >= self.plan.block_requests
        return all(count >= self.plan.block_requests for count in self._open.matched.counts().values())

    def _close(self, now: float) -> Block:
        """End the block at the last edge of the grid before `now`; what comes late belongs to the next one."""
        until = self._start + self.plan.block * max(1, math.floor((now - self._start) / self.plan.block))
        block = Block(
            until=until,
            step=self._step or 0,
            candidate=self._open.closed("candidate", alone=self._arms != "both"),
            baseline=self._open.closed("baseline", alone=self._arms != "both"),
            tails=self._tails,
        )
        self._begin(self._arms, until)
        return block

    def _begin(self, arms: str, start: float) -> None:
        self._arms, self._start = arms, start
        self._open = _Open()
        self._tails = self.thresholds is not None
        self._known: dict[str, Mapping[str, float]] = {}

    def _freeze(self) -> None:
        """Freeze the thresholds now, if enough was learnt and they are not frozen yet."""
        if self.thresholds is None and len(self._before) >= FREEZE:
            factors = typical_factors(list(self._before))
            ordered = sorted(seconds / factors[kind] for kind, seconds in self._before if kind in factors)
            if len(ordered) < FREEZE // 2:
                return
            p95, p99 = (ordered[math.ceil(q * len(ordered)) - 1] for q in (0.95, 0.99))
            typical = {} if set(factors) == {""} else factors
            self.thresholds = Thresholds(p95=p95, p99=p99, requests=len(ordered), typical=typical)
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
