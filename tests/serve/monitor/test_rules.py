"""Rules, routes, tests, dashboard and runbooks of a plan: what they name is exported, and edits are kept."""

import json
import re
from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import typer
import yaml
from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.parser import text_string_to_metric_families

from seatrial.optimize.errors import ConfigError, IntegrityError
from seatrial.serve.cli import app
from seatrial.serve.monitor.alarms import Watched
from seatrial.serve.monitor.plan import Feature, Plan, load_plan
from seatrial.serve.monitor.rules import alert, dashboard, files, objectives
from seatrial.serve.monitor.service import Service, Tiers
from seatrial.serve.monitor.watch_metrics import Standing, WatchMetrics
from seatrial.serve.traffic.envoy.metering import MeteredEdge
from tests.support.commands import within

EXAMPLE = load_plan(Path(__file__).parents[3] / "serve" / "monitors" / "example.toml")
PLAIN = Plan(schema=1, model="m", features={"age": Feature(kind="number")})
SERIES = re.compile(r"\b(?P<name>(?:seatrial|nv)_[a-z_]+)(?:\{(?P<labels>[^}]*)\})?")
LABEL = re.compile(r'(\w+)\s*(?:=~|!=|=)\s*"(?:[^"\\]|\\.)*"')
RECORDED = re.compile(r"\bmodel:[a-z_]+:ratio_rate\w+")


def of(service: Service, plan: Plan = PLAIN) -> Plan:
    return replace(plan, service=service)


PLANS = {
    "example": EXAMPLE,
    "plain": PLAIN,
    "strict": of(Service(availability=0.99999, latency=0.999, latency_seconds=10.0, failures=40, worth=1.0)),
    "loose": of(Service(availability=0.5, latency=0.4, latency_seconds=0.001, failures=1)),
    "triton": of(Service(source="triton", availability=0.99, webhook="http://127.0.0.1:9/x", owner="a: b")),
    "nothing": of(Service(availability=0.0)),
}


@pytest.fixture(scope="module")
def exposed() -> Mapping[str, set[str]]:
    """Every series that our exporters expose, with its labels, asked from their own exposition."""
    registry = CollectorRegistry()
    edge = MeteredEdge(registry)
    edge.offers(["loans", "m"])
    standing = Standing(last_look=1.0, watched=Watched(until=2.0), evidence=0.1)
    registry.register(WatchMetrics("loans", every=60.0, standing=standing))
    found: dict[str, set[str]] = {}
    for family in text_string_to_metric_families(generate_latest(registry).decode()):
        for sample in family.samples:
            found.setdefault(sample.name, set()).update(sample.labels)
    return found


def queries(plan: Plan) -> Iterator[str]:
    made, alerts = files.contents(plan)
    indicators = objectives.indicators(plan)
    for group in yaml.safe_load(made[f"{plan.model}.rules.yml"])["groups"]:
        yield from (rule["expr"] for rule in group["rules"])
    for test in yaml.safe_load(made[f"{plan.model}.tests.yml"])["tests"]:
        yield from (each["series"] for each in test["input_series"])
    yield from dashboard.queries(plan, indicators)
    yield from (each.expr for each in alerts)


@pytest.mark.parametrize("name", [name for name in PLANS if name != "triton"])
def test_every_series_and_label_that_is_named_is_exported(name: str, exposed: Mapping[str, set[str]]) -> None:
    recorded = {each.name for one in objectives.indicators(PLANS[name]) for each in objectives.recorded(one)}
    seen = 0
    for query in queries(PLANS[name]):
        for match in SERIES.finditer(RECORDED.sub("", query)):
            assert match["name"] in exposed, query
            assert set(LABEL.findall(match["labels"] or "")) <= exposed[match["name"]], query
            seen += 1
        assert set(RECORDED.findall(query)) <= recorded, query
    assert seen > 20


def test_a_series_that_nobody_exports_would_be_found(exposed: Mapping[str, set[str]]) -> None:
    assert "seatrial_edge_latency_total" not in exposed
    assert SERIES.findall('rate(seatrial_edge_latency_total{x="1"}[5m])') == [("seatrial_edge_latency_total", 'x="1"')]


@pytest.mark.parametrize("name", PLANS)
def test_each_alert_has_a_firing_and_a_quiet_case_and_a_runbook(name: str) -> None:
    plan = PLANS[name]
    made, alerts = files.contents(plan)
    assert len({each.name for each in alerts}) == len(alerts)
    tests = yaml.safe_load(made[f"{plan.model}.tests.yml"])["tests"]
    for each in alerts:
        assert {case.fires for case in each.cases} == {True, False}, each.name
        page = made[f"runbooks/{each.name}.md"]
        for part in ("## Threshold", "## First checks", "## Roll back", "## Escalation", "## Messages", each.expr):
            assert part in page, each.name
        assert plan.service.owner in page
        mine = [test for test in tests if test["name"].startswith(f"{each.name}:")]
        assert len(mine) == len(each.cases)
    recorded = [each for one in objectives.indicators(plan) for each in objectives.recorded(one)]
    assert all(len({case.value for case in each.cases}) == 2 for each in recorded)
    assert {name for name in made if name.startswith("runbooks/")} == {f"runbooks/{each.name}.md" for each in alerts}


@pytest.mark.parametrize("name", PLANS)
def test_commands_of_runbooks_are_ones_that_there_are(name: str) -> None:
    made, _ = files.contents(PLANS[name])
    found = [line.split() for text in made.values() for line in re.findall(r"^ *(seatrial .*)$", text, re.MULTILINE)]
    assert found
    for words in found:
        command: Any = typer.main.get_command(app)
        rest = words[1:]
        while hasattr(command, "commands"):
            assert rest[0] in command.commands, words
            command = command.commands[rest.pop(0)]
        options = {name for each in command.params for name in each.opts}
        assert {each for each in rest if each.startswith("--")} <= options, words


def test_tiers_follow_the_money() -> None:
    alerts = {each.name: each for each in files.contents(EXAMPLE)[1]}
    assert alerts["SeatrialDriftEmergency"].tier == "emergency"
    assert "250.00 EUR an hour" in alerts["SeatrialDriftEmergency"].threshold
    assert alerts["SeatrialAvailabilityBurn1h"].tier == "critical"
    assert alerts["SeatrialAvailabilityBurn3d"].tier == "warning"
    assert alerts["SeatrialSilence"].tier == "emergency"
    assert alerts["SeatrialAvailabilityLoss"].tier == "emergency"
    plain = {each.name: each for each in files.contents(PLAIN)[1]}
    assert plain["SeatrialSilence"].tier == plain["SeatrialAvailabilityLoss"].tier == "critical"
    cheap = of(Service(worth=1000.0, tiers=Tiers(critical=1.0, emergency=10.0)))
    assert {each.name: each.tier for each in files.contents(cheap)[1]}["SeatrialAvailabilityBurn1h"] == "emergency"
    assert cheap.service.tier(0.0005) == "warning"
    assert cheap.service.tier(0.002) == "critical"
    assert PLAIN.service.tier(1.0) == "critical"


def test_a_higher_tier_inhibits_the_lower_ones_of_its_model() -> None:
    [document] = yaml.safe_load_all(files.contents(EXAMPLE)[0]["loans.alertmanager.yml"])
    rules = [(each["source_matchers"], each["target_matchers"], each["equal"]) for each in document["inhibit_rules"]]
    assert rules == [
        (['tier="critical"'], ['tier=~"warning"'], ["model"]),
        (['tier="emergency"'], ['tier=~"warning|critical"'], ["model"]),
    ]
    assert [each["receiver"] for each in document["route"]["routes"]] == [
        "loans-emergency",
        "loans-critical",
        "loans-warning",
    ]
    [hooked] = yaml.safe_load_all(files.contents(PLANS["triton"])[0]["m.alertmanager.yml"])
    assert hooked["receivers"][1]["webhook_configs"][0]["url"] == "http://127.0.0.1:9/x"


def test_the_service_is_no_part_of_what_a_baseline_depends_on() -> None:
    assert of(Service(worth=3.0)).digest == PLAIN.digest


@pytest.mark.parametrize(
    ("service", "message"),
    [
        ({"latency_seconds": 0.33}, "0.33 s is not a bound"),
        ({"latency_seconds": 0.3, "source": "triton"}, "Triton has no histogram"),
    ],
)
def test_objectives_that_nothing_shows_are_refused(service: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message) as caught:
        files.contents(of(Service(**service)))
    assert caught.value.next_step
    if "0.33" in message:
        assert "0.3 or 0.4" in caught.value.next_step


@pytest.mark.parametrize(
    "service",
    [
        {"tiers": Tiers(critical=1.0)},
        {"worth": 10.0, "tiers": Tiers(critical=6.0)},
        {"owner": "a\nb"},
        {"webhook": "mail"},
    ],
)
def test_a_service_that_makes_no_sense_is_refused(service: dict[str, Any]) -> None:
    with pytest.raises(ConfigError):
        Service(**service)


def test_the_same_plan_gives_the_same_bytes_and_edits_are_kept(tmp_path: Path) -> None:
    out = tmp_path / "rules"
    plan = tmp_path / "plan.toml"
    text = 'schema = 1\nmodel = "m"\n[features.age]\nkind = "number"\n[service]\n'
    plan.write_text(text + "latency_seconds = 0.3\n")
    assert within("rules", str(plan), "--out", str(out)).exit_code == 0
    first = {path.relative_to(out): path.read_bytes() for path in out.rglob("*") if path.is_file()}
    assert Path("runbooks/SeatrialLatencyBurn1h.md") in first
    assert within("rules", str(plan), "--out", str(out)).exit_code == 0
    assert {path.relative_to(out): path.read_bytes() for path in out.rglob("*") if path.is_file()} == first
    (out / "own.rules.yml").write_text("groups: []\n")
    page = out / "runbooks" / "SeatrialSilence.md"
    page.write_text(page.read_text() + "\nCall Ada.\n")
    done = within("rules", str(plan), "--out", str(out))
    assert done.exit_code == 2
    assert "SeatrialSilence.md" in done.output
    assert "--force" in done.output
    assert "Call Ada" in page.read_text()
    plan.write_text(text)  # without the objective of latency
    assert within("rules", str(plan), "--out", str(out), "--force").exit_code == 0
    assert "Call Ada" not in page.read_text()
    assert not (out / "runbooks" / "SeatrialLatencyBurn1h.md").exists()
    assert (out / "own.rules.yml").read_text() == "groups: []\n"
    assert not list(tmp_path.glob(".seatrial*"))


def test_a_folder_is_one_models_and_foreign_files_are_not_overwritten(tmp_path: Path) -> None:
    made, _ = files.contents(PLAIN)
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "m.rules.yml").write_text("mine")
    with pytest.raises(ConfigError, match=r"m\.rules\.yml differ"):
        files.write(made, tmp_path / "out", model="m")
    files.write(made, tmp_path / "out", model="m", force=True)
    with pytest.raises(ConfigError, match="rules of the model m"):
        files.write(made, tmp_path / "out", model="other")
    (tmp_path / "out" / files.MARK).write_text('{"schema": 1, "files": 3}')
    with pytest.raises(IntegrityError):
        files.write(made, tmp_path / "out", model="m")
    with pytest.raises(ConfigError, match="in the place of the folder"):
        files.write(made, tmp_path / "out" / "m.rules.yml", model="m")


def test_the_dashboard_has_a_panel_for_each_figure() -> None:
    made, _ = files.contents(EXAMPLE)
    document = json.loads(made["loans.dashboard.json"])
    titles = [each["title"] for each in document["panels"]]
    assert len(titles) == 10
    assert any("Latency" in title for title in titles)
    assert len({each["id"] for each in document["panels"]}) == 10


def test_values_are_quoted() -> None:
    assert alert.quoted('a"b\\c') == '"a\\"b\\\\c"'


@pytest.mark.parametrize("name", ["../../elsewhere", "a/b", "", "a b"])
def test_a_model_whose_name_would_leave_its_folder_is_refused(name: str) -> None:
    with pytest.raises(ConfigError, match="model name"):
        replace(PLAIN, model=name)
