"""Outcomes joined with the requests that they belong to, and how long outcomes take to come. Pure."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from .quantities import Columns, Floats

AGES: Mapping[str, float] = {
    "1 hour": 3600.0,
    "6 hours": 21_600.0,
    "1 day": 86_400.0,
    "3 days": 259_200.0,
    "7 days": 604_800.0,
    "14 days": 1_209_600.0,
    "28 days": 2_419_200.0,
}


@dataclass(frozen=True, kw_only=True)
class Joined:
    """Rows of the requests that have an outcome, in order of time, with `requests` and `moments`, shape [rows].

    `orphans` are outcomes whose request is not in the tables, `early` those that are older than their request: neither
    is judged, both stay.
    """

    columns: Columns
    requests: tuple[str, ...]
    moments: Floats
    orphans: tuple[str, ...]
    early: tuple[str, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Matured:
    """Of the requests that are at least that old, the share whose outcome came within that age."""

    age: str
    requests: int
    share: float


def joined(columns: Columns, request: str, moment: str, known: Mapping[str, float]) -> Joined:
    """Join rows of requests with the times at which their outcomes became known; `moment` names the rows' times."""
    names = [str(each) for each in columns[request]]
    moments = np.asarray(columns[moment], dtype=np.float64)
    fits = np.array([known.get(name, np.inf) >= at for name, at in zip(names, moments, strict=True)], np.bool_)
    places = np.flatnonzero(fits)
    there = set(names)
    return Joined(
        columns={name: column[places] for name, column in columns.items()},
        requests=tuple(names[place] for place in places),
        moments=moments[places],
        orphans=tuple(sorted(each for each in known if each not in there)),
        early=tuple(name for name, fit in zip(names, fits, strict=True) if not fit),
    )


def maturity(requests: Floats, taken: Sequence[float], moments: Floats, now: float) -> tuple[Matured, ...]:
    """Return the share of requests with an outcome by age; ages that no request has reached are left out.

    `requests` are the times of all requests, `moments` those of the requests with an outcome, and `taken` how long each
    outcome took.
    """
    delays = np.asarray(taken, dtype=np.float64)
    found = []
    for name, age in AGES.items():
        old = int((now - requests >= age).sum())
        if old:
            came = int(((now - moments >= age) & (delays <= age)).sum())
            found.append(Matured(age=name, requests=old, share=came / old))
    return tuple(found)
