"""Alerts on the watch itself: its alarms by tier, silence, a heartbeat that is missing, looks that fail."""

from collections.abc import Iterator

from ...traffic.envoy.objectives import REQUESTS
from ..plan import Plan
from ..service import TIERS
from ..watch_metrics import ALARM, EVERY, FAILING, LAST_LOOK, SILENT
from .alert import Alert, Case, constant, linear, quoted


def alerts(plan: Plan) -> Iterator[Alert]:
    """Yield them; each is about the one model of the plan."""
    yield from _drift(plan)
    yield _silence(plan)
    yield _heartbeat(plan)
    yield _failing(plan)
    if plan.service.source == "edge" and (plan.service.availability or plan.service.latency_seconds):
        yield _uncounted(plan)


def _drift(plan: Plan) -> Iterator[Alert]:
    service = plan.service
    for tier in TIERS:
        series = f'{ALARM}{{model={quoted(plan.model)},tier="{tier}"}}'
        share = min(1.0, service.share(tier))
        money = service.money(share)
        yield Alert(
            name=f"SeatrialDrift{tier.capitalize()}",
            expr=f"max by (model) ({series}) == 1",
            tier=tier,
            summary=f"{plan.model}: traffic or answers moved beyond what is tolerated",
            threshold="Evidence beyond the threshold that allows "
            f"{plan.false_alarms_per_year:g} false alarms a year"
            + (f"; {share:.0%} of the rows or more may be concerned" if share else "")
            + (f", {money} or more may be at stake." if money and share else "."),
            meaning="Means, spreads, shares, missing values or dependences left what the plan tolerates, and not by "
            "chance. Whether the answers are wrong is not said: labels say it.",
            checks=(
                ("What moved, since when, what changed before it, and the advice?", f"seatrial daily {plan.model}"),
                ("What was changed last?", f"seatrial changes list {plan.model}"),
            ),
            cases=(
                Case(name="an alarm of this tier holds", series={series: constant(1, 10)}, minutes=5, fires=True),
                Case(name="no alarm holds", series={series: constant(0, 10)}, minutes=5),
            ),
            rollback=True,
        )


def _silence(plan: Plan) -> Alert:
    series = f"{SILENT}{{model={quoted(plan.model)}}}"
    money = plan.service.money(1.0)
    return Alert(
        name="SeatrialSilence",
        expr=f"max by (model) ({series}) == 1",
        tier=plan.service.tier(1.0, least="critical"),
        summary=f"{plan.model}: usual traffic is missing",
        threshold="Fewer than a tenth of the least rows that the reference had at that hour of the week"
        + (f"; {money} are at stake." if money else "."),
        meaning="Callers do not reach the model, or what writes the tables has stopped. Silence is never a sign that "
        "all is well.",
        checks=(
            ("Does the edge run, and does it have requests?", "seatrial edge status"),
            ("Which versions answer?", f"seatrial routes show {plan.model}"),
        ),
        cases=(
            Case(name="silent", series={series: constant(1, 10)}, minutes=5, fires=True),
            Case(name="traffic comes", series={series: constant(0, 10)}, minutes=5),
        ),
    )


def _heartbeat(plan: Plan) -> Alert:
    of = f"{{model={quoted(plan.model)}}}"
    late = f"time() - max by (model) ({LAST_LOOK}{of}) > 2 * max by (model) ({EVERY}{of})"
    every = f"{EVERY}{of}"
    return Alert(
        name="SeatrialHeartbeatMissing",
        expr=f"({late}) or absent({LAST_LOOK}{of})",
        tier="critical",
        wait=wait(plan),
        summary=f"{plan.model}: the watch has stopped to look",
        threshold="No complete look for twice the time between two looks, or no metrics at all.",
        meaning="It would go unnoticed that the model's traffic moves. The watch is down, cannot be read, or cannot "
        "keep what it finds (a full disk).",
        checks=(
            ("Does the process run? Start it again: it goes on where it was.", "seatrial watch PLAN FILE --every 60"),
            ("Is the disk full?", "df -h"),
        ),
        cases=(
            Case(
                name="the last look is long ago",
                series={f"{LAST_LOOK}{of}": constant(0, 30), every: constant(60, 30)},
                minutes=20,
                fires=True,
            ),
            Case(name="the watch is gone", series={"up": constant(1, 30)}, minutes=20, fires=True),
            Case(
                name="it looks every minute",
                series={f"{LAST_LOOK}{of}": linear(0, 60, 30), every: constant(60, 30)},
                minutes=20,
            ),
        ),
    )


def _failing(plan: Plan) -> Alert:
    of, kind = f"{{model={quoted(plan.model)}}}", f'{{model={quoted(plan.model)},kind="disk"}}'
    return Alert(
        name="SeatrialLooksFail",
        expr=f"max by (model, kind) ({FAILING}{of}) == 1",
        tier="warning",
        wait=wait(plan),
        summary=f"{plan.model}: looks of the watch fail",
        threshold="The last look failed. The label kind says why: input (plan or tables), damaged (a stored record), "
        "disk (a write was refused), busy (another process holds the model), fault (a fault of seatrial).",
        meaning="The watch runs and tries again at each look. No window is lost: what was not kept is judged again.",
        checks=(
            ("What does it say? Read what the watch prints.", f"seatrial daily {plan.model}"),
            ("Is the disk full?", "df -h"),
        ),
        cases=(
            Case(
                name="the disk refuses",
                series={f"{FAILING}{kind}": constant(1, 30)},
                minutes=20,
                fires=True,
                labels={"kind": "disk"},
            ),
            Case(name="looks are complete", series={f"{FAILING}{kind}": constant(0, 30)}, minutes=20),
        ),
    )


def _uncounted(plan: Plan) -> Alert:
    series = f"{REQUESTS}_total{{model={quoted(plan.model)}}}"
    return Alert(
        name="SeatrialEdgeUncounted",
        expr=f"absent({series})",
        tier="warning",
        wait=300,
        summary=f"{plan.model}: requests at the edge are not counted",
        threshold="No series of the edge's requests for five minutes.",
        meaning="The objectives of this model cannot be judged: edge watch does not run with --metrics-port, or is not "
        "scraped.",
        checks=(("Does the edge run? Then start its watch.", "seatrial edge watch --metrics-port 9106"),),
        cases=(
            Case(name="nothing counts", series={"up": constant(1, 30)}, minutes=20, fires=True),
            Case(name="requests are counted", series={series: linear(0, 1, 30)}, minutes=20),
        ),
    )


def wait(plan: Plan) -> int:
    """Return the seconds that a state of the watch must last: a minute, less where windows are shorter."""
    return max(1, min(60, int(plan.interval)))
