"""Audits of gateways in a cluster that someone else wrote: each rule in an object that breaks it, and in a sound one.

Gateway API, Envoy Gateway, Istio and ingress-nginx, as people write them before a Triton.
"""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from seatrial.serve.security.audit import audit_folder
from seatrial.serve.security.manifests import audit as audit_objects
from tests.support.audited import audited, broken


def policy(kind: str, **spec: Any) -> dict[str, Any]:
    return {
        "apiVersion": "gateway.envoyproxy.io/v1alpha1",
        "kind": kind,
        "metadata": {"name": "models"},
        "spec": {
            "targetRefs": [{"group": "gateway.networking.k8s.io", "kind": "HTTPRoute", "name": "models"}],
            **spec,
        },
    }


CLIENT = policy(
    "ClientTrafficPolicy",
    connection={"connectionLimit": {"value": 1000}},
    timeout={"http": {"requestReceivedTimeout": "10s"}},
)
BACKEND = policy("BackendTrafficPolicy", requestBuffer={"limit": "4Mi"})
EXTENSION = policy("EnvoyExtensionPolicy", lua=[{"type": "Inline", "inline": "function envoy_on_request(h) end"}])
ROUTE = {
    "apiVersion": "gateway.networking.k8s.io/v1",
    "kind": "HTTPRoute",
    "metadata": {"name": "models"},
    "spec": {
        "rules": [
            {
                "matches": [{"path": {"type": "Exact", "value": "/v2/models/bert/infer"}}],
                "timeouts": {"request": "10s"},
                "backendRefs": [{"name": "triton", "port": 8000}],
            }
        ]
    },
}
GRPC = {
    "apiVersion": "gateway.networking.k8s.io/v1",
    "kind": "GRPCRoute",
    "metadata": {"name": "models"},
    "spec": {
        "rules": [
            {
                "matches": [{"method": {"service": "inference.GRPCInferenceService", "method": "ModelStreamInfer"}}],
                "filters": [
                    {"type": "RequestHeaderModifier", "requestHeaderModifier": {"remove": ["Triton_Grpc_Error"]}}
                ],
            }
        ]
    },
}
RULE = {
    "apiVersion": "networking.istio.io/v1",
    "kind": "DestinationRule",
    "metadata": {"name": "triton"},
    "spec": {"host": "triton", "trafficPolicy": {"outlierDetection": {"consecutive5xxErrors": 0,
             "consecutiveGatewayErrors": 5, "maxEjectionPercent": 100}}},
}  # fmt: skip
SERVICE = {
    "apiVersion": "networking.istio.io/v1",
    "kind": "VirtualService",
    "metadata": {"name": "triton"},
    "spec": {
        "http": [
            {
                "route": [{"destination": {"host": "triton"}}],
                "timeout": "10s",
                "retries": {"attempts": 2, "retryOn": "connect-failure"},
            }
        ]
    },
}
INGRESS = {
    "apiVersion": "networking.k8s.io/v1",
    "kind": "Ingress",
    "metadata": {"name": "triton", "annotations": {"nginx.ingress.kubernetes.io/proxy-body-size": "16m"}},
    "spec": {"rules": [{"http": {"paths": [{"path": "/v2/models/bert/infer", "pathType": "Exact",
             "backend": {"service": {"name": "triton", "port": {"number": 8000}}}}]}}]},
}  # fmt: skip
SOUND_OBJECTS = (CLIENT, BACKEND, EXTENSION, ROUTE, GRPC, RULE, SERVICE, INGRESS)


def spec_of(change: Callable[[Any], object]) -> Callable[[Any], object]:
    return lambda document: change(document["spec"])


def first(key: str, change: Callable[[Any], object]) -> Callable[[Any], object]:
    return lambda document: change(document["spec"][key][0])


def detection(**values: Any) -> Callable[[Any], object]:
    return lambda document: document["spec"]["trafficPolicy"].update(outlierDetection=values)


def note(key: str, value: str) -> Callable[[Any], object]:
    return lambda each: each["metadata"]["annotations"].update({f"nginx.ingress.kubernetes.io/{key}": value})


OBJECTS: list[tuple[str, str, Callable[[Any], object]]] = [
    ("no-connection-limit", "ClientTrafficPolicy", spec_of(lambda each: each.pop("connection"))),
    ("slow-requests", "ClientTrafficPolicy", spec_of(lambda each: each.pop("timeout"))),
    (
        "underscore-headers",
        "ClientTrafficPolicy",
        spec_of(lambda each: each.update(headers={"withUnderscoresAction": "Allow"})),
    ),
    (
        "path-as-sent",
        "ClientTrafficPolicy",
        spec_of(lambda each: each.update(path={"escapedSlashesAction": "KeepUnchanged"})),
    ),
    ("proxy-body-limit", "BackendTrafficPolicy", spec_of(lambda each: each.pop("requestBuffer"))),
    (
        "retries-again",
        "BackendTrafficPolicy",
        spec_of(lambda each: each.update(retry={"retryOn": {"triggers": ["5xx", "connect-failure"]}})),
    ),
    (
        "ejects-everybody",
        "BackendTrafficPolicy",
        spec_of(lambda each: each.update(healthCheck={"passive": {"maxEjectionPercent": 100}})),
    ),
    ("ejects-on-5xx", "BackendTrafficPolicy", spec_of(lambda each: each.update(healthCheck={"passive": {}}))),
    ("no-timeout", "HTTPRoute", first("rules", lambda each: each.pop("timeouts"))),
    ("retries-again", "HTTPRoute", first("rules", lambda each: each.update(retry={"codes": [503], "attempts": 2}))),
    (
        "wide-route",
        "HTTPRoute",
        first("rules", lambda each: each.update(matches=[{"path": {"type": "PathPrefix", "value": "/v2"}}])),
    ),
    ("stream-metadata", "GRPCRoute", first("rules", lambda each: each.pop("filters"))),
    ("ejects-everybody", "DestinationRule", detection(consecutive5xxErrors=3, maxEjectionPercent=100)),
    ("ejects-everybody", "DestinationRule", detection(maxEjectionPercent=100)),
    ("ejects-on-5xx", "DestinationRule", detection(interval="5s")),
    ("retries-again", "VirtualService", first("http", lambda each: each["retries"].update(retryOn="5xx,reset"))),
    ("no-timeout", "VirtualService", first("http", lambda each: each.pop("timeout"))),
    ("proxy-body-limit", "Ingress", note("proxy-body-size", "0")),
    ("retries-again", "Ingress", note("proxy-next-upstream", "error timeout non_idempotent")),
    (
        "wide-route",
        "Ingress",
        first("rules", lambda each: each["http"]["paths"][0].update(path="/", pathType="Prefix")),
    ),
]


def copied(*documents: Any) -> list[Any]:
    return [json.loads(json.dumps(each)) for each in documents]


def test_sound_objects_of_gateways_have_no_finding(tmp_path: Path) -> None:
    assert audited(tmp_path, yaml.safe_dump_all(SOUND_OBJECTS), "all.yaml") == {}
    assert not audit_folder(tmp_path, None).unseen


@pytest.mark.parametrize(("rule", "kind", "change"), OBJECTS)
def test_a_breach_in_a_gateway_s_object_is_found_and_nothing_else(
    tmp_path: Path, rule: str, kind: str, change: Callable[[Any], object]
) -> None:
    documents = copied(*SOUND_OBJECTS)
    change(next(each for each in documents if each["kind"] == kind))
    assert set(audited(tmp_path, yaml.safe_dump_all(documents), "all.yaml")) == {rule}
    listed = {"apiVersion": "v1", "kind": "List", "items": documents}  # as kubectl get --output=yaml writes them
    assert set(audited(tmp_path, yaml.safe_dump(listed), "all.yaml")) == {rule}


def test_a_route_alone_leaves_the_gateway_s_limits_unseen(tmp_path: Path) -> None:
    assert audited(tmp_path, yaml.safe_dump(ROUTE), "route.yaml") == {}
    assert any("limits" in line for line in audit_folder(tmp_path, None).unseen)


def test_without_an_extension_nothing_bounds_headers_and_nesting(tmp_path: Path) -> None:
    documents = [each for each in SOUND_OBJECTS if each is not EXTENSION]
    assert audited(tmp_path, yaml.safe_dump_all(documents), "all.yaml") == {
        "large-headers": "medium",
        "json-depth": "low",
    }


@pytest.mark.parametrize(
    ("image", "found"),
    [
        ("nvcr.io/nvidia/tritonserver:26.09-py3@sha256:" + "5" * 64, set()),
        ("nvcr.io/nvidia/tritonserver:26.08-py3@sha256:" + "5" * 64, {"ending-request"}),
        ("nvcr.io/nvidia/tritonserver:25.03-trtllm-python-py3@sha256:" + "5" * 64, {"ending-request", "old-server"}),
    ],
)
def test_releases_that_a_request_ends_are_named(image: str, found: set[str]) -> None:
    pod = {"kind": "Pod", "metadata": {"name": "x"}, "spec": {"containers": [{"name": "triton", "image": image}]}}
    told = {each.rule for each in audit_objects([("x.yaml", pod)])}
    assert told & {"old-server", "ending-request"} == found


@given(st.data())
@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.too_slow])
def test_no_object_however_broken_ends_the_audit(data: st.DataObject) -> None:
    one = data.draw(st.sampled_from(SOUND_OBJECTS))
    list(audit_objects([("x.yaml", {**one, "spec": broken(data, one["spec"])})]))
