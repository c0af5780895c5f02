"""What a server counted: differences, counters that went back, text of Prometheus, and servers that count nothing."""

import json
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from seatrial.bench import server_statistics as counting
from seatrial.bench.measurement import Unavailable
from seatrial.bench.server_statistics import ModelStatistics, ServerCounts, difference
from seatrial.bench.targets import Endpoint

ZERO = ModelStatistics(
    name="m",
    version="1",
    inferences=0,
    executions=0,
    successes=0,
    failures=0,
    batch_sizes={},
    queue_ns=0,
    compute_input_ns=0,
    compute_infer_ns=0,
    compute_output_ns=0,
)
TEXT = """# HELP nv_inference_request_success Number of successful inference requests
# TYPE nv_inference_request_success counter
nv_inference_request_success{model="m",version="1"} 7
nv_inference_request_success{model="other",version="1"} 99
# TYPE nv_inference_request_failure counter
nv_inference_request_failure{model="m",reason="OTHER",version="1"} 2
nv_inference_request_failure{model="m",reason="BACKEND",version="1"} 3
# TYPE nv_inference_pending_request_count gauge
nv_inference_pending_request_count{model="m",version="1"} 5
# TYPE nv_cpu_utilization gauge
nv_cpu_utilization 0.5
"""


def reply(requests: int, executions: int) -> dict[str, Any]:
    """What Triton answers, with 2 ms of queue and 3 ms of compute a request."""
    kinds = {"queue": 2, "compute_input": 1, "compute_infer": 1, "compute_output": 1, "success": 5}
    sums = {name: {"count": requests, "ns": requests * each * 10**6} for name, each in kinds.items()}
    return {
        "name": "m",
        "version": "1",
        "inference_count": requests,
        "execution_count": executions,
        "inference_stats": sums | {"fail": {"count": 0, "ns": 0}},
        "batch_stats": [{"batch_size": 4, "compute_infer": {"count": executions, "ns": 1}}],
    }


@contextmanager
def answering(pages: Mapping[str, Callable[[], tuple[int, bytes]]]) -> Iterator[Endpoint]:
    """An endpoint on a server that answers these paths, and 404 to others."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            status, body = pages.get(self.path, lambda: (404, b""))()
            self.send_response(status)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, format: str, *args: Any) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
    url = f"127.0.0.1:{server.server_address[1]}"
    try:
        yield Endpoint(url=url, model="m", version="1", inputs=(), outputs=(), metrics_url=f"http://{url}/metrics")
    finally:
        server.shutdown()
        server.server_close()


def test_a_window_holds_the_differences_since_it_was_told_to_begin() -> None:
    looks = iter([(10, 10), (26, 14), (126, 39)])
    page = {"/v2/models/m/versions/1/stats": lambda: (200, json.dumps({"model_stats": [reply(*next(looks))]}).encode())}
    with answering(page) as endpoint, counting.window(endpoint) as window:
        window.begin(0.0)
        window.begin(0.5)
    counted = window.counted
    assert isinstance(counted, ServerCounts)
    assert (counted.requests, counted.executions, counted.batch_sizes) == (100, 25, {4: 25})
    assert counting.mean_queue(counted) == pytest.approx(0.002)
    assert counting.mean_compute(counted) == pytest.approx(0.003)
    assert ServerCounts.from_json(json.loads(json.dumps(counted.to_json()))) == counted
    assert [value for _, value, _ in counting.lines(counted)] == ["2.00 ms", "3.00 ms", "25"]


def test_prometheus_counters_are_the_model_s_own_and_no_gauges() -> None:
    values = iter([TEXT, TEXT.replace('version="1"} 7', 'version="1"} 57')])
    stats = json.dumps({"model_stats": [reply(1, 1)]}).encode()
    pages = {
        "/v2/models/m/versions/1/stats": lambda: (200, stats),
        "/metrics": lambda: (200, next(values).encode()),
    }
    with answering(pages) as endpoint, counting.window(endpoint) as window:
        pass
    assert window.counted.to_json()["metrics"] == {"nv_inference_request_success": 50}
    assert counting.parsed(TEXT, "m", "1") == {
        "nv_inference_request_success": 7,
        'nv_inference_request_failure{reason="OTHER"}': 2,
        'nv_inference_request_failure{reason="BACKEND"}': 3,
    }
    assert counting.parsed("no metrics at all {", "m", "1") == {}


@pytest.mark.parametrize(
    ("page", "said"),
    [
        ((404, b"{}"), "no statistics extension (HTTP 404)"),
        ((200, b"<html>"), "cannot be read"),
        ((200, b'{"model_stats": []}'), "counts 0 versions"),
        ((200, b'{"model_stats": [{"name": "m"}]}'), "cannot be read"),
    ],
)
def test_a_server_that_counts_nothing_says_why_and_is_no_error(page: tuple[int, bytes], said: str) -> None:
    with answering({"/v2/models/m/versions/1/stats": lambda: page}) as endpoint, counting.window(endpoint) as window:
        pass
    assert isinstance(window.counted, Unavailable)
    assert said in window.counted.unavailable
    assert counting.mean_queue(window.counted) is counting.mean_compute(window.counted) is None
    assert said in counting.lines(window.counted)[0][2]


@pytest.mark.parametrize("url", ["http://127.0.0.1:9/metrics", "http://[", "http://x:y/", None])
def test_metrics_that_cannot_be_read_say_why_and_leave_the_rest(url: str | None) -> None:
    stats = json.dumps({"model_stats": [reply(3, 3)]}).encode()
    with answering({"/v2/models/m/versions/1/stats": lambda: (200, stats)}) as endpoint:
        metrics = url or f"http://{endpoint.url}/nothing"
        with counting.window(replace(endpoint, metrics_url=metrics)) as window:
            pass
    assert isinstance(window.counted, ServerCounts)
    assert window.counted.requests == 0
    assert window.counted.metrics_unavailable
    assert "metrics" not in window.counted.to_json()


def test_a_server_that_is_gone_is_no_error_either() -> None:
    endpoint = Endpoint(url="127.0.0.1:9", model="m", version="1", inputs=(), outputs=())
    with counting.window(endpoint) as window:
        pass
    assert isinstance(window.counted, Unavailable)
    assert "no answer" in window.counted.unavailable


def test_counters_that_went_back_are_not_believed() -> None:
    for first, last in ({"successes": 9}, {"successes": 3}), ({"batch_sizes": {4: 9}}, {"batch_sizes": {4: 3}}):
        found = difference(replace(ZERO, **first), replace(ZERO, **last))
        assert isinstance(found, Unavailable)
        assert "was reloaded" in found.unavailable


@given(st.integers(0, 10**6), st.integers(0, 10**6), st.dictionaries(st.integers(1, 64), st.integers(0, 1000)))
def test_two_windows_in_a_row_count_what_one_over_both_counts(one: int, two: int, sizes: dict[int, int]) -> None:
    middle = replace(ZERO, successes=one, queue_ns=one * 1000, batch_sizes=sizes)
    last = replace(
        middle, successes=one + two, queue_ns=(one + two) * 1000, batch_sizes={key: n + 1 for key, n in sizes.items()}
    )
    first, second, whole = difference(ZERO, middle), difference(middle, last), difference(ZERO, last)
    assert isinstance(first, ServerCounts)
    assert isinstance(second, ServerCounts)
    assert isinstance(whole, ServerCounts)
    assert first.requests + second.requests == whole.requests == one + two
    assert first.queue + second.queue == pytest.approx(whole.queue)
    for size, count in whole.batch_sizes.items():
        assert first.batch_sizes.get(size, 0) + second.batch_sizes.get(size, 0) == count


def test_time_by_batch_size_is_input_inference_and_output_together() -> None:
    said = reply(8, 2)
    parts = {name: {"count": 2, "ns": ns} for name, ns in (("compute_input", 1), ("compute_infer", 20), ("other", 9))}
    said["batch_stats"] = [{"batch_size": 4, **parts, "compute_output": {"count": 2, "ns": 300}}]
    counted = counting.statistics_of(said)
    assert counted.batch_sizes == {4: 2}
    assert counted.batch_ns == {4: 321}
