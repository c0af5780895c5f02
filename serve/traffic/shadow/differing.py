"""How the candidate's answer to one request differs from the stable version's, measure by measure.

Pure; judges nothing. What no tolerance can excuse is in `broken`: an output that is missing, of another shape or type,
or NaN or infinite where the stable version has numbers.
"""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from bench.quality.calibration import probabilities
from optimize.parity import cosines

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
    """Every output of either arm, held against the other's."""
    names = dict.fromkeys([*stable, *candidate])
    found = (_output(Differing(output=name, rows=0), stable.get(name), candidate.get(name)) for name in names)
    return tuple(replace(each, request=request, at=at, client=client) for each in found)


def _output(found: Differing, one: Array | None, other: Array | None) -> Differing:
    if one is None or other is None:
        return replace(found, broken=f"only the {'candidate' if one is None else 'stable version'} answers this output")
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
    if bad := int((~np.isfinite(other[np.isfinite(one)])).sum()):
        return replace(
            found, broken=f"NaN or infinity where the stable version has numbers ({bad} of {one.size} values)"
        )
    one, other = np.nan_to_num(one), np.nan_to_num(other)
    if one.ndim >= 2 and one.shape[-1] >= 2:
        found = _classes(found, one, other)
    rows, others = one.reshape(found.rows, -1), other.reshape(found.rows, -1)
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
    sure = [_confidence(each) if one.ndim == 2 else each.max(axis=1) for each in (lines, others)]
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
    return float(np.abs(one.astype(np.float64) - other.astype(np.float64)).max())


def _confidence(output: Array) -> Array:
    return np.asarray(probabilities(output).max(axis=1).clip(0, 1))
