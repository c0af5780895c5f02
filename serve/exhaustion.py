"""Exhaustion: errors that say that this very process lacks descriptors, memory, threads, ports or locks.

Pure. Such an error tells nothing of what was looked at, and must never count against it.
"""

import errno
import os
from collections.abc import Iterator

_LACKING = frozenset((errno.EMFILE, errno.ENFILE, errno.ENOMEM, errno.ENOBUFS, errno.EADDRNOTAVAIL, errno.ENOLCK))


def lacking(error: BaseException) -> str:
    """Return what this process lacks by that error or one that it came from, in words; empty where it lacks nothing."""
    for each in _chain(error):
        if isinstance(each, MemoryError):
            return os.strerror(errno.ENOMEM)
        if isinstance(each, RuntimeError) and "can't start new thread" in str(each):
            return "no more threads"
        if isinstance(each, OSError) and each.errno in _LACKING:
            return os.strerror(each.errno or 0)
    return ""


def _chain(error: BaseException) -> Iterator[BaseException]:
    seen: set[int] = set()
    each: BaseException | None = error
    while each is not None and id(each) not in seen:
        seen.add(id(each))
        yield each
        each = each.__cause__ or each.__context__
