"""What lines of the edge's log say about a model's objectives, and what Prometheus reads of it."""

from typing import Any

import pytest
from prometheus_client import CollectorRegistry

from seatrial.serve.traffic.envoy.metering import EdgeMeter, MeteredEdge
from seatrial.serve.traffic.envoy.objectives import SECONDS, served

LINE: dict[str, Any] = {
    "start": 1.0,
    "upstream_us": 12_000,
    "details": "via_upstream",
    "status": 200,
    "flags": "-",
    "route": "m/default",
    "model": "m",
    "version": 2,
    "role": "live",
}


@pytest.mark.parametrize(
    ("change", "failed"),
    [
        ({}, False),
        ({"status": 400}, False),
        ({"status": 503}, True),
        ({"grpc": 0}, False),
        ({"grpc": 3}, False),
        ({"grpc": 13}, True),
        ({"details": "upstream_response_timeout", "status": 504, "flags": "UT"}, True),
        ({"details": "connection_termination", "status": 503, "flags": "UC"}, True),
        ({"details": "no_healthy_upstream", "status": 503, "flags": "UH"}, True),
        ({"details": "overflow", "status": 503, "flags": "UO"}, True),
        ({"details": "downstream_remote_disconnect", "status": 0, "flags": "DC"}, None),
        ({"details": "direct_response", "status": 429, "flags": "RL"}, None),
        ({"details": "direct_response", "status": 422, "refused": "quarantine", "flags": "-"}, None),
        ({"role": "shadow", "status": 503}, None),
        ({"route": "m/about"}, None),
        ({"model": ""}, None),
    ],
)
def test_a_failure_is_the_services_and_not_the_callers(change: dict[str, Any], failed: bool | None) -> None:
    found = served(LINE | change)
    assert (None if found is None else found.failed) is failed
    if failed is False:
        assert found is not None
        assert found.seconds == 0.012


def test_counts_and_the_histogram_stand_at_zero_before_the_first_request() -> None:
    registry = CollectorRegistry()
    meter = MeteredEdge(registry)
    meter.offers(["m"])
    EdgeMeter().offers(["m"])

    def value(name: str, **labels: str) -> float | None:
        return registry.get_sample_value(name, {"model": "m", **labels})

    assert value("seatrial_edge_requests_total", outcome="failed") == 0
    assert value("seatrial_edge_seconds_count") == 0
    meter.request(LINE)
    meter.request(LINE | {"status": 500})
    meter.request(LINE | {"role": "shadow"})
    assert value("seatrial_edge_requests_total", outcome="good") == 1
    assert value("seatrial_edge_requests_total", outcome="failed") == 1
    assert value("seatrial_edge_seconds_bucket", le="0.025") == 1
    assert value("seatrial_edge_seconds_bucket", le="0.01") == 0
    assert list(SECONDS) == sorted(set(SECONDS))
