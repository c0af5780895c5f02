"""Routes of Alertmanager: a receiver for each tier; a higher tier inhibits the lower ones of its model. Pure."""

from typing import Any

from ..plan import Plan
from ..service import TIERS, Tier

_TIMES: dict[Tier, tuple[str, str, str]] = {  # until the first message, until more of it, until it is said again
    "warning": ("30s", "5m", "12h"),
    "critical": ("0s", "1m", "4h"),
    "emergency": ("0s", "30s", "1h"),
}


def documents(plan: Plan) -> list[Any]:
    """Return a whole configuration; several models are joined by their routes, receivers and inhibitions."""
    routes = []
    for tier in reversed(TIERS):
        first, more, again = _TIMES[tier]
        routes.append(
            {
                "matchers": [f'model="{_escaped(plan.model)}"', f'tier="{tier}"'],
                "receiver": receiver(plan, tier),
                "group_by": ["model", "alertname"],  # else a new alert waits until its tier's group is sent again
                "group_wait": first,
                "group_interval": more,
                "repeat_interval": again,
            }
        )
    hooks = [{"url": plan.service.webhook, "send_resolved": True}] if plan.service.webhook else []
    inhibited = [
        {
            "source_matchers": [f'tier="{tier}"'],
            "target_matchers": [f'tier=~"{"|".join(TIERS[:at])}"'],
            "equal": ["model"],
        }
        for at, tier in enumerate(TIERS)
        if at
    ]
    named = [{"name": receiver(plan, tier)} | ({"webhook_configs": hooks} if hooks else {}) for tier in TIERS]
    return [
        {
            "route": {"receiver": "unrouted", "group_by": ["model"], "routes": routes},
            "inhibit_rules": inhibited,
            "receivers": [{"name": "unrouted"}, *named],
        }
    ]


def receiver(plan: Plan, tier: Tier) -> str:
    """Return the name of the receiver of a tier."""
    return f"{plan.model}-{tier}"


def _escaped(text: str) -> str:
    return text.replace("\\", "\\\\").replace('"', '\\"')
