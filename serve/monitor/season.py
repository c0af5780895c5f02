"""The season of a mean: what the hour of the day and of the week explain of it."""

import numpy as np

from .quantities import Floats

DAY = 24  # hours
HOURS = 168  # of a week
_OF_DAY = (1, 2, 3)  # harmonics
_OF_WEEK = (1, 2)


def hours(times: Floats) -> Floats:
    """Return hours since a Monday at midnight, UTC, of times in seconds of the Unix epoch (which began a Thursday)."""
    return (np.asarray(times, dtype=np.float64) / 3600.0 + 3 * DAY) % HOURS


def design(times: Floats, *, seasonal: bool) -> Floats:
    """Return the regressors of each time, shape [times, 1 or 11]: a constant, and harmonics of day and week."""
    hour = hours(times)
    columns = [np.ones_like(hour)]
    if seasonal:
        for count, period in [*((each, DAY) for each in _OF_DAY), *((each, HOURS) for each in _OF_WEEK)]:
            angle = 2 * np.pi * count * hour / period
            columns += [np.sin(angle), np.cos(angle)]
    return np.stack(columns, axis=1)


def cell(times: Floats) -> np.ndarray[tuple[int], np.dtype[np.int64]]:
    """Return the hour of the week of each time, 0 to 167."""
    return hours(times).astype(np.int64) % HOURS
