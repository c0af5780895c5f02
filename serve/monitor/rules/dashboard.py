"""A dashboard of Grafana for one model, as JSON to import. Pure; no Grafana has shown it here."""

import json
from collections.abc import Iterator, Sequence
from typing import Any

from ...traffic.envoy.objectives import FAILED, GOOD, LATENCY, REQUESTS
from ..plan import Plan
from ..watch_metrics import ALARM, ERRORS, EVIDENCE, FAILING, LAST_LOOK, ROWS, SILENT, WINDOWS
from .alert import quoted
from .objectives import BURNS, Indicator

_WIDE, _HIGH = 12, 8
_SOURCE = {"type": "prometheus", "uid": "${source}"}
Panel = tuple[str, str, list[tuple[str, str]]]
"""Title, unit, and queries with their legends."""


def dashboard(plan: Plan, indicators: Sequence[Indicator]) -> str:
    """Return the dashboard's JSON."""
    panels = [_panel(at, *each) for at, each in enumerate(_panels(plan, indicators))]
    document = {
        "uid": f"seatrial-{plan.model}"[:40],
        "title": f"seatrial: {plan.model}",
        "tags": ["seatrial", plan.model],
        "timezone": "utc",
        "schemaVersion": 38,
        "refresh": "1m",
        "time": {"from": "now-24h", "to": "now"},
        "templating": {
            "list": [{"name": "source", "label": "Prometheus", "type": "datasource", "query": "prometheus"}]
        },
        "panels": panels,
    }
    return json.dumps(document, indent=1) + "\n"


def queries(plan: Plan, indicators: Sequence[Indicator]) -> list[str]:
    """Return every query of it."""
    return [query for _, _, asked in _panels(plan, indicators) for query, _ in asked]


def _panels(plan: Plan, indicators: Sequence[Indicator]) -> Iterator[Panel]:
    of = f"model={quoted(plan.model)}"
    yield "Alarms that hold, by tier", "none", [(f"max by (tier) ({ALARM}{{{of}}})", "{{tier}}")]
    yield "Evidence over the threshold", "percentunit", [(f"max({EVIDENCE}{{{of}}})", "evidence")]
    yield "Silence", "none", [(f"max({SILENT}{{{of}}})", "silent")]
    yield (
        "Rows and windows an hour",
        "short",
        [
            (f"increase({ROWS}_total{{{of}}}[1h])", "rows"),
            (f"increase({WINDOWS}_total{{{of}}}[1h])", "windows"),
        ],
    )
    yield "Seconds since the last complete look", "s", [(f"time() - max({LAST_LOOK}{{{of}}})", "last look")]
    yield (
        "Looks that fail",
        "none",
        [
            (f"max by (kind) ({FAILING}{{{of}}})", "failing: {{kind}}"),
            (f"sum by (kind) (increase({ERRORS}_total{{{of}}}[1h]))", "in the hour: {{kind}}"),
        ],
    )
    for each in indicators:
        allowed = 1 - each.objective
        windows = dict.fromkeys(burn.long for burn in BURNS)
        yield (
            f"{each.name}: how fast the allowance is used up (1: in 30 days)",
            "none",
            [(f"{each.ratio(window)}{{{of}}} / {allowed:.12g}", window) for window in windows],
        )
    if plan.service.source == "edge" and indicators:
        yield (
            "Requests a second at the edge",
            "reqps",
            [(f'sum(rate({REQUESTS}_total{{{of},outcome="{each}"}}[5m]))', each) for each in (GOOD, FAILED)],
        )
        yield (
            "Response time of good requests",
            "s",
            [
                (f"histogram_quantile({each}, sum by (le) (rate({LATENCY}_bucket{{{of}}}[5m])))", f"p{each * 100:g}")
                for each in (0.5, 0.9, 0.99)
            ],
        )


def _panel(at: int, title: str, unit: str, asked: list[tuple[str, str]]) -> dict[str, Any]:
    targets = [
        {"refId": chr(ord("A") + number), "expr": query, "legendFormat": legend, "datasource": _SOURCE}
        for number, (query, legend) in enumerate(asked)
    ]
    return {
        "id": at + 1,
        "type": "timeseries",
        "title": title,
        "datasource": _SOURCE,
        "gridPos": {"x": _WIDE * (at % 2), "y": _HIGH * (at // 2), "w": _WIDE, "h": _HIGH},
        "fieldConfig": {"defaults": {"unit": unit, "min": 0}, "overrides": []},
        "targets": targets,
    }
