"""Audits of proxies that someone else wrote: each rule in a file that breaks it and in one that does not.

The files are written as people write them before a Triton: Envoy's bootstrap and discovery, and nginx.
"""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from seatrial.serve.security import envoy
from seatrial.serve.security.audit import audit_folder
from tests.support.audited import audited, broken, rules

SOUND = """
admin: {address: {socket_address: {address: 127.0.0.1, port_value: 9901}}}
overload_manager:
  refresh_interval: 0.25s
  resource_monitors:
  - name: envoy.resource_monitors.fixed_heap
    typed_config:
      "@type": type.googleapis.com/envoy.extensions.resource_monitors.fixed_heap.v3.FixedHeapConfig
      max_heap_size_bytes: 2147483648
  - name: envoy.resource_monitors.global_downstream_max_connections
    typed_config:
      max_active_downstream_connections: 1000
  actions:
  - name: envoy.overload_actions.stop_accepting_requests
    triggers: [{name: envoy.resource_monitors.fixed_heap, threshold: {value: 0.95}}]
static_resources:
  listeners:
  - name: ingress
    address: {socket_address: {address: 0.0.0.0, port_value: 8443}}
    filter_chains:
    - transport_socket: {name: envoy.transport_sockets.tls}
      filters:
      - name: envoy.filters.network.http_connection_manager
        typed_config:
          "@type": type.googleapis.com/envoy.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager
          stat_prefix: ingress
          max_request_headers_kb: 8
          request_timeout: 15s
          normalize_path: true
          merge_slashes: true
          path_with_escaped_slashes_action: REJECT_REQUEST
          common_http_protocol_options: {headers_with_underscores_action: REJECT_REQUEST}
          http_filters:
          - name: envoy.filters.http.jwt_authn
          - name: envoy.filters.http.buffer
            typed_config: {max_request_bytes: 16777216}
          - name: envoy.filters.http.ext_proc
          - name: envoy.filters.http.router
          route_config:
            virtual_hosts:
            - name: models
              domains: ["*"]
              routes:
              - match: {path: /v2/models/bert/infer}
                route: {cluster: triton, timeout: 30s, retry_policy: {retry_on: connect-failure, num_retries: 1}}
  clusters:
  - name: triton
    type: STRICT_DNS
    outlier_detection: {consecutive_5xx: 0, consecutive_gateway_failure: 5, max_ejection_percent: 50}
    load_assignment:
      cluster_name: triton
      endpoints:
      - lb_endpoints:
        - endpoint: {address: {socket_address: {address: triton, port_value: 8000}}}
"""


def changed(change: Callable[[Any], object]) -> str:
    document = yaml.safe_load(SOUND)
    change(document)
    return str(yaml.safe_dump(document))


def manager(change: Callable[[Any], object]) -> str:
    def within(document: Any) -> None:
        listener = document["static_resources"]["listeners"][0]
        change(listener["filter_chains"][0]["filters"][0]["typed_config"])

    return changed(within)


def cluster(change: Callable[[Any], object]) -> str:
    return changed(lambda each: change(each["static_resources"]["clusters"][0]))


def route(change: Callable[[Any], object]) -> str:
    return manager(lambda each: change(each["route_config"]["virtual_hosts"][0]["routes"][0]))


def without(name: str) -> Callable[[Any], object]:
    def remove(each: Any) -> None:
        each["http_filters"] = [kept for kept in each["http_filters"] if name not in kept["name"]]

    return remove


ENVOY: list[tuple[str, str, str]] = [
    ("large-headers", "medium", manager(lambda each: each.pop("max_request_headers_kb"))),
    ("large-headers", "medium", manager(lambda each: each.update(max_request_headers_kb="96"))),
    ("slow-requests", "medium", manager(lambda each: each.pop("request_timeout"))),
    ("slow-requests", "medium", manager(lambda each: each.update(request_timeout="0s"))),
    ("proxy-body-limit", "medium", manager(without("buffer"))),
    ("json-depth", "low", manager(without("ext_proc"))),
    ("path-as-sent", "medium", manager(lambda each: each.update(normalize_path=False))),
    ("underscore-headers", "low", manager(lambda each: each.pop("common_http_protocol_options"))),
    ("no-overload-manager", "medium", changed(lambda each: each["overload_manager"].pop("actions"))),
    (
        "no-connection-limit",
        "low",
        changed(lambda each: each["overload_manager"]["resource_monitors"].pop()),
    ),
    ("open-admin", "high", changed(lambda each: each["admin"]["address"]["socket_address"].update(address="0.0.0.0"))),
    ("ejects-everybody", "high", cluster(lambda each: each.update(outlier_detection={"max_ejection_percent": 100}))),
    (
        "ejects-everybody",
        "high",
        cluster(lambda each: each["outlier_detection"].update(consecutive_5xx=5, max_ejection_percent="100")),
    ),
    ("ejects-on-5xx", "low", cluster(lambda each: each.update(outlier_detection={}))),
    ("retries-again", "high", route(lambda each: each["route"]["retry_policy"].update(retry_on="5xx,connect-failure"))),
    ("retries-again", "high", route(lambda each: each["route"]["retry_policy"].update(retry_on="gateway-error"))),
    ("retries-again", "high", route(lambda each: each["route"]["retry_policy"].update(retry_on="unavailable, reset"))),
    ("no-timeout", "low", route(lambda each: each["route"].update(timeout="0s"))),
    ("wide-route", "high", route(lambda each: each.update(match={"prefix": "/"}))),
    ("wide-route", "high", route(lambda each: each.update(match={"safe_regex": {"regex": "/v2/.*"}}))),
]


def test_a_sound_envoy_has_no_finding(tmp_path: Path) -> None:
    assert audited(tmp_path, SOUND) == {}
    assert audit_folder(tmp_path, None).looked == ("1 Envoy configurations: limits, retries, ejection, routes",)


@pytest.mark.parametrize(("rule", "severity", "text"), ENVOY)
def test_a_breach_in_an_envoy_is_found_and_nothing_else(tmp_path: Path, rule: str, severity: str, text: str) -> None:
    assert audited(tmp_path, text) == {rule: severity}


def test_an_envoy_without_an_overload_manager_has_neither_bound(tmp_path: Path) -> None:
    text = changed(lambda each: each.pop("overload_manager"))
    assert audited(tmp_path, text) == {"no-overload-manager": "medium", "no-connection-limit": "low"}
    runtime = "layered_runtime: {layers: [{name: a, static_layer: {overload.global_downstream_max_connections: 9}}]}"
    assert audited(tmp_path, f"{text}\n{runtime}") == {"no-overload-manager": "medium"}


def test_gateway_failures_eject_everybody_only_where_callers_cause_them(tmp_path: Path) -> None:
    ejection = {
        "consecutive_5xx": 0,
        "consecutive_gateway_failure": 3,
        "enforcing_consecutive_gateway_failure": 100,
        "max_ejection_percent": 100,
    }
    document = yaml.safe_load(cluster(lambda each: each.update(outlier_detection=ejection)))
    assert audited(tmp_path, yaml.safe_dump(document)) == {}
    config = document["static_resources"]["listeners"][0]["filter_chains"][0]["filters"][0]["typed_config"]
    config["max_request_headers_kb"] = 60
    assert audited(tmp_path, yaml.safe_dump(document)) == {"ejects-everybody": "high", "large-headers": "medium"}


def test_what_only_this_machine_reaches_is_never_high(tmp_path: Path) -> None:
    document = yaml.safe_load(SOUND)
    document["static_resources"]["listeners"][0]["address"]["socket_address"]["address"] = "127.0.0.1"
    document["static_resources"]["clusters"][0]["outlier_detection"] = {"max_ejection_percent": 100}
    policy = document["static_resources"]["listeners"][0]["filter_chains"][0]["filters"][0]["typed_config"]
    policy["route_config"]["virtual_hosts"][0]["retry_policy"] = {"retry_on": "5xx"}
    assert audited(tmp_path, yaml.safe_dump(document)) == {"ejects-everybody": "medium", "retries-again": "medium"}


def test_a_listener_without_encryption_or_authentication_is_open(tmp_path: Path) -> None:
    def open_(each: Any) -> None:
        [chain] = each["static_resources"]["listeners"][0]["filter_chains"]
        del chain["transport_socket"]
        without("jwt")(chain["filters"][0]["typed_config"])

    assert audited(tmp_path, changed(open_)) == {"open-proxy": "medium"}


def test_json_in_camel_case_and_discovery_files_are_read_alike(tmp_path: Path) -> None:
    document = yaml.safe_load(SOUND)
    listener, group = document["static_resources"]["listeners"][0], document["static_resources"]["clusters"][0]
    config = listener["filter_chains"][0]["filters"][0]["typed_config"]
    config["maxRequestHeadersKb"] = config.pop("max_request_headers_kb") * 4
    listener["filterChains"] = listener.pop("filter_chains")[0]  # one message for a list of one, as Envoy takes it
    group["outlierDetection"] = {"consecutive5xx": 5, "maxEjectionPercent": 100}
    del group["outlier_detection"]
    kind = "type.googleapis.com/envoy.config"
    for name, resource in (("lds", {"@type": f"{kind}.listener.v3.Listener", **listener}),
                           ("cds", {"@type": f"{kind}.cluster.v3.Cluster", **group})):  # fmt: skip
        (tmp_path / f"{name}.json").write_text(json.dumps({"version_info": "1", "resources": [resource]}))
    assert rules(audit_folder(tmp_path, None)) == {"large-headers": "medium", "ejects-everybody": "high"}


def test_a_configuration_inside_a_config_map_is_read_too(tmp_path: Path) -> None:
    nginx = "server { location /v2/ { proxy_pass http://triton:8000; limit_conn a 1; } }"
    bad = {"data": {"envoy.yaml": ENVOY[0][2], "nginx.conf": nginx, "notes.txt": "proxy_pass", "broken.yaml": "a: ["}}
    (tmp_path / "map.yaml").write_text(
        yaml.safe_dump({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "proxy"}, **bad})
    )
    found = audit_folder(tmp_path, None)
    assert rules(found) == {"large-headers": "medium", "wide-route": "high"}
    assert any("proxy, broken.yaml" in line for line in found.unseen)
    assert all("ConfigMap proxy" in each.where for each in found.findings)


NGINX = """
events {}
http {
    limit_conn_zone $binary_remote_addr zone=addr:10m;
    upstream triton { server triton-0:8000; server triton-1:8000; }
    server {
        listen 443 ssl;
        client_max_body_size 16m;   # images
        location = /v2/models/resnet/infer {
            limit_conn addr 10;
            proxy_pass http://triton;
            proxy_next_upstream error timeout;
            add_header X-Note "a;b{c}" always;
        }
    }
}
"""


@pytest.mark.parametrize(
    ("rule", "old", "new"),
    [
        ("", "", ""),
        ("proxy-body-limit", "client_max_body_size 16m", "client_max_body_size 0"),
        ("retries-again", "error timeout;", "error timeout non_idempotent;"),
        ("retries-again", "error timeout;", "error timeout http_503 non_idempotent;"),
        ("", "error timeout;", "off;"),
        ("no-connection-limit", "limit_conn addr 10;", ""),
        ("large-headers", "listen 443 ssl;", "listen 443 ssl; large_client_header_buffers 4 64k;"),
        ("", "listen 443 ssl;", "listen 443 ssl; large_client_header_buffers 4 8k;"),
        ("slow-requests", "limit_conn addr 10;", "limit_conn addr 10; proxy_request_buffering off;"),
        ("wide-route", "location = /v2/models/resnet/infer", "location /"),
        ("wide-route", "location = /v2/models/resnet/infer", "location ^~ /v2/"),
        ("wide-route", "location = /v2/models/resnet/infer", "location ~ ^/v2/.*"),
        ("", "location = /v2/models/resnet/infer", "location ~ ^/v2/models/[a-z]+/infer$"),
    ],
)
def test_nginx_before_a_triton(tmp_path: Path, rule: str, old: str, new: str) -> None:
    assert set(audited(tmp_path, NGINX.replace(old, new), "nginx.conf")) == ({rule} if rule else set())


@pytest.mark.parametrize(
    ("upstream", "target", "wide"),
    [
        ("upstream models { server triton-0.triton:8000; }", "http://models", True),
        ("upstream models { server 10.0.0.7:8000; }", "http://models", False),
        ("upstream inference_servers { server 10.0.0.7:5000; }", "http://inference_servers/", True),
        ("", "http://127.0.0.1:8000/triton", False),  # a path is no host
        ("", "https://triton.internal", True),
    ],
)
def test_nginx_names_its_triton_by_host_or_upstream(tmp_path: Path, upstream: str, target: str, wide: bool) -> None:
    text = f"http {{ {upstream} server {{ limit_conn a 9; location / {{ proxy_pass {target}; }} }} }}"
    assert set(audited(tmp_path, text, "nginx.conf")) == ({"wide-route"} if wide else set())


@pytest.mark.parametrize(
    "text",
    [
        "server { proxy_pass x;",
        "proxy_pass x; }",
        'a "proxy_pass',
        "x { content_by_lua_block { proxy_pass } }",
        "{" * 100 + "proxy_pass x;",
    ],
)
def test_what_is_no_nginx_grammar_is_said_to_be_unseen(tmp_path: Path, text: str) -> None:
    (tmp_path / "site.conf").write_text(text)
    found = audit_folder(tmp_path, None)
    assert len(found.unseen) == 1
    assert not found.findings


@given(st.data())
@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@pytest.mark.slow
def test_no_configuration_however_broken_ends_the_audit(data: st.DataObject) -> None:
    document = yaml.safe_load(SOUND)
    static = broken(data, document["static_resources"])
    for each in ({**document, "static_resources": static}, broken(data, document)):
        list(envoy.audit([("x.yaml", each)]))
