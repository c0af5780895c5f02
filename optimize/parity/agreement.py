"""Agreement: how one output agrees with the parent's, measured by kind of output and judged by a tolerance. Pure.

A limit is judged only where it could fail on an output of that kind with that number of rows.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, fields, replace
from math import inf, sqrt
from typing import Any

import numpy as np

from ..recipe.configs import Tolerance
from ..record import fields_as_json, finite
from ..samples import Array
from .measures import (
    COLUMN_ROWS,
    Spread,
    classes_of,
    column_error,
    cosines,
    is_float,
    minority,
    misplaced,
    signal_to_noise,
    spread_error,
    spread_of,
    top_in_common,
)

DOUBT = 0.01  # probability with which an exact binomial bound on a fraction errs
DECIDED = ("integer", "mask", "text")
_DECISIONS = ("agreement", "minority")
_NEAR = 0.05  # of 0 or 1: a mask that was computed in floats
_DIRECTION = frozenset(("cosine", "agreement", "minority"))
_ROUGH = 2.5  # standard deviations of the root mean square of few rows


@dataclass(frozen=True, slots=True, kw_only=True)
class Agreement:
    """Agreement of one output with the parent's at one batch size: measures, the tolerance, and what was broken.

    `kind` is the kind of output, of `rows` samples of `width` numbers each, which hold so many `decisions`.
    `spread_error` is the root mean square difference over the output's own spread, `column_error` the same of the worst
    element of a row (`column`), None where fewer than 32 rows show none. `relative_error` is max |difference| /
    max |reference|; `cosine` the mean over samples; `snr` the reference's energy over the difference's, in dB (infinite
    where nothing differs). `agreement` is the fraction of rows with the same decision, `least` its lower bound with
    99 % confidence, `flips` how many have another; `minority` the same fraction over the `rare` rows of all but the
    most frequent decision; `top` the mean fraction of the greatest values in common. `nonfinite` is how many values are
    NaN, infinite or masked in one of the two alone. `varies` is the spread as a fraction of the output's size, over
    `whole` samples. `judged` names the limits that could have failed; `blind` says that the contract would also pass
    one constant row for all samples.
    """

    output: str
    batch: int
    lengths: Mapping[str, int] = field(default_factory=dict)
    relative_error: float = 0.0
    cosine: float = 1.0
    snr: float = inf
    agreement: float = 1.0
    flips: int = 0
    top: float = 1.0
    nonfinite: int = 0
    tolerance: Tolerance
    broken: tuple[str, ...] = ()
    kind: str = ""
    rows: int = 0
    width: int = 1
    decisions: int = 0
    least: float = 0.0
    minority: float = 1.0
    rare: int = 0
    spread_error: float | None = None
    column_error: float | None = None
    column: int = 0
    varies: float = 1.0
    whole: int = 0
    judged: tuple[str, ...] = ()
    blind: bool = False

    def to_json(self) -> dict[str, Any]:
        """Return JSON values; infinity becomes None, since JSON cannot represent it."""
        found: dict[str, Any] = finite(fields_as_json(self))
        return found

    @classmethod
    def from_json(cls, value: Mapping[str, Any]) -> "Agreement":
        """Read what `to_json` wrote, of an earlier version too."""
        known = {spot.name: value[spot.name] for spot in fields(cls) if spot.name in value}
        if known["relative_error"] is None:
            known |= {"relative_error": inf, "spread_error": inf}
        if known.get("snr", 0.0) is None:
            known["snr"] = -inf if known["relative_error"] else inf
        tolerance = {spot.name: value["tolerance"].get(spot.name) for spot in fields(Tolerance)}
        known |= {name: tuple(known.get(name, ())) for name in ("broken", "judged")}
        return cls(**known | {"tolerance": Tolerance(**tolerance)})


def futile(rows: Sequence[Agreement]) -> str:
    """Return why a contract could not have failed on one output; empty where it could, or where it did."""
    if not rows or any(row.broken for row in rows):
        return ""
    limits = rows[0].tolerance.stated
    stated = ", ".join(f"{name} = {getattr(rows[0].tolerance, name):g}" for name in limits) or "no limit"
    most = max(rows, key=lambda row: row.rows)
    what = f"{most.kind} of {most.width} number{'s' if most.width > 1 else ''} a row, {most.rows} rows"
    if not any(row.judged for row in rows):
        return f"{stated} does not apply to it ({what})"
    if most.kind not in DECIDED and any(row.blind for row in rows) and _DIRECTION.issuperset(limits):
        return f"{stated} also passes one constant row for every sample ({what})"
    return ""


def measure(
    output: str, expected: Array, got: Array | None, tolerance: Tolerance, spread: Spread | None = None
) -> Agreement:
    """Measure one output against the reference's, both [n, ...], for one batch.

    `spread` is that of more samples than these, where it is known and its rows have the same shape.
    """
    found = Agreement(output=output, batch=len(expected), tolerance=tolerance)
    own = spread_of(expected)
    used = spread if spread is not None and spread.columns.shape == own.columns.shape and spread.rows > 1 else own
    found = replace(found, kind=used.kind, rows=len(expected), whole=used.rows, width=max(used.columns.size, 1))
    found = replace(found, varies=0.0 if used.still else used.fraction)
    if got is None or got.shape != expected.shape:
        shape = None if got is None else got.shape
        return replace(_lost(found), broken=(f"shape {shape} instead of {expected.shape}",))
    if is_float(expected) != is_float(got):
        return replace(_lost(found), broken=(f"type {got.dtype} instead of {expected.dtype}",))
    if not expected.size:
        return replace(found, judged=("shape",))
    found = _measured(found, expected, got, used)
    if found.nonfinite:
        return found
    found = replace(found, judged=_judged(found))
    broken = tuple(_broken(found))
    return replace(found, broken=broken, blind=not broken and _blind(found, expected, used))


def rejudged(row: Agreement, tolerance: Tolerance) -> Agreement:
    """The same measures under another tolerance."""
    row = replace(row, tolerance=tolerance, blind=False)
    row = replace(row, judged=_judged(row))
    return row if row.nonfinite else replace(row, broken=tuple(_broken(row)))


def _lost(found: Agreement) -> Agreement:
    """Return the agreement of an output that cannot be compared."""
    nothing = replace(found, relative_error=inf, cosine=0.0, snr=-inf, agreement=0.0, top=0.0)
    return replace(nothing, spread_error=inf, minority=0.0)


def _measured(found: Agreement, expected: Array, got: Array, spread: Spread) -> Agreement:
    """Return `found` with errors and decisions of one output of both models, each [rows, ...]."""
    numbers = expected.dtype.kind not in "OSU"
    if numbers:
        one, other = (array.astype(np.float64).reshape(len(array), -1) for array in (expected, got))
        wrong, ok = misplaced(one, other, spread.far)
        if wrong:
            broken = (f"NaN, infinity or a mask where the parent has numbers, or the reverse ({wrong} values)",)
            return replace(_lost(found), nonfinite=wrong, broken=broken)
        if found.kind == "mask" and is_float(got) and np.abs(other - np.rint(other)).max(initial=0.0) > _NEAR:
            found = replace(found, kind="probability")  # no decisions any more
        one, other = (np.where(ok, array, 0.0) for array in (one, other))
        found = _arithmetic(found, one, other, ok, spread)
    return _decisions(found, expected, got)


def _arithmetic(found: Agreement, one: Array, other: Array, ok: Array, spread: Spread) -> Agreement:
    """The measures of two arrays [n, c], zero where they are not `ok`."""
    peak = float(max(np.abs(one).max(initial=0.0), np.abs(other).max(initial=0.0))) or 1.0
    difference = one - other
    greatest = float(np.abs(one).max(initial=0.0))
    worst = float(np.abs(difference).max(initial=0.0))
    column, place = None, 0
    if len(one) >= COLUMN_ROWS and spread.rows > 1 and one.shape[1] > 1:
        counts = np.maximum(ok.sum(axis=0), 1)
        apart = np.where(ok, other - other.sum(axis=0) / counts, 0.0) / peak
        varied = np.sqrt(np.square(apart).sum(axis=0) / counts) * peak
        column, place = column_error(difference, varied, ok, spread)
    return replace(
        found,
        relative_error=worst / greatest if greatest else (inf if worst > 1e-30 else 0.0),
        cosine=float(cosines(one / peak, other / peak).mean()) if len(one) else 1.0,
        snr=signal_to_noise(one / peak, other / peak),
        spread_error=spread_error(difference, ok, spread),
        column_error=column,
        column=place,
    )


def _decisions(found: Agreement, expected: Array, got: Array) -> Agreement:
    """Return `found` with how many decisions of one output, [rows, ...], are the same in both models."""
    kind: Any = found.kind
    known, other = classes_of(expected, kind), classes_of(got, kind)
    if known is None or other is None or not known.size:
        return found
    same = np.asarray(known == other)
    rare, kept = minority(known, same)
    return replace(
        found,
        agreement=float(same.mean()),
        flips=int((~same).sum()),
        decisions=int(same.size),
        least=_lower(int(same.sum()), int(same.size)),
        minority=kept / rare if rare else 1.0,
        rare=rare,
        top=float(same.mean()) if kind in DECIDED else top_in_common(expected, got, kind),
    )


def _judged(found: Agreement) -> tuple[str, ...]:
    """The stated limits that could fail on an output of this kind, with that many rows."""
    limits = found.tolerance
    by_decision = found.kind in DECIDED and any(name in limits.stated for name in _DECISIONS)
    numbers = found.spread_error is not None
    could = {
        "relative_error": numbers,
        "snr": numbers,
        "spread_error": numbers,
        "column_error": found.column_error is not None,
        "cosine": numbers and found.width > 1,
        "agreement": _upper(0, found.decisions) < (limits.agreement or 0.0),
        "minority": _upper(0, found.rare) < (limits.minority or 0.0),
    }
    return tuple(name for name in limits.stated if could[name] and (not by_decision or name in _DECISIONS))


def _broken(found: Agreement) -> Iterator[str]:
    limits = found.tolerance
    few = 1 + _ROUGH / sqrt(2 * max(found.rows, 1)) if found.rows < found.whole else 1.0
    hardly = f" (the samples vary it by only {found.varies:.2g} of its size)" if found.varies < 0.02 else ""
    for name in found.judged:
        limit, value = getattr(limits, name), getattr(found, name)
        if name == "relative_error" and not value <= limit:
            yield f"relative error {value:.2e} > {limit:.2e}"
        if name == "cosine" and not value >= limit:
            yield f"cosine {value:.5f} < {limit}"
        if name == "snr" and not value >= limit:
            yield f"SNR {value:.1f} dB < {limit:.1f} dB"
        if name == "spread_error" and not value <= limit * few:
            yield f"error {value:.3g} of the output's own spread > {limit:g}{hardly}"
        if name == "column_error" and not value <= limit:
            yield f"error {value:.3g} of its own spread in column {found.column} > {limit:g}"
        if name == "agreement" and (most := _upper(found.decisions - found.flips, found.decisions)) < limit:
            yield f"argmax agreement {value:.4f} < {limit} ({_bound(found.decisions, most)})"
        if name == "minority" and (most := _upper(round(value * found.rare), found.rare)) < limit:
            yield f"agreement {value:.4f} < {limit} outside the most frequent decision ({_bound(found.rare, most)})"


def _bound(rows: int, most: float) -> str:
    return f"{rows} rows: at most {most:.4f} with {1 - DOUBT:.0%} confidence"


def _blind(found: Agreement, expected: Array, spread: Spread) -> bool:
    """Tell whether the contract passes an output that is the same in all rows, where `expected` [rows, ...] varies."""
    if spread.still or len(expected) < 2 or not spread.columns.size:
        return False
    if found.tolerance.spread_error is not None and "spread_error" in found.judged and found.tolerance.spread_error < 1:
        return False
    values = expected.astype(np.float64).reshape(len(expected), -1)
    ok = np.isfinite(values) & (np.abs(np.where(np.isfinite(values), values, 0.0)) < spread.far)
    constant = np.where(ok, spread.means, values).reshape(expected.shape)
    if not is_float(expected):
        kinds, counts = np.unique(expected, return_counts=True)
        constant = np.full_like(expected, kinds[counts.argmax()])
    without = _measured(replace(found, broken=()), expected, constant.astype(expected.dtype), spread)
    return not without.nonfinite and not tuple(_broken(without))


def _upper(same: int, rows: int) -> float:
    """The greatest fraction that `same` of `rows` leave possible (Clopper and Pearson)."""
    from scipy.special import betaincinv

    return 1.0 if same >= rows else float(betaincinv(same + 1, rows - same, 1 - DOUBT))


def _lower(same: int, rows: int) -> float:
    from scipy.special import betaincinv

    return 0.0 if not same else float(betaincinv(same, rows - same + 1, DOUBT))
