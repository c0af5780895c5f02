"""A real Prometheus and a real Alertmanager on generated rules: from a figure that rises to the webhook that hears it.

`scripts/prometheus` fetches both; `missing` says why they are not there.
"""

import json
import os
import subprocess
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field, replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.request import urlopen

import yaml

from scripts.benchmarks.rows import Row
from seatrial.optimize.errors import MachineError
from seatrial.serve import metrics
from seatrial.serve.monitor.alarms import Alarm, Watched
from seatrial.serve.monitor.diagnosis import Cause
from seatrial.serve.monitor.plan import Feature, Plan
from seatrial.serve.monitor.rules import files
from seatrial.serve.monitor.service import Service, Tier
from seatrial.serve.monitor.watch_metrics import ALARM, Standing, WatchMetrics
from seatrial.serve.processes import free_ports, wait

FOLDER = Path(os.environ.get("SEATRIAL_PROMETHEUS") or Path(__file__).parents[2] / ".venv" / "prometheus").absolute()
"""Where `scripts/prometheus` put them; another folder that it was given is named by SEATRIAL_PROMETHEUS."""
SCRAPE = 1.0  # seconds between two scrapes, and two evaluations
MODEL = "loans"
DRIFT, LOWER = "SeatrialDriftCritical", "SeatrialLooksFail"  # alerts of two tiers


def missing() -> str:
    """Return why Prometheus and Alertmanager cannot be run here; empty where they can."""
    if (FOLDER / "bin" / "alertmanager").is_file():
        return ""
    reason = FOLDER / "missing"
    return reason.read_text().strip() if reason.is_file() else f"scripts/prometheus {FOLDER} was not run"


def tool(name: str, *words: str | Path) -> subprocess.CompletedProcess[str]:
    """Run promtool or amtool."""
    command = [str(FOLDER / "bin" / name), *map(str, words)]
    return subprocess.run(command, capture_output=True, text=True, timeout=300, check=False)


@dataclass
class Hook:
    """What a webhook heard: the moment, and the alert's labels with its status."""

    port: int
    heard: list[tuple[float, dict[str, str]]] = field(default_factory=list)

    def first(self, alert: str, status: str = "firing") -> float | None:
        """Return when an alert first came with that status; None where it did not."""
        return next((at for at, each in self.heard if (each["alertname"], each["status"]) == (alert, status)), None)


@contextmanager
def hook() -> Iterator[Hook]:
    """Listen as a webhook of Alertmanager on a free port."""
    found = Hook(port=free_ports(1)[0])

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            now = time.monotonic()
            found.heard.extend((now, {**each["labels"], "status": each["status"]}) for each in body["alerts"])
            self.send_response(200)
            self.end_headers()

        def log_message(self, format: str, *args: Any) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", found.port), Handler) as server:
        thread = threading.Thread(target=server.serve_forever, daemon=True)
        thread.start()
        try:
            yield found
        finally:
            server.shutdown()


@contextmanager
def alerting(folder: Path, plan: Plan, targets: Sequence[str]) -> Iterator[str]:
    """Run both on the rules and routes of a plan; yields Prometheus' address once both are ready.

    Raises:
        MachineError: they are not to be had, or do not start.
    """
    if reason := missing():
        raise MachineError(reason, where=str(FOLDER), next_step="run scripts/prometheus")
    made, _ = files.contents(plan)
    files.write(made, folder / "rules", model=plan.model)
    web, manager = free_ports(2)
    config = {
        "global": {"scrape_interval": f"{SCRAPE:g}s", "evaluation_interval": f"{SCRAPE:g}s"},
        "rule_files": [str(folder / "rules" / f"{plan.model}.rules.yml")],
        "alerting": {"alertmanagers": [{"static_configs": [{"targets": [f"127.0.0.1:{manager}"]}]}]},
        "scrape_configs": [{"job_name": "seatrial", "static_configs": [{"targets": list(targets)}]}],
    }
    (folder / "prometheus.yml").write_text(yaml.safe_dump(config))
    commands = (
        (
            FOLDER / "share",  # where it finds its templates
            (
                "alertmanager",
                f"--config.file={folder / 'rules' / f'{plan.model}.alertmanager.yml'}",
                f"--storage.path={folder / 'alertmanager'}",
                f"--web.listen-address=127.0.0.1:{manager}",
                "--cluster.listen-address=",
            ),
        ),
        (
            folder,
            (
                "prometheus",
                f"--config.file={folder / 'prometheus.yml'}",
                f"--storage.tsdb.path={folder / 'tsdb'}",
                f"--web.listen-address=127.0.0.1:{web}",
            ),
        ),
    )
    with ExitStack() as stack:
        for here, (name, *words) in commands:
            log = stack.enter_context((folder / f"{name}.log").open("wb"))
            process = subprocess.Popen([str(FOLDER / "bin" / name), *words], cwd=here, stdout=log, stderr=log)
            stack.callback(process.wait, 30)
            stack.callback(process.terminate)
        if not wait(lambda: _ready(web) and _ready(manager), 60.0):
            raise MachineError("Prometheus or Alertmanager does not start", where=str(folder))
        yield f"http://127.0.0.1:{web}"


def _ready(port: int) -> bool:
    try:
        with urlopen(f"http://127.0.0.1:{port}/-/ready", timeout=5) as reply:
            return bool(reply.status == 200)
    except OSError:
        return False


def alarmed(tier: Tier, *, failing: bool = False) -> Standing:
    """Return the standing of a watch whose alarm holds, and whose looks fail where `failing`."""
    cause = Cause(kind="data", advice="label", features=("age",), reasons=("age: location: +1 standard deviations",))
    held = Alarm(began=1.0, renewed=1.0, times=1, cause=cause, tier=tier)
    standing = Standing(last_look=time.time(), watched=Watched(until=1.0, alarms=(held,)), evidence=2.0)
    return standing.failed("input") if failing else standing


def plan_with(webhook: int) -> Plan:
    """Return a plan whose alerts go to a webhook on that port; a state of its watch must last for a second."""
    service = Service(availability=0.0, webhook=f"http://127.0.0.1:{webhook}/hook", owner="lending team")
    return Plan(schema=1, model=MODEL, features={"age": Feature(kind="number")}, interval=1.0, service=service)


def alert(folder: Path) -> Row:
    """Time a real alert of a real exporter to a real webhook, while a lower tier of the same model holds."""
    with hook() as heard:
        plan = plan_with(heard.port)
        shown = WatchMetrics(MODEL, every=3600.0, standing=Standing(last_look=time.time(), watched=Watched(until=1.0)))
        registry = metrics.registry()
        registry.register(shown)
        with metrics.Endpoint(registry) as endpoint, alerting(folder, plan, [f"127.0.0.1:{endpoint.port}"]) as address:
            wait(lambda: value(address, f'{ALARM}{{model="{MODEL}",tier="critical"}}') == 0, 30.0)
            time.sleep(3 * SCRAPE)  # quiet, and known to be
            before = heard.first(DRIFT)
            began = time.monotonic()
            shown.standing = alarmed("critical", failing=True)
            wait(lambda: heard.first(DRIFT) is not None, 30.0)
            scrapes = ((heard.first(DRIFT) or float("inf")) - began) / SCRAPE
            time.sleep(35 * SCRAPE)  # longer than the lower tier is gathered before it would be sent
            lower = heard.first(LOWER) is not None
            firing = value(address, f'ALERTS{{alertname="{LOWER}",model="{MODEL}",alertstate="firing"}}') == 1
            shown.standing = replace(alarmed("critical", failing=True), watched=Watched(until=1.0))
            resolved = wait(lambda: heard.first(DRIFT, "resolved") is not None, 120.0)
    return Row(
        name="alert",
        claim="an alarm of a watch to the webhook of Alertmanager, by generated rules and routes, scraped and evaluated"
        " each second; a lower tier of the same model fires too",
        value=f"{scrapes:.1f} scrapes, {'none' if before is None else 'one'} before; lower tier "
        f"{'sent' if lower else 'inhibited'} while it {'fired' if firing else 'did not fire'}; the alarm was "
        f"{'sent as resolved' if resolved else 'not resolved'} afterwards",
        bar="3 scrapes at most, none before; lower tier fires and is inhibited",
        met=scrapes <= 3 and before is None and firing and not lower and resolved,
    )


def value(address: str, query: str) -> float | None:
    """Return what Prometheus answers to a query for one number; None where it has none."""
    from urllib.parse import quote

    with urlopen(f"{address}/api/v1/query?query={quote(query)}", timeout=10) as reply:
        found = json.loads(reply.read())["data"]["result"]
    return float(found[0]["value"][1]) if found else None
