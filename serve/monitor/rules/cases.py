"""Tests for promtool: each case of each rule, with what the rule makes of it. Pure."""

from collections.abc import Sequence
from typing import Any

from ..plan import Plan
from .alert import Alert, Case, Recorded, quoted

_CLOSE = 1e-9


def documents(plan: Plan, rules: str, series: Sequence[Recorded], alerts: Sequence[Alert], base: str) -> list[Any]:
    """Return the file for ``promtool test rules``; `rules` is the name of the file with the rules."""
    tests = [_recorded(plan, each, case) for each in series for case in each.cases]
    tests += [_alert(plan, each, case, base) for each in alerts for case in each.cases]
    return [{"rule_files": [rules], "evaluation_interval": "1m", "tests": tests}]


def labels(plan: Plan, alert: Alert) -> dict[str, str]:
    """Return the labels that a rule gives its alert."""
    owner = {"owner": plan.service.owner} if plan.service.owner else {}
    return {"tier": alert.tier, "model": plan.model} | owner


def annotations(alert: Alert, base: str) -> dict[str, str]:
    """Return what an alert says, and where its runbook is."""
    return {
        "summary": alert.summary,
        "description": alert.meaning,
        "threshold": alert.threshold,
        "runbook_url": f"{base.rstrip('/')}/{alert.name}.md" if base else f"runbooks/{alert.name}.md",
    }


def _case(about: str, case: Case) -> dict[str, Any]:
    series = [{"series": name, "values": values} for name, values in case.series.items()]
    return {"name": f"{about}: {case.name}", "interval": "1m", "input_series": series}


def _recorded(plan: Plan, recorded: Recorded, case: Case) -> dict[str, Any]:
    expected = {
        "expr": f"abs({recorded.name}{{model={quoted(plan.model)}}} - {case.value:.12g}) < bool {_CLOSE}",
        "eval_time": f"{case.minutes}m",
        "exp_samples": [{"labels": f"{{model={quoted(plan.model)}}}", "value": 1}],
    }
    return _case(recorded.name, case) | {"promql_expr_test": [expected]}


def _alert(plan: Plan, alert: Alert, case: Case, base: str) -> dict[str, Any]:
    expected: dict[str, Any] = {"eval_time": f"{case.minutes}m", "alertname": alert.name, "exp_alerts": []}
    if case.fires:
        found = labels(plan, alert) | dict(case.labels)
        expected["exp_alerts"] = [{"exp_labels": found, "exp_annotations": annotations(alert, base)}]
    return _case(alert.name, case) | {"alert_rule_test": [expected]}
