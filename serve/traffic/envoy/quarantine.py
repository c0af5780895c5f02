"""Bodies that crashed a server, identified in the edge's log as requests in flight when its connections ended.

Pure. A body that a server answered, however, is harmless; one that was in flight at a crash and that no server has ever
been answered for is. Where several were under way at once, or where it is not known that the server crashed by itself
(an operator's kill, an exhausted machine), a body is refused after its second time.
"""

from collections import OrderedDict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

TOGETHER = 1.0  # seconds within which connections that end are those of one death
REMEMBERED = 50_000  # digests of answered bodies
STRUCK = 10_000  # digests that were under way at a death


@dataclass(frozen=True, slots=True, kw_only=True)
class Death:
    """A moment (Unix seconds) at which connections to a server ended under requests, and these requests' digests."""

    at: float
    digests: tuple[str, ...]


@dataclass(slots=True)
class Suspicion:
    """Evidence about bodies so far: answered ones, and the number of crashes at which others were in flight."""

    answered: OrderedDict[str, None] = field(default_factory=OrderedDict)
    struck: OrderedDict[str, int] = field(default_factory=OrderedDict)

    def learn(self, lines: Iterable[Mapping[str, Any]]) -> list[Death]:
        """Take lines of the access log in their order; returns the deaths that they tell of, oldest first."""
        ended: list[tuple[float, str]] = []
        for line in lines:
            digest = str(line.get("digest", ""))
            if not digest:
                continue
            if line.get("details") == "via_upstream":
                self.answered[digest] = None
                self.answered.move_to_end(digest)
                self.struck.pop(digest, None)
                if len(self.answered) > REMEMBERED:
                    self.answered.popitem(last=False)
            elif is_cut(line):
                ended.append((float(line.get("start", 0)) + float(line.get("ms", 0)) / 1e3, digest))
        return _deaths(sorted(ended))

    def condemn(self, death: Death, *, crashed: bool) -> tuple[str, ...]:
        """Digests to refuse because of that death; `crashed` is whether the server ended by a fault of its own."""
        unanswered = [digest for digest in dict.fromkeys(death.digests) if digest not in self.answered]
        found = []
        for digest in unanswered:
            self.struck[digest] = self.struck.get(digest, 0) + 1
            self.struck.move_to_end(digest)
            if self.struck[digest] > 1 or (crashed and len(unanswered) == 1):
                found.append(digest)
                del self.struck[digest]
        while len(self.struck) > STRUCK:
            self.struck.popitem(last=False)
        return tuple(found)


def is_cut(line: Mapping[str, Any]) -> bool:
    """Return whether a connection to the server ended under that request."""
    return "UC" in str(line.get("flags", "")).split(",")


def _deaths(ended: Sequence[tuple[float, str]]) -> list[Death]:
    found: list[Death] = []
    for at, digest in ended:
        if found and at - found[-1].at <= TOGETHER:
            found[-1] = Death(at=found[-1].at, digests=(*found[-1].digests, digest))
        else:
            found.append(Death(at=at, digests=(digest,)))
    return found
