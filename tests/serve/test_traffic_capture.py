"""The capture: who is chosen, what the proxy is told, and what must never be in it."""

import os
import time
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from optimize.errors import ConfigError
from serve.traffic import capture as capturing
from serve.traffic import on_capture
from serve.traffic.capture import Capture, ShadowLimits


def capture(**changes: Any) -> Capture:
    return Capture(**{"folder": Path("/tmp/none"), "share": 0.2, "until": time.time() + 60, **changes})


@given(st.text(max_size=60), st.floats(0, 1), st.floats(0, 1), st.text(max_size=10))
def test_whoever_is_chosen_stays_chosen_as_the_share_rises(
    request_id: str, one: float, other: float, salt: str
) -> None:
    low, high = sorted((one, other))
    assert 0.0 <= capturing.position(request_id, salt) < 1.0
    assert capturing.chosen(request_id, high, salt) >= capturing.chosen(request_id, low, salt)
    assert not capturing.chosen(request_id, 0.0, salt)
    assert capturing.chosen(request_id, 1.0, salt)


@pytest.mark.parametrize("spelling", ["{}", "request-{:08d}", "{:x}-a"])
@pytest.mark.parametrize("share", [0.01, 0.2, 0.5])
def test_the_share_is_met_for_ids_that_only_count(spelling: str, share: float) -> None:
    got = sum(capturing.chosen(spelling.format(number), share, "salt") for number in range(20_000)) / 20_000
    assert abs(got - share) < 4 * (share * (1 - share) / 20_000) ** 0.5


def test_another_salt_is_another_choice() -> None:
    ids = [f"id-{number}" for number in range(5000)]
    both = sum(capturing.chosen(each, 0.2, "a") and capturing.chosen(each, 0.2, "b") for each in ids)
    assert 0.02 < both / 5000 < 0.06  # 0.04 where they are independent


@pytest.mark.parametrize(
    "wrong", [{"share": 1.5}, {"until": float("inf")}, {"most_bytes": 0}, {"bytes_per_minute": 10}]
)
def test_a_capture_has_an_end_and_bounds(wrong: dict[str, Any]) -> None:
    with pytest.raises(ConfigError):
        capture(**wrong)


def test_a_salt_cannot_write_code_for_the_proxy() -> None:
    document = capturing.primary_filter(capture(salt='"\nos.exit() -- \\'))
    source = document["typed_config"]["default_source_code"]["inline_string"]
    assert "os.exit" not in source


def test_the_twin_of_a_route_mirrors_marked_requests_alone() -> None:
    route: dict[str, Any] = {
        "name": "net",
        "match": {"prefix": "/v2/models/net/", "headers": [{"name": "x-segment", "present_match": True}]},
        "route": {"cluster": "net_v1", "timeout": "5s"},
    }
    twin = capturing.mirrored(route, "net_mirror")
    assert twin["match"]["headers"][-1] == {"name": capturing.HEADER, "present_match": True}
    assert twin["match"]["headers"][0] == route["match"]["headers"][0]
    assert twin["route"] | {"request_mirror_policies": None} == route["route"] | {"request_mirror_policies": None}
    assert [each["cluster"] for each in twin["route"]["request_mirror_policies"]] == ["net_mirror"]
    assert "request_mirror_policies" not in route["route"]


def test_the_mirror_has_limits_of_its_own_and_a_second_listener_on_loopback_alone() -> None:
    limits = ShadowLimits(requests=3, pending=2, seconds=0.5)
    live: dict[str, Any] = {"name": "net_v2", "circuit_breakers": {"thresholds": [{"max_requests": 9999}]}}
    own = capturing.limited(live, limits)
    assert own["circuit_breakers"]["thresholds"][0]["max_requests"] == 3
    assert live["circuit_breakers"]["thresholds"][0]["max_requests"] == 9999
    listener = capturing.shadow_listener(capture(), limits, name="s", port=1, http_cluster="a", grpc_cluster="b")
    assert listener["address"]["socket_address"]["address"] == "127.0.0.1"
    manager = listener["filter_chains"][0]["filters"][0]["typed_config"]
    assert {each["route"]["timeout"] for each in manager["route_config"]["virtual_hosts"][0]["routes"]} == {"0.5s"}
    wide = capturing.mirror_cluster("m", 1, limits)["circuit_breakers"]["thresholds"][0]["max_requests"]
    assert wide > limits.requests + limits.pending, "else the mirror is refused where no id is written down"


def test_answers_that_nobody_adds_to_are_forgotten_and_the_collector_reads_on(tmp_path: Path) -> None:
    on_capture.make_private(tmp_path)
    log, collector = tmp_path / "stable.log", on_capture.Collector(tmp_path, lambda: None)
    log.write_text('{"id": "first", "at": "1.0", "kept": "whole", "body": "aaaaaaaaaaaaaaaaaaaa"}\n')
    assert [each.id for each in collector.poll()] == ["first"]
    assert not on_capture.expire(tmp_path, 60.0)
    os.utime(log, (1.0, 1.0))
    assert on_capture.expire(tmp_path, 60.0)
    assert not on_capture.expire(tmp_path, 60.0)
    with log.open("a") as stream:
        stream.write('{"id": "b", "at": "2.0"}\n')
    assert [each.id for each in collector.poll()] == ["b"]
    assert on_capture.expire(tmp_path, 60.0, most_bytes=5)
