"""Bounds of a module's free axes, which torch finds while it traces: a table of 512 positions bounds the length."""

import re
from collections.abc import Callable, Mapping
from typing import TypeVar

T = TypeVar("T")
Bounds = Mapping[str, Mapping[str, int]]
_BOUND = re.compile(r"(\w+) = Dim\('\w+'(?:, min=(\d+))?(?:, max=(\d+))?\)")
_TRIES = 3  # bounds that only show when others are known


def bounded(trace: Callable[[Bounds], T]) -> T:
    """Call `trace` without bounds, then with those that its error suggests: ``{"length": {"max": 512}}``."""
    bounds: dict[str, Mapping[str, int]] = {}
    for _ in range(_TRIES):
        try:
            return trace(bounds)
        except Exception as error:
            if (found := bounds | _suggested(error)) == bounds:
                raise
            bounds = found
    return trace(bounds)


def _suggested(error: BaseException) -> dict[str, Mapping[str, int]]:
    texts, cause = [], error  # type: list[str], BaseException | None
    while cause is not None and len(texts) < 16:
        texts.append(str(cause))
        cause = cause.__cause__ or cause.__context__
    found = _BOUND.findall("\n".join(texts))
    return {
        name: {key: int(size) for key, size in (("min", low), ("max", high)) if size}
        for name, low, high in found
        if low or high
    }
