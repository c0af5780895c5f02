"""Runbooks: a page of Markdown for each alert: threshold, first checks, rollback, escalation, messages. Pure."""

from ..plan import Plan
from ..service import Tier
from .alert import Alert

_WITHIN: dict[Tier, tuple[str, str]] = {
    "warning": ("within a working day", "the next working day"),
    "critical": ("within an hour, at any time of day", "an hour"),
    "emergency": ("at once, at any time of day", "15 minutes"),
}


def runbook(plan: Plan, alert: Alert) -> str:
    """Return the page of an alert."""
    owner = plan.service.owner or "the owner of the model (none is named: owner in [service] of the plan)"
    within, next_ = _WITHIN[alert.tier]
    parts = [
        f"# {alert.name}",
        f"{alert.summary}.",
        f"Model `{plan.model}`, tier **{alert.tier}**, owner: {owner}.",
        "## What it means",
        alert.meaning,
        "## Threshold",
        alert.threshold + (f" It must hold for {alert.wait} seconds." if alert.wait else ""),
        f"```promql\n{alert.expr}\n```",
        "## First checks",
        "\n".join(
            f"{at}. {text}\n\n   ```\n   {command}\n   ```" for at, (text, command) in enumerate(alert.checks, 1)
        ),
        "## Roll back",
        _rollback(plan)
        if alert.rollback
        else "No deployment of a version causes this alert: nothing is to be taken back.",
        "## Escalation",
        f"1. Who is on call answers {within}.\n2. Without a cause after {next_}: {owner}.\n"
        f"3. Where it gets worse, or another alert of `{plan.model}` joins it: {owner} at once.",
        "## Messages",
        _messages(plan, alert, next_),
    ]
    return "\n\n".join(parts) + "\n"


def _rollback(plan: Plan) -> str:
    return (
        "Where a version of the model took traffic shortly before, take it back first: it costs little, and tells "
        "whether it is the cause. While a rollout is under way, or after its promotion:\n\n"
        f"```\nseatrial rollout rollback {plan.model}\n```\n\n"
        "Without a rollout, back to an earlier version (`seatrial switch "
        f"{plan.model}` shows which there are):\n\n```\nseatrial switch {plan.model} VERSION\n```"
    )


def _messages(plan: Plan, alert: Alert, next_: str) -> str:
    said = alert.summary.removeprefix(f"{plan.model}: ")
    return (
        f"When it begins:\n\n> [{alert.tier}] {plan.model}: {said}. Since TIME. "
        f"Concerned: WHO, WHAT. We are DOING. Next message in {next_} at the latest.\n\n"
        f"While it lasts:\n\n> [{alert.tier}] {plan.model}: known so far: CAUSE or unknown. Done: WHAT. Next message "
        f"at TIME.\n\nWhen it is over:\n\n> [over] {plan.model}: from TIME to TIME. Cause: CAUSE. Effect: HOW MANY, "
        "HOW MUCH. "
        "What keeps it from happening again: WHAT, by WHOM, until WHEN."
    )
