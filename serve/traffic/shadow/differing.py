"""Differences between the candidate's and the stable version's answer to one request, by measure.

Pure; judges nothing. What no tolerance can excuse is in `broken`: an output that is missing, of another shape or type,
or NaN or infinite where the stable version has numbers.
"""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from seatrial.bench.quality.calibration import probabilities
from seatrial.optimize.parity.measures import beyond, cosines, misplaced

Array = np.ndarray[Any, np.dtype[Any]]


@dataclass(frozen=True, slots=True, kw_only=True)
class Differing:
    """One output of one request in both arms.

    `same` is the share of rows with the same class (floats: greatest value over the last axis; whole numbers and text:
    equal rows), `cosine` the mean over rows, from -1 to 1, `drift` the mean of the candidate's confidence in its class
    minus the stable version's in its own; each None where the output has no such thing. `largest` is the greatest
    absolute error, `relative` the same over the greatest absolute value of the stable answer. `tops` is the first row
    that disagrees as (row, stable class, candidate class, their confidences or greatest values). Text has no distance:
    its `largest` is 1 where anything differs.
    """

    output: str
    rows: int
    same: float | None = None
    cosine: float | None = None
    drift: float | None = None
    largest: float = 0.0
    relative: float = 0.0
    tops: tuple[int, int, int, float, float] | None = None
    broken: str = ""
    request: str = ""
    at: float = 0.0
    client: str = ""


def differing(
    stable: Mapping[str, Array],
    candidate: Mapping[str, Array],
    *,
    request: str = "",
    at: float = 0.0,
    client: str = "",
) -> tuple[Differing, ...]:
    """Every output of either arm, held against the other's: arrays of one request, samples along the first axis."""
    names = dict.fromkeys([*stable, *candidate])
    found = (_output(Differing(output=name, rows=0), stable.get(name), candidate.get(name)) for name in names)
    return tuple(replace(each, request=request, at=at, client=client) for each in found)


def _output(found: Differing, one: Array | None, other: Array | None) -> Differing:
    """Return `found` with the difference of one output of both arms, [rows, ...] or one sample without that axis."""
    if one is None or other is None:
        return replace(found, broken=f"only the {'candidate' if one is None else 'stable version'} returns this output")
    if one.dtype != other.dtype:
        return replace(found, broken=f"type {other.dtype} instead of {one.dtype}")
    if one.shape != other.shape:
        return replace(found, broken=f"shape {list(other.shape)} instead of {list(one.shape)}")
    found = replace(found, rows=one.shape[0] if one.ndim else 1)
    if not one.size:
        return found
    if one.dtype.kind not in "fV":  # V: bfloat16
        equal = (one == other).reshape(found.rows, -1).all(axis=1)
        return replace(
            found,
            same=float(equal.mean()),
            largest=_apart(one, other) if one.dtype.kind in "iu" else float(not equal.all()),
        )
    return _floats(found, one.astype(np.float64), other.astype(np.float64))


def _floats(found: Differing, one: Array, other: Array) -> Differing:
    """Return `found` with the difference of two float64 arrays of one shape, [rows, ...]."""
    flat = [each.reshape(found.rows, -1) for each in (one, other)]
    numbers = np.where(np.isnan(flat[0]), np.nan, flat[1])  # a number where the stable version has none is no fault
    bad, ok = misplaced(flat[0], numbers, beyond(flat[0]))
    if bad:
        return replace(
            found,
            broken=f"one version has NaN, infinity or a mask where the other has numbers ({bad} of {one.size} values)",
        )
    if one.ndim >= 2 and one.shape[-1] >= 2:
        found = _classes(found, *(np.where(np.isnan(each), -np.inf, each) for each in (one, other)))
    rows, others = (np.where(ok, each, 0.0) for each in flat)
    one, other = rows, others
    largest = _apart(one, other)
    return replace(
        found,
        cosine=float(cosines(rows, others).mean().clip(-1, 1)) if rows.shape[1] >= 2 else None,
        largest=largest,
        relative=largest / max(float(np.abs(one).max()), 1e-12),
    )


def _classes(found: Differing, one: Array, other: Array) -> Differing:
    """Classes over the last axis; confidences only where there is one row of classes per sample."""
    lines, others = (each.reshape(-1, each.shape[-1]) for each in (one, other))
    first, second = lines.argmax(axis=1), others.argmax(axis=1)
    sure = [_confidence(each) if one.ndim == 2 else _finite(each.max(axis=1)) for each in (lines, others)]
    found = replace(
        found,
        same=float((first == second).mean()),
        drift=float((sure[1] - sure[0]).mean()) if one.ndim == 2 else None,
    )
    if found.same == 1.0:
        return found
    row = int(np.argmax(first != second))
    return replace(found, tops=(row, int(first[row]), int(second[row]), float(sure[0][row]), float(sure[1][row])))


def _apart(one: Array, other: Array) -> float:
    """Return the largest absolute difference of two arrays of one shape, in the output's own unit."""
    return float(np.abs(one.astype(np.float64) - other.astype(np.float64)).max())


def _confidence(output: Array) -> Array:
    """Return the probability of each row's chosen class: [rows, classes] gives [rows]."""
    return np.asarray(probabilities(output).max(axis=1).clip(0, 1))


def _finite(values: Array) -> Array:
    """Return the values, of any shape, with 0 where one is not finite."""
    return np.asarray(np.where(np.isfinite(values), values, 0.0))
