"""Generated rules in the real promtool, amtool, Prometheus and Alertmanager; the names that a real Triton exports."""

import re
from pathlib import Path
from urllib.request import urlopen

import numpy as np
import pytest
import yaml

from scripts.benchmarks import monitor_alerting
from scripts.benchmarks.monitor_alerting import missing, tool
from seatrial.serve.errors import RequestError
from seatrial.serve.monitor.plan import Plan
from seatrial.serve.monitor.rules import dashboard, files, objectives
from seatrial.serve.triton.control import Control
from seatrial.serve.triton.server import Server
from tests.serve.monitor.test_rules import LABEL, PLANS, SERIES

pytestmark = pytest.mark.system
needed = pytest.mark.skipif(bool(missing()), reason=missing())


@pytest.fixture(params=["example", "strict", "loose", "triton"])
def plan(request: pytest.FixtureRequest) -> Plan:
    return PLANS[request.param]


@needed
def test_rules_and_routes_are_accepted_and_every_case_comes_out(plan: Plan, tmp_path: Path) -> None:
    made, alerts = files.contents(plan)
    files.write(made, tmp_path / "out", model=plan.model)
    out = tmp_path / "out"
    done = tool("promtool", "check", "rules", out / f"{plan.model}.rules.yml")
    assert done.returncode == 0, done.stdout + done.stderr
    series = 7 * len(objectives.indicators(plan))
    assert f"{len(alerts) + series} rules found" in done.stdout
    done = tool("promtool", "test", "rules", out / f"{plan.model}.tests.yml")
    assert done.returncode == 0, done.stdout + done.stderr
    done = tool("amtool", "check-config", out / f"{plan.model}.alertmanager.yml")
    assert done.returncode == 0, done.stdout + done.stderr
    asked = [{"record": f"panel_{at}", "expr": each} for at, each in enumerate(queries(plan))]
    (out / "panels.yml").write_text(yaml.safe_dump({"groups": [{"name": "panels", "rules": asked}]}))
    done = tool("promtool", "check", "rules", out / "panels.yml")
    assert done.returncode == 0, done.stdout + done.stderr


def queries(plan: Plan) -> list[str]:
    return dashboard.queries(plan, objectives.indicators(plan))


@needed
def test_a_case_that_does_not_hold_fails(tmp_path: Path) -> None:
    made, _ = files.contents(PLANS["plain"])
    files.write(made, tmp_path / "out", model="m")
    rules = tmp_path / "out" / "m.rules.yml"
    rules.write_text(rules.read_text().replace("> 0.0144 and", "> 0.9 and"))
    done = tool("promtool", "test", "rules", tmp_path / "out" / "m.tests.yml")
    assert done.returncode != 0
    assert "SeatrialAvailabilityBurn1h" in done.stdout + done.stderr


@needed
def test_an_alarm_reaches_the_webhook_within_three_scrapes_and_inhibits_the_lower_tier(tmp_path: Path) -> None:
    row = monitor_alerting.alert(tmp_path)
    assert row.met, row.value


def test_what_the_rules_ask_of_triton_is_exported_by_it(echo_server: Server) -> None:
    with Control(echo_server.url) as control:
        name = control.index()[0].name
        control.infer(name, 1, {"x": np.ones((1, 4), np.float32)})
        with pytest.raises(RequestError):
            control.infer(name, 1, {"x": -np.ones((1, 4), np.float32)})

    def lines() -> list[str]:
        with urlopen(echo_server.metrics_url, timeout=10) as reply:
            return [line for line in reply.read().decode().splitlines() if f'model="{name}"' in line]

    def failures() -> dict[str, float]:
        pattern = re.compile(r'^nv_inference_request_failure\{.*reason="(\w+)".*\} (\S+)$')
        return {found[1]: float(found[2]) for line in lines() if (found := pattern.match(line))}

    exposed: dict[str, set[str]] = {}
    for line in lines():
        exposed.setdefault(line.partition("{")[0], set()).update(LABEL.findall(line))
    [indicator] = objectives.indicators(PLANS["triton"])
    found = list(SERIES.finditer(f"{indicator.bad} {indicator.all} {indicator.good_series} {indicator.bad_series}"))
    assert len(found) >= 4
    for each in found:
        assert each["name"] in exposed
        assert set(LABEL.findall(each["labels"])) <= exposed[each["name"]]
    assert {"CANCELED", "BACKEND"} <= failures().keys(), "they stand at zero before the first one"
    assert re.search(r'reason!="CANCELED"', indicator.bad)
