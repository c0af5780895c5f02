"""Objectives as rules: failed and slow requests as ratios, and alerts on how fast they use up what an objective allows.

Multi-window, multi-burn-rate alerts (The Site Reliability Workbook, chapter 5): a rate of failures that would use up a
part of the 30 days' allowance in a long window, still going on in a short one. A rule needs a number of failures too,
so that one failure of few requests is no alarm.
"""

from collections.abc import Iterator
from dataclasses import dataclass

from seatrial.optimize.errors import ConfigError

from ...traffic.envoy.objectives import FAILED, LATENCY, REQUESTS, SECONDS
from ..plan import Plan
from ..service import Service, Tier
from .alert import Alert, Case, Recorded, linear, quoted

Labels = dict[str, str]
_MINUTES = 15  # of a case of a test: a ratio of increases is the same over windows that are not full yet


@dataclass(frozen=True, slots=True, kw_only=True)
class Burn:
    """A rate at which an allowance is used up: over a long and a short window, and the least tier of its alert."""

    factor: float
    long: str
    short: str
    least: Tier


BURNS = (
    Burn(factor=14.4, long="1h", short="5m", least="critical"),  # 2 % of 30 days in an hour
    Burn(factor=6.0, long="6h", short="30m", least="critical"),  # 5 % in six hours
    Burn(factor=3.0, long="1d", short="2h", least="warning"),  # 10 % in a day
    Burn(factor=1.0, long="3d", short="6h", least="warning"),  # 10 % in three days
)
WINDOWS = tuple(dict.fromkeys(each for burn in BURNS for each in (burn.short, burn.long)))


@dataclass(frozen=True, slots=True, kw_only=True)
class Indicator:
    """A ratio of bad events, in PromQL with ``WINDOW`` for the window, and how bad ones are fed to a test.

    `bad` and `all` are sums of increases, `failures` the least bad events of an alert. `name` is what
    alerts are called by, `what` is what the bad events are.
    """

    name: str
    record: str
    what: str
    objective: float
    bad: str
    all: str
    good_series: str
    bad_series: str
    every_series: str = ""
    failures: int = 1

    def ratio(self, window: str) -> str:
        """Return the recorded name of the ratio over a window."""
        return f"{self.record}:ratio_rate{window}"

    def series(self, share: float, minutes: int, *, a_minute: float | None = None) -> Labels:
        """Return series of which a share is bad, of so many events a minute that a few of them are."""
        events = a_minute if a_minute is not None else max(1000.0, max(10, self.failures) / share if share else 0.0)
        bad, good = events * share, events * (1 - share)
        if self.every_series:  # a histogram: what is within a bound, and all
            return {self.good_series: linear(0, good, minutes), self.every_series: linear(0, events, minutes)}
        return {self.good_series: linear(0, good, minutes), self.bad_series: linear(0, bad, minutes)}


def indicators(plan: Plan) -> list[Indicator]:
    """Return the ratios that a plan has objectives for.

    Raises:
        ConfigError: an objective that the source of the figures does not show.
    """
    service = plan.service
    found = list[Indicator]()
    if service.availability:
        found.append(_availability(plan))
    if service.latency and service.latency_seconds:
        if service.source == "triton":
            raise ConfigError(
                "Triton has no histogram of response times, so an objective of latency cannot be watched there",
                where="service.latency_seconds",
                next_step='watch the edge (source = "edge"), or leave latency_seconds out',
            )
        found.append(_latency(plan))
    return found


def _availability(plan: Plan) -> Indicator:
    model = f"model={quoted(plan.model)}"
    if plan.service.source == "edge":
        name = f"{REQUESTS}_total"
        return Indicator(
            name="Availability",
            record="model:seatrial_edge_failed",
            what="failed requests",
            objective=plan.service.availability,
            failures=plan.service.failures,
            bad=f'sum by (model) (increase({name}{{{model},outcome="{FAILED}"}}[WINDOW]))',
            all=f"sum by (model) (increase({name}{{{model}}}[WINDOW]))",
            good_series=f'{name}{{{model},outcome="good"}}',
            bad_series=f'{name}{{{model},outcome="{FAILED}"}}',
        )
    failure, success = "nv_inference_request_failure", "nv_inference_request_success"
    bad = f'sum by (model) (increase({failure}{{{model},reason!="CANCELED"}}[WINDOW]))'
    return Indicator(
        name="Availability",
        record="model:triton_failed",
        what="failed requests",
        objective=plan.service.availability,
        failures=plan.service.failures,
        bad=bad,
        all=f"({bad} + sum by (model) (increase({success}{{{model}}}[WINDOW])))",
        good_series=f'{success}{{{model},version="1"}}',
        bad_series=f'{failure}{{{model},version="1",reason="BACKEND"}}',
    )


def _latency(plan: Plan) -> Indicator:
    bound = plan.service.latency_seconds
    if bound not in SECONDS:
        near = sorted(SECONDS, key=lambda each: abs(each - bound))[:2]
        raise ConfigError(
            f"{bound:g} s is not a bound of the edge's histogram",
            where="service.latency_seconds",
            next_step=f"choose {' or '.join(f'{each:g}' for each in sorted(near))}; all: "
            + ", ".join(f"{each:g}" for each in SECONDS),
        )
    model = f"model={quoted(plan.model)}"
    within = f'{LATENCY}_bucket{{{model},le="{bound_label(bound)}"}}'
    every = f"{LATENCY}_count{{{model}}}"
    total = f"sum by (model) (increase({every}[WINDOW]))"
    return Indicator(
        name="Latency",
        record="model:seatrial_edge_slow",
        what=f"answers slower than {bound:g} s",
        objective=plan.service.latency,
        failures=plan.service.failures,
        bad=f"({total} - sum by (model) (increase({within}[WINDOW])))",
        all=total,
        good_series=within,
        bad_series="",
        every_series=every,
    )


def bound_label(bound: float) -> str:
    """Return a bound as prometheus_client labels it."""
    from prometheus_client.utils import floatToGoString

    return str(floatToGoString(bound))  # type: ignore[no-untyped-call]  # the library leaves it out


def recorded(indicator: Indicator) -> Iterator[Recorded]:
    """Yield the ratio over each window."""
    share = min(0.5, 2.5 * (1 - indicator.objective))
    for window in WINDOWS:
        yield Recorded(
            name=indicator.ratio(window),
            expr=f"{indicator.bad} / {indicator.all}".replace("WINDOW", window),
            cases=(
                Case(name="some are bad", series=indicator.series(share, _MINUTES), value=share),
                Case(name="all are good", series=indicator.series(0.0, _MINUTES), value=0.0),
            ),
        )


def alerts(indicator: Indicator, plan: Plan) -> Iterator[Alert]:
    """Yield an alert for each rate at which the allowance is used up, and one for a loss that is large by itself."""
    for burn in BURNS:
        if burn.factor * (1 - indicator.objective) < 1:
            yield _burning(indicator, burn, plan)
    if indicator.name == "Availability" and plan.service.share("emergency" if plan.service.worth else "critical") <= 1:
        yield _loss(indicator, plan)


def _burning(indicator: Indicator, burn: Burn, plan: Plan) -> Alert:
    service, allowed = plan.service, 1 - indicator.objective
    ratio = burn.factor * allowed
    few = f"{indicator.bad.replace('WINDOW', burn.long)} >= {service.failures}"
    expr = " and ".join(
        [*(f"{indicator.ratio(each)}{_of(plan)} > {ratio:.12g}" for each in (burn.long, burn.short)), few]
    )
    money = service.money(ratio)
    over = min(1.0, 1.5 * ratio)
    one = indicator.series(1.0 / 60, _MINUTES, a_minute=1.0)
    few_cases = (Case(name="one of few", series=one),) if service.failures > 1 else ()
    return Alert(
        name=f"Seatrial{indicator.name}Burn{burn.long}",
        expr=expr,
        tier=service.tier(ratio, least=burn.least),
        summary=f"{plan.model}: {indicator.what} use up the allowance of 30 days {burn.factor:g} times too fast",
        threshold=f"More than {ratio:.4g} of the requests over {burn.long} and over {burn.short}, at least "
        f"{service.failures} of them; the objective {indicator.objective:g} allows {allowed:.4g}"
        + (f". At this rate {money} are lost." if money else "."),
        meaning=f"At this rate the {indicator.what} that the objective allows in 30 days are used up in "
        f"{30 / burn.factor:.3g} days.",
        checks=_checks(plan, service),
        cases=(
            Case(name="too many", series=indicator.series(over, _MINUTES), fires=True),
            Case(name="half as many as allowed at this rate", series=indicator.series(ratio / 2, _MINUTES)),
            *few_cases,
        ),
        rollback=True,
    )


def _loss(indicator: Indicator, plan: Plan) -> Alert:
    service = plan.service
    tier: Tier = "emergency" if service.worth else "critical"
    share = min(0.99, service.share("emergency")) if service.worth else 0.5
    money = service.money(share)
    few = f"{indicator.bad.replace('WINDOW', '5m')} >= {service.failures}"
    return Alert(
        name=f"Seatrial{indicator.name}Loss",
        expr=f"{indicator.ratio('5m')}{_of(plan)} >= {share:.12g} and {few}",
        tier=tier,
        summary=f"{plan.model}: {share:.0%} of all requests fail or more",
        threshold=f"At least {share:.4g} of the requests over 5 minutes, at least {service.failures} of them"
        + (f": {money} or more are lost." if money else "."),
        meaning="The service is down for a large part of its callers.",
        checks=_checks(plan, service),
        cases=(
            Case(name="nearly all", series=indicator.series(min(1.0, (1 + share) / 2), _MINUTES), fires=True),
            Case(name="half of it", series=indicator.series(share / 2, _MINUTES)),
        ),
        rollback=True,
    )


def _checks(plan: Plan, service: Service) -> tuple[tuple[str, str], ...]:
    first = (
        ("Which versions answer, and which part of the requests goes to each?", f"seatrial routes show {plan.model}"),
        ("Does the edge run?", "seatrial edge status"),
    )
    rest = (
        ("Is a rollout under way, and what does it see?", f"seatrial rollout status {plan.model}"),
        ("What was changed last?", f"seatrial changes list {plan.model}"),
    )
    return (*(first if service.source == "edge" else ()), *rest)


def _of(plan: Plan) -> str:
    return f"{{model={quoted(plan.model)}}}"
