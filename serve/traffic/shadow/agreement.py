"""Agreement: what many compared answers say about the candidate, with bounds that hold however often one looks.

Pure; takes `Differing` values and knows no proxy and no file. The unit is the request, not the row: rows of one request
came from one client and may share their fate. A broken answer fails at once; means are judged by their intervals; and a
candidate whose answers mostly could not be compared never passes, since those that hang or fail may be the wrong ones.
"""

import heapq
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Literal

from seatrial.optimize.errors import ConfigError
from seatrial.optimize.record import Record

from .bounded_mean import mean_interval, values_needed
from .differing import Differing

Outcome = Literal["PASS", "FAIL", "INCONCLUSIVE"]
EXIT_CODES: Mapping[Outcome, int] = {"PASS": 0, "FAIL": 1, "INCONCLUSIVE": 3}
KEPT = 20  # disagreements kept for review
ANY = "*"


@dataclass(frozen=True, slots=True, kw_only=True)
class AgreementLimits:
    """Limits of an output; a measure without a limit is informational.

    `top1_at_least` bounds the mean share of a request's rows with the same class, `cosine_at_least` the mean cosine,
    `drift_at_most` the absolute mean change of confidence. `max_error_at_most` is a limit on a maximum, so that one
    request breaks it. The probability that a candidate within its limits ever fails is at most `alpha` for all limits
    together, looked at as often as one likes.

    Raises:
        ConfigError: a limit that nothing can break or nothing can keep.
    """

    top1_at_least: float | None = None
    cosine_at_least: float | None = None
    max_error_at_most: float | None = None
    drift_at_most: float | None = None
    alpha: float = 0.01

    def __post_init__(self) -> None:
        def check(name: str, value: float | None, low: float, high: float) -> None:
            if value is not None and not low < value < high:
                raise ConfigError(
                    f"{name} must be between {low:g} and {high:g}, both excluded, got {value:g}",
                    where="agreement limits",
                    next_step="use a value inside the range: a mean of exactly 1 cannot be proven"
                    if value == 1
                    else "",
                )

        check("top1_at_least", self.top1_at_least, 0.0, 1.0)
        check("cosine_at_least", self.cosine_at_least, -1.0, 1.0)
        check("max_error_at_most", self.max_error_at_most, -1e-300, float("inf"))
        check("drift_at_most", self.drift_at_most, 0.0, 1.0)
        check("alpha", self.alpha, 0.0, 1.0)


UNSAID = AgreementLimits(top1_at_least=0.99)  # without given limits


@dataclass(frozen=True, slots=True, kw_only=True)
class LimitsFile:
    """Limits as a TOML file holds them: one table per output under ``outputs``, ``*`` for all that have none.

    `compared_at_least` is the share of sampled requests that must have been compared before the candidate passes.

    Raises:
        ConfigError: a schema of another time, or a share out of range.
    """

    schema: int
    outputs: Mapping[str, AgreementLimits]
    compared_at_least: float = 0.9

    def __post_init__(self) -> None:
        if self.schema != 1 or not 0.0 <= self.compared_at_least <= 1.0 or not self.outputs:
            raise ConfigError(
                "schema must be 1, compared_at_least between 0 and 1, and at least one output must be named",
                where="agreement limits",
                next_step='add for instance [outputs."*"] with top1_at_least = 0.99',
            )


@dataclass(frozen=True, slots=True, kw_only=True)
class Statistic:
    """One measure of one output over all requests compared so far.

    `low` and `high` bound the mean at all times together; of a maximum both are the maximum. `needed` is how many
    requests in all would decide it, if those to come are like these; None where nothing is judged or none would.
    """

    output: str
    name: str
    requests: int
    value: float
    low: float
    high: float
    limit: float | None = None
    outcome: Outcome | None = None
    needed: int | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Agreement(Record, schema=1, computed=("needed",)):
    """The verdict on what was compared, and what led to it.

    `sampled` are requests to which the stable version answered well and whose mirror was due, `compared` those of which
    both answers were there, `unmatched` the others by reason. `aside` are marked requests that say nothing about the
    candidate. `worst` are the worst disagreements, for review.
    """

    outcome: Outcome
    reasons: tuple[str, ...]
    sampled: int
    compared: int
    unmatched: Mapping[str, int]
    aside: Mapping[str, int]
    broken: int
    statistics: tuple[Statistic, ...]
    worst: tuple[Differing, ...]
    alpha: float

    @property
    def exit_code(self) -> int:
        """0 PASS, 1 FAIL, 3 INCONCLUSIVE."""
        return EXIT_CODES[self.outcome]

    @property
    def needed(self) -> int | None:
        """Requests still to be compared before nothing is open, by the forecast; 0 when decided, None if unknown."""
        if self.outcome != "INCONCLUSIVE":
            return 0
        open_ = [each.needed for each in self.statistics if each.outcome == "INCONCLUSIVE"]
        known = [each for each in open_ if each is not None]
        return max(max(known) - self.compared, 0) if known and len(known) == len(open_) else None


def agreement(
    found: Sequence[Differing],
    limits: Mapping[str, AgreementLimits],
    *,
    unmatched: Mapping[str, int] | None = None,
    aside: Mapping[str, int] | None = None,
    compared_at_least: float = 0.9,
) -> Agreement:
    """Judge every output by its own limits, or by those of ``*``; where neither is given, by `UNSAID`.

    `compared_at_least` is the share of sampled requests that must have been compared before anything passes.
    """
    unmatched, aside = dict(unmatched or {}), dict(aside or {})
    outputs: dict[str, list[Differing]] = {}
    for each in found:
        outputs.setdefault(each.output, []).append(each)
    judged = {name: limits.get(name, limits.get(ANY, UNSAID)) for name in outputs}
    alpha = min((each.alpha for each in judged.values()), default=UNSAID.alpha)
    family = max(sum(_judged_means(values, judged[name]) for name, values in outputs.items()), 1)
    statistics = [
        each for name, values in outputs.items() for each in _statistics(name, values, judged[name], alpha / family)
    ]
    compared = len({each.request for each in found})
    broken = [each for each in found if each.broken]
    sampled = compared + sum(unmatched.values())
    outcome, reasons = _verdict(statistics, broken, compared, unmatched, compared_at_least)
    return Agreement(
        outcome=outcome,
        reasons=reasons,
        sampled=sampled,
        compared=compared,
        unmatched=unmatched,
        aside=aside,
        broken=len(broken),
        statistics=tuple(statistics),
        worst=worst(found),
        alpha=alpha,
    )


def worst(found: Sequence[Differing], count: int = KEPT) -> tuple[Differing, ...]:
    """The worst disagreements first: broken ones, other classes, then by relative error; those without any left out."""
    some = (each for each in found if each.broken or each.relative or each.same not in (None, 1.0))
    return tuple(heapq.nlargest(count, some, key=_badness))


def _badness(each: Differing) -> tuple[bool, float, float]:
    return bool(each.broken), 1.0 - (1.0 if each.same is None else each.same), each.relative


def _values(found: Sequence[Differing], name: str) -> list[float]:
    """Per request that measure on the scale from 0 to 1."""
    given = [(each.same, each.cosine, each.drift)[_MEANS.index(name)] for each in found if not each.broken]
    return [value if name == "top-1" else (1.0 + value) / 2 for value in given if value is not None]


_MEANS = ("top-1", "cosine", "confidence drift")


def _limit_of(name: str, limits: AgreementLimits) -> float | None:
    return (limits.top1_at_least, limits.cosine_at_least, limits.drift_at_most)[_MEANS.index(name)]


def _judged_means(found: Sequence[Differing], limits: AgreementLimits) -> int:
    return sum(_limit_of(name, limits) is not None and bool(_values(found, name)) for name in _MEANS)


def _statistics(output: str, found: Sequence[Differing], limits: AgreementLimits, alpha: float) -> list[Statistic]:
    means = [
        _mean(output, name, values, _limit_of(name, limits), alpha)
        for name in _MEANS
        if (values := _values(found, name))
    ]
    whole = [each for each in found if not each.broken]
    if not whole:
        return means
    limit = limits.max_error_at_most
    greatest = _greatest(output, "max error", [each.largest for each in whole])
    relative = _greatest(output, "max relative error", [each.relative for each in whole])
    outcome: Outcome | None = None if limit is None else "FAIL" if greatest.value > limit else "PASS"
    return [*means, replace(greatest, limit=limit, outcome=outcome), relative]


def _greatest(output: str, name: str, values: Sequence[float]) -> Statistic:
    top = max(values)
    return Statistic(output=output, name=name, requests=len(values), value=top, low=top, high=top)


def _mean(output: str, name: str, values: Sequence[float], limit: float | None, alpha: float) -> Statistic:
    low, high = mean_interval(values, alpha=alpha)
    value = sum(values) / len(values)
    if name != "top-1":
        low, high, value = (2 * each - 1 for each in (low, high, value))
    outcome: Outcome | None = None
    needed = None
    if limit is not None:
        least, most = (-limit, limit) if name == "confidence drift" else (limit, float("inf"))
        outcome = "FAIL" if high < least or low > most else "PASS" if low >= least and high <= most else "INCONCLUSIVE"
        needed = _needed(name, values, limit, alpha) if outcome == "INCONCLUSIVE" else len(values)
    return Statistic(
        output=output,
        name=name,
        requests=len(values),
        value=value,
        low=low,
        high=high,
        limit=limit,
        outcome=outcome,
        needed=needed,
    )


def _needed(name: str, values: Sequence[float], limit: float, alpha: float) -> int | None:
    """Requests in all after which the limit will be seen kept, or broken, whichever these point to."""
    flipped = [1.0 - value for value in values]
    if name == "confidence drift":
        least, most = (1 - limit) / 2, (1 + limit) / 2
        both = values_needed(values, least, alpha=alpha), values_needed(flipped, 1 - most, alpha=alpha)
        kept = None if None in both else max(each or 0 for each in both)
        broken = [values_needed(flipped, 1 - least, alpha=alpha), values_needed(values, most, alpha=alpha)]
    else:
        edge = limit if name == "top-1" else (1 + limit) / 2
        kept = values_needed(values, edge, alpha=alpha)
        broken = [values_needed(flipped, 1 - edge, alpha=alpha)]
    return min((each for each in (kept, *broken) if each is not None), default=None)


def _verdict(
    statistics: Sequence[Statistic],
    broken: Sequence[Differing],
    compared: int,
    unmatched: Mapping[str, int],
    at_least: float,
) -> tuple[Outcome, tuple[str, ...]]:
    failed = [f"output {each.output!r}: {each.broken} (request {each.request})" for each in broken[:1]]
    failed += [_said(each) for each in statistics if each.outcome == "FAIL"]
    if failed:
        return "FAIL", tuple(failed)
    if not compared:
        return "INCONCLUSIVE", ("no request was compared yet",)
    open_ = [_said(each) for each in statistics if each.outcome == "INCONCLUSIVE"]
    if not any(each.outcome for each in statistics):
        open_.append("no limit applies to any output")
    sampled = compared + sum(unmatched.values())
    if compared < at_least * sampled:
        most = max(unmatched, key=lambda reason: unmatched[reason])
        open_.append(
            f"only {compared} of {sampled} sampled requests could be compared ({at_least:.0%} are "
            f"needed); of {unmatched[most]} others: {most}"
        )
    return ("INCONCLUSIVE", tuple(open_)) if open_ else ("PASS", ())


def _said(each: Statistic) -> str:
    span = f"{each.value:.6g}" if each.low == each.high else f"{each.value:.5f} in {each.low:.5f} … {each.high:.5f}"
    side = "limit" if each.name in ("max error", "confidence drift") else "at least"
    return f"output {each.output!r}: {each.name} {span}, {side} {each.limit:g}"
