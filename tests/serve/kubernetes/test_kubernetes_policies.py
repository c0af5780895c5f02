"""What callers may send to a cluster: routes without streams, stripped headers, time limits, Envoy Gateway's policies.

The policies' fields were held against the schemas of Envoy Gateway 1.5, 1.6 and 1.9 by hand, since those are not ours
to ship; `tests/system/test_gateway.py` puts the same limits in force in a real Envoy.
"""

import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from seatrial.optimize.errors import ConfigError
from seatrial.serve.deployment import Deployment
from seatrial.serve.kubernetes import envoy_gateway, guard
from seatrial.serve.kubernetes import render as rendering
from seatrial.serve.kubernetes.argo import route as argo_route
from seatrial.serve.kubernetes.cluster import Cluster, Gateway, Limits
from seatrial.serve.kubernetes.on_kubectl import _with
from seatrial.serve.kubernetes.routes import grpc_route, http_route, read
from seatrial.serve.kubernetes.source import Source
from seatrial.serve.security.audit import audit_folder
from seatrial.serve.traffic.routes import Routes

pytestmark = pytest.mark.experimental("Kubernetes")

CLUSTER = Cluster(
    schema=1,
    hostname="models.example.com",
    grpc_hostname="grpc.models.example.com",
    digest="sha256:" + "5" * 64,
    gateway=Gateway(implementation="envoy-gateway", listener="https", grpc_listener="grpc"),
)
STREAMS = replace(CLUSTER, streams=True)
SPLIT = Routes(model="scenes", stable=3, candidate=4, share=0.05, mirror=0.5)
CONFIG = 'name: "scenes"\nbackend: "onnxruntime"\nmax_batch_size: 8\nversion_policy { specific { versions: 3 } }\n'


def spec(policies: list[dict[str, Any]], kind: str, name: str) -> dict[str, Any]:
    [found] = [each for each in policies if each["kind"] == kind and each["metadata"]["name"] == name]
    return dict(found["spec"])


def methods(cluster: Cluster) -> set[str]:
    [rule] = grpc_route(SPLIT, cluster)["spec"]["rules"]
    return {match["method"]["method"] for match in rule["matches"]}


def test_streams_pass_only_where_they_are_offered() -> None:
    assert methods(CLUSTER) == {"ModelInfer", "ModelMetadata", "ModelReady"}
    assert methods(STREAMS) == {"ModelInfer", "ModelMetadata", "ModelReady", "ModelStreamInfer"}


@pytest.mark.parametrize("streams", [False, True])
def test_every_rule_takes_off_the_header_that_ends_a_server(streams: bool) -> None:
    cluster = replace(CLUSTER, streams=streams)
    for route in (http_route(SPLIT, cluster), grpc_route(SPLIT, cluster), argo_route(http_route(SPLIT, cluster))):
        for rule in route["spec"]["rules"]:
            removed = [
                each["requestHeaderModifier"]["remove"] for each in rule["filters"] if "requestHeader" in str(each)
            ]
            assert removed == [["triton_grpc_error"]]
            assert route["kind"] == "GRPCRoute" or rule["timeouts"] == {"request": "30s", "backendRequest": "30s"}


def test_moving_weights_keeps_limits_and_adds_the_filter_to_routes_of_an_earlier_release() -> None:
    old = http_route(SPLIT, CLUSTER)
    [rule] = old["spec"]["rules"]
    rule["filters"] = [each for each in rule["filters"] if each["type"] == "RequestMirror"]
    for reference in rule["backendRefs"]:  # as a cluster completes them
        reference |= {"group": "", "kind": "Service"}
    wanted = _with(old, replace(SPLIT, share=0.5))
    [made] = wanted["spec"]["rules"]
    assert [each["type"] for each in made["filters"]] == ["RequestMirror", "RequestHeaderModifier"]
    assert made["timeouts"] == rule["timeouts"]
    assert made["matches"] == rule["matches"]
    assert read(wanted, "scenes").share == 0.5


def test_requests_are_bounded_and_never_sent_again_to_another_server() -> None:
    policies = envoy_gateway.of_routes(SPLIT, CLUSTER)
    for name, kind in (("scenes-http", "HTTPRoute"), ("scenes-grpc", "GRPCRoute")):
        found = spec(policies, "BackendTrafficPolicy", name)
        assert found["targetRefs"] == [{"group": "gateway.networking.k8s.io", "kind": kind, "name": "scenes"}]
        assert found["retry"]["retryOn"]["triggers"] == ["connect-failure"]
        assert found["requestBuffer"] == {"limit": "16Mi"}
        assert found["timeout"]["http"]["requestTimeout"] == "30s"
        passive = found["healthCheck"]["passive"]
        assert (passive["consecutive5XxErrors"], passive["splitExternalLocalOriginErrors"]) == (0, True)
        assert passive["maxEjectionPercent"] < 100
        assert "consecutiveGatewayErrors" not in passive
        assert (
            found["connection"]["bufferLimit"] > CLUSTER.limits.body_bytes
        )  # else the filter's own limit is never met
    [lua] = spec(policies, "EnvoyExtensionPolicy", "scenes")["lua"]
    assert lua["inline"] == guard.lua(CLUSTER.limits)
    assert "MOST_HEADERS, DEEPEST = 6000, 64" in lua["inline"]
    assert not re.search(r"@[A-Z]+@", lua["inline"])


def test_connections_are_bounded_by_listener_and_streams_are_not_cut() -> None:
    for cluster, limited in ((CLUSTER, True), (STREAMS, False)):
        policies = envoy_gateway.of_gateway(cluster)
        assert {each["metadata"]["namespace"] for each in policies} == {"gateway"}
        https, grpc = (spec(policies, "ClientTrafficPolicy", f"public-{name}") for name in ("https", "grpc"))
        assert https["targetRefs"][0]["sectionName"] == "https"
        assert https["timeout"]["http"]["requestReceivedTimeout"] == "15s"
        assert ("requestReceivedTimeout" in grpc["timeout"]["http"]) is limited
        assert grpc["connection"]["connectionLimit"] == {"value": 2048}
        backend = spec(envoy_gateway.of_routes(SPLIT, cluster), "BackendTrafficPolicy", "scenes-grpc")
        assert ("requestBuffer" in backend) is limited
        assert (backend["timeout"]["http"]["requestTimeout"] != "0s") is limited
    alone = envoy_gateway.of_gateway(replace(CLUSTER, gateway=Gateway(implementation="envoy-gateway")))
    assert [each["metadata"]["name"] for each in alone] == ["public", "public-seatrial"]
    assert "sectionName" not in alone[0]["spec"]["targetRefs"][0]


@pytest.mark.parametrize(
    "cluster", [CLUSTER, STREAMS, replace(CLUSTER, gateway=Gateway())], ids=["", "streams", "plain"]
)
@pytest.mark.slow
def test_what_is_rendered_has_no_finding_and_says_what_is_left(tmp_path: Path, cluster: Cluster) -> None:
    sources = [Source(model="scenes", version=each, config=CONFIG, files=()) for each in (3, 4)]
    deployment = Deployment(schema=1, name="scenes", backend="native", max_batch_size=8)
    files = rendering.render(deployment, sources, SPLIT, cluster)
    rendering.write(files, tmp_path / "out")
    found = audit_folder(tmp_path / "out", None)
    assert not found.findings
    ours = bool(cluster.gateway.implementation)
    assert ("base/policies.yaml" in files, "gateway/policies.yaml" in files) == (ours, ours)
    assert bool(found.unseen) is not ours  # without policies nothing is known of the gateway's limits
    left = rendering.left_to_do(deployment, sources, cluster)
    assert any("parametersRef" in line for line in left) is ours
    assert any("has no fields for them" in line for line in left) is not ours


def test_a_decoupled_model_behind_routes_without_streams_is_told(tmp_path: Path) -> None:
    deployment = Deployment(schema=1, name="scenes", backend="native", max_batch_size=8)
    config = CONFIG + "model_transaction_policy { decoupled: true }\n"
    sources = [Source(model="scenes", version=3, config=config, files=())]
    assert any("decoupled" in line for line in rendering.left_to_do(deployment, sources, CLUSTER))
    assert not any("decoupled" in line for line in rendering.left_to_do(deployment, sources, STREAMS))


@pytest.mark.parametrize(
    ("change", "where"),
    [
        ({"streams": True, "release": "26.03-py3"}, "streams"),
        ({"streams": True, "gateway": Gateway(implementation="envoy-gateway")}, "gateway.grpc_listener"),
        ({"gateway": Gateway(implementation="istio")}, "gateway.implementation"),
        ({"gateway": Gateway(listener="HTTPS")}, "gateway.listener"),
        ({"limits": Limits(body="16M")}, "limits.body"),
        ({"limits": Limits(header_bytes=8000)}, "limits.header_bytes"),
        ({"limits": Limits(json_depth=100_000)}, "limits.json_depth"),
        ({"limits": Limits(seconds=0)}, "limits.seconds"),
        ({"limits": Limits(connections=0)}, "limits.connections"),
    ],
)
def test_a_wrong_limit_names_the_field(change: dict[str, Any], where: str) -> None:
    with pytest.raises(ConfigError) as refused:
        Cluster(schema=1, hostname="models.example.com", grpc_hostname="g.example.com", **change)
    assert refused.value.where == where
