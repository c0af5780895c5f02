"""Rollouts of a cluster: the controller on routes and Deployments, by the real kubectl and a gateway's log.

The API is a small one of our own and the gateway's log is written by the test: no cluster and no gateway were met.
"""

import json
import random
import shutil
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import pytest
import yaml

from seatrial.optimize.environment import home
from seatrial.optimize.errors import ConfigError, MissingError
from seatrial.optimize.user_code import Reference
from seatrial.serve.kubernetes import server, world
from seatrial.serve.kubernetes.cluster import Cluster
from seatrial.serve.kubernetes.gateway_log import FORMAT, Addresses, Clients, parse
from seatrial.serve.kubernetes.routes import http_route
from seatrial.serve.kubernetes.source import Source
from seatrial.serve.release.trail_file import TrailFile
from seatrial.serve.traffic.rollout.controller import RolloutPorts, run
from seatrial.serve.traffic.rollout.evidence import Judgement
from seatrial.serve.traffic.rollout.machine import Phase, Rollout
from seatrial.serve.traffic.rollout.plan import Plan, Step
from seatrial.serve.traffic.rollout.records import Records
from seatrial.serve.traffic.routes import Routes
from tests.support import kube_api
from tests.support.kube_nodes import OOM, Nodes, kubeconfig, waiting

pytestmark = pytest.mark.experimental("Kubernetes")

CLUSTER = Cluster(schema=1, hostname="models.example.com")
SHORT = Plan(
    schema=1,
    steps=(Step(share=0.2, requests=20, needs="requests"), Step(share=1.0, requests=20, needs="requests")),
    shadow=None,
    warmup=0.0,
    drain=1.0,
    interval=60.0,
)


def line(at: float, version: int = 4, **changes: Any) -> str:
    """What a gateway logs of one request."""
    said = {"start": f"{at:.6f}", "us": 20_000, "status": 200, "grpc": "-", "flags": "-", "id": f"r{at}"}
    said |= {"attempts": 1, "path": "/v2/models/scenes/infer", "upstream": f"10.0.{version}.1:8000", "route": "scenes"}
    said |= {"details": "via_upstream", "client": "192.0.2.7", "received": 4096, "transport": "-"}
    return json.dumps(said | changes)


def passes(rollout: Rollout) -> Judgement:
    """A judge of the user's."""
    return Judgement(outcome="PASS", reasons=("somebody replayed them",))


def talks(rollout: Rollout) -> str:
    """A judge that does not know how to judge."""
    return "looks good to me"


@dataclass
class Gateway:
    """Time, and a gateway that logs ten requests a second to versions by the weights in force."""

    log: Path
    objects: dict[str, dict[str, Any]]
    nodes: Nodes
    now: float = 1_000_000.0
    fails_at: float = 2.0  # the candidate's share from which on its pods run out of memory
    shares: list[float] = field(default_factory=list)

    def sleep(self, seconds: float) -> None:
        backends = self.objects[kube_api.path_of("HTTPRoute", "scenes")]["spec"]["rules"][0]["backendRefs"]
        shares = {int(each["name"].rpartition("v")[2]): each["weight"] / 10_000 for each in backends}
        for version in shares:  # capacity came before the route, and is there as long as one names it
            deployment = self.objects[kube_api.path_of("Deployment", f"scenes-v{version}")]
            assert deployment["spec"].get("replicas", 1) > 0, version
        new = shares.get(4, 0.0)
        if new >= self.fails_at:
            self.nodes.fate[4] = waiting("CrashLoopBackOff", died=OOM, restarts=1)
        if new not in self.shares[-1:]:
            self.shares.append(new)
        told, per = [], round(1 / new) if new else 0
        for index in range(round(seconds * 10)):
            told.append(line(self.now + index / 10, 4 if per and index % per == 0 else 3))
        with self.log.open("a") as stream:
            stream.write("\n".join(told) + "\n")
        self.now += seconds


@pytest.fixture
def gateway(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Gateway]:
    """A cluster with versions 3, which serves, and 4, which is scaled to none."""
    if not shutil.which("kubectl"):
        pytest.skip("no kubectl on the PATH")
    both = [Source(model="scenes", version=each, config="", files=()) for each in (3, 4)]
    deployments = [server.deployment(each, CLUSTER, gpu=False) for each in both]
    deployments[1]["spec"]["replicas"] = 0
    nodes, route = Nodes(), http_route(Routes(model="scenes", stable=3), CLUSTER)
    with kube_api.serving(route, *deployments, nodes=nodes) as (url, objects):
        for name, value in kubeconfig(tmp_path, url).items():
            monkeypatch.setenv(name, value)
        yield Gateway(log=tmp_path / "gateway.log", objects=objects, nodes=nodes)


def begun(home: Path, gateway: Gateway, golden: str) -> tuple[Records, RolloutPorts]:
    rollout = Rollout(model="scenes", stable=3, candidate=4, digest="sha256:new", plan=SHORT, started=gateway.now)
    records = Records(home, "scenes")
    records.start(rollout)
    reach = world.ClusterConfig(schema=1, namespace="prod", log="gateway.log", golden=golden)
    made = world.reached(reach, rollout, gateway.log.parent)
    return records, replace(made, clock=lambda: gateway.now, sleep=gateway.sleep)


@pytest.mark.slow
def test_a_plan_is_walked_to_its_end_in_a_cluster(tmp_path: Path, gateway: Gateway) -> None:
    ended = run(*begun(tmp_path, gateway, f"{__name__}:passes"))
    assert ended.phase is Phase.PROMOTED, ended.reason
    assert gateway.shares == [0.0, 0.2, 1.0]
    switched = [each.details["shares"] for each in TrailFile(home() / "trail").entries() if each.event == "switched"]
    shares = [{each["version"]: each["share"] for each in entry} for entry in switched]
    assert shares[-3:] == [{3: 0.8, 4: 0.2}, {3: 0.0, 4: 1.0}, {4: 1.0}]
    assert switched[-1][0]["digest"] == "sha256:new"
    assert gateway.nodes.scaled == [(3, 1), (4, 0), (4, 1), (3, 0)]
    [rule] = gateway.objects[kube_api.path_of("HTTPRoute", "scenes")]["spec"]["rules"]
    assert [(each["name"], each["weight"]) for each in rule["backendRefs"]] == [("scenes-v4", 10_000)]


@pytest.mark.slow
def test_a_candidate_that_runs_out_of_memory_goes_back(tmp_path: Path, gateway: Gateway) -> None:
    gateway.fails_at = 0.2
    ended = run(*begun(tmp_path, gateway, f"{__name__}:passes"))
    assert ended.phase is Phase.ROLLED_BACK
    assert "OOMKilled" in ended.reason
    assert gateway.nodes.scaled == [(3, 1), (4, 0), (4, 1), (4, 0)]
    [rule] = gateway.objects[kube_api.path_of("HTTPRoute", "scenes")]["spec"]["rules"]
    assert [(each["name"], each["weight"]) for each in rule["backendRefs"]] == [("scenes-v3", 10_000)]


def test_what_nobody_judges_is_not_passed(tmp_path: Path) -> None:
    rollout = Rollout(model="scenes", stable=3, candidate=4, digest="sha256:new", plan=SHORT)
    made = world.reached(world.ClusterConfig(schema=1, namespace="prod", log="l"), rollout, tmp_path)
    assert (made.golden().outcome, made.agreement().outcome) == ("INCONCLUSIVE", "INCONCLUSIVE")
    judged = world.ClusterConfig(
        schema=1, namespace="prod", log="l", golden=f"{__name__}:talks", agreement=f"{__name__}:passes"
    )
    made = world.reached(judged, rollout, tmp_path)
    assert made.agreement() == passes(rollout)
    with pytest.raises(ConfigError, match="the judge returned a str"):
        made.golden()


def test_settings_come_from_a_file_that_the_environment_names(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    rollout = Rollout(model="scenes", stable=3, candidate=4, digest="sha256:new", plan=SHORT)
    monkeypatch.setenv(world.VARIABLE, str(tmp_path / "reach.toml"))
    cluster = Reference.parse("seatrial.serve.kubernetes.world:cluster", tmp_path).load()  # as the verb finds it
    with pytest.raises(MissingError):
        cluster(rollout)
    (tmp_path / "reach.toml").write_text('schema = 1\nnamespace = "prod"\nlog = "gateway.log"\nkinds = ["GRPCRoute"]\n')
    assert isinstance(cluster(rollout), RolloutPorts)
    wrong: Any
    for wrong in ({"namespace": "Prod"}, {"kinds": ("Ingress",)}, {"kinds": ()}, {"log": ""}, {"schema": 2}):
        with pytest.raises(ConfigError):
            world.ClusterConfig(**({"schema": 1, "namespace": "prod", "log": "l"} | wrong))


def pod(version: int, address: str, since: str) -> dict[str, Any]:
    labels = {"app.kubernetes.io/version": str(version)}
    return {"metadata": {"labels": labels}, "status": {"podIP": address, "startTime": since}}


def test_a_line_belongs_to_the_version_that_had_the_address_then() -> None:
    addresses = Addresses()
    addresses.learn([pod(3, "10.0.4.1", "1970-01-01T00:00:10Z"), pod(5, "fd00::5", "1970-01-01T00:00:10Z")])
    addresses.learn([pod(4, "10.0.4.1", "1970-01-01T00:01:40Z")])  # the other is gone, its address used again
    found = [parse(line(at), "scenes", addresses) for at in (5.0, 50.0, 150.0)]
    assert [each and each.version for each in found] == [None, 3, 4]
    seen = parse(line(150.0, upstream="[fd00::5]:8001", path="/inference.GRPCInferenceService/ModelInfer", grpc=14),
                 "scenes", addresses)  # fmt: skip
    assert seen is not None
    assert (seen.version, seen.failed, seen.role, seen.seconds) == (5, True, "live", 0.02)
    assert set(json.loads(line(1.0))) == set(FORMAT)


def test_the_documented_format_is_the_one_that_is_read() -> None:
    text = (Path(__file__).parents[3] / "docs/kubernetes.md").read_text()
    block = yaml.safe_load(text.partition("```yaml\n")[2].partition("```")[0])
    [setting] = block["spec"]["telemetry"]["accessLog"]["settings"]
    assert setting["format"]["json"] == FORMAT


@pytest.mark.parametrize(
    "text",
    [
        "[info] starting main dispatch loop",
        "7",
        line(150.0, path="/v2/models/scenes/ready"),
        line(150.0, path="/v2/models/others/infer"),
        line(150.0, upstream="-", status=503, flags="UH"),
        line(150.0, upstream="10.9.9.9:8000"),
        line(150.0)[:-9],
        '{"path":' * 5000,
        line(150.0, status=401, details="jwt_authn_access_denied{Jwt_is_missing}"),
        line(150.0, status=429, details="local_rate_limited"),
        line(150.0, status=413, details="request_payload_too_large"),
        line(150.0, status=408, details="request_overall_timeout"),
        line(150.0, status=500, details="lua_response"),
        line(150.0, status=0, details="downstream_remote_disconnect", flags="DC"),
        line(150.0, status=400),
        line(150.0, status=401),
        line(150.0, status=500, received=0),
        line(150.0, status=200, grpc=3, path="/inference.GRPCInferenceService/ModelInfer"),
    ],
)
def test_what_is_no_inference_of_a_known_pod_is_no_evidence(text: str) -> None:
    addresses = Addresses()
    addresses.learn([pod(4, "10.0.4.1", "1970-01-01T00:00:10Z")])
    assert parse(text, "scenes", addresses) is None


LEARNED = Addresses({"10.0.3.1": [(0.0, 3)], "10.0.4.1": [(0.0, 4)]})


def evidence(lines: list[str]) -> tuple[dict[int, tuple[int, int]], Clients]:
    """Requests and failures that count, by version."""
    clients = Clients()
    seen = [each for text in lines if (each := parse(text, "scenes", LEARNED, clients)) is not None]
    versions = {version: [each for each in seen if each.version == version] for version in (3, 4)}
    return {key: (len(mine), sum(each.failed for each in mine)) for key, mine in versions.items()}, clients


def test_one_caller_s_failures_do_not_make_a_version_bad() -> None:
    """Fifty honest requests a second from ten addresses; a stranger sends three that fail, all to the candidate."""
    lines = []
    for second in range(120):
        for index in range(50):
            lines.append(line(second + index / 50, 4 if index % 10 == 0 else 3, client=f"198.51.100.{index % 10}"))
            if index % 17 == 0:
                lines.append(line(second + index / 50, 4, client="203.0.113.9", status=500))
    counted, clients = evidence(lines)
    honest = 120 * 5
    assert counted[4][1] <= 3  # of 360; the first ones, before much is known of the others
    assert clients.unconfirmed[4] == 360 - counted[4][1]
    assert counted[4][0] == honest + counted[4][1]
    assert counted[3] == (120 * 45, 0)


@pytest.mark.parametrize("addresses", [1, 2, 10])
def test_a_bad_version_is_bad_for_everybody_and_counts_in_full(addresses: int) -> None:
    chance, lines, failures = random.Random(7), [], 0
    for index in range(5000):
        bad = chance.random() < 0.04
        failures += bad
        client = f"198.51.100.{chance.randrange(addresses)}"
        lines.append(line(index / 50, 4, client=client, status=503 if bad else 200))
    counted, _ = evidence(lines)
    assert counted[4][1] >= 0.95 * failures


def test_the_caller_that_is_the_traffic_is_believed_beside_a_prober() -> None:
    lines = [line(index / 50, 4, status=500 if index % 50 == 0 else 200) for index in range(5000)]
    lines += [line(index, 4, client="192.0.2.1") for index in range(100)]
    counted, _ = evidence(sorted(lines, key=lambda text: float(json.loads(text)["start"])))
    assert counted[4] == (5100, 100)


def test_a_server_that_cannot_be_connected_to_is_no_caller_s_doing() -> None:
    lines = [line(index / 50, 4, client=f"198.51.100.{index % 10}") for index in range(1000)]
    refused = {"status": 503, "flags": "UF", "details": "upstream_reset_before_response_started{connection_failure}"}
    lines += [line(30 + index, 4, client="203.0.113.9", **refused) for index in range(20)]
    lines += [line(60 + index, 4, client="203.0.113.9", status=503, transport="tls error") for index in range(20)]
    assert evidence(lines)[0][4] == (1040, 40)
    reset = {"status": 503, "details": "upstream_reset_before_response_started{connection_termination}"}
    counted, clients = evidence(lines + [line(90 + index, 4, client="203.0.113.9", **reset) for index in range(20)])
    assert counted[4][1] + clients.unconfirmed[4] == 60


def test_a_log_of_an_earlier_format_is_read_as_before() -> None:
    old = [json.loads(line(index, 4, status=500 if index % 2 else 200)) for index in range(100)]
    for each in old:
        for key in ("details", "client", "received", "transport"):
            del each[key]
    assert evidence([json.dumps(each) for each in old])[0][4] == (100, 50)
