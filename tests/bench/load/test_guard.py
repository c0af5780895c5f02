"""What protects a target: caps, machines that are not ours on every wire, and the rules that stop a run."""

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from seatrial.bench.errors import TargetError
from seatrial.bench.load.guard import AbortRules, address, check
from seatrial.bench.load.parameters import open_loop, peak
from seatrial.bench.load.wire import WIRES, Wire
from seatrial.bench.schedule import Schedule, constant, poisson
from seatrial.bench.targets import Endpoint
from seatrial.optimize.errors import ConfigError

ROOT = Path(__file__).parents[3]


def endpoint(url: str = "127.0.0.1:8000", grpc_url: str | None = "127.0.0.1:8001") -> Endpoint:
    return Endpoint(url=url, grpc_url=grpc_url, model="m", version="1", inputs=(), outputs=())


@pytest.mark.parametrize("wire", WIRES)
def test_another_machine_is_refused_on_every_wire(wire: Wire) -> None:
    limits = {"seconds": 1.0, "in_flight": 1, "workers": 1}
    check(endpoint(), wire, **limits, own=False)  # type: ignore[arg-type]
    with pytest.raises(TargetError, match="not this machine"):
        check(endpoint(url="203.0.113.1:8000"), wire, **limits, own=False)  # type: ignore[arg-type]
    if wire != "shm":
        check(endpoint(url="203.0.113.1:8000"), wire, **limits, own=True)  # type: ignore[arg-type]
        return
    with pytest.raises(TargetError, match="no memory can be shared with it"):
        check(endpoint(url="203.0.113.1:8000"), wire, **limits, own=True)  # type: ignore[arg-type]


def test_the_grpc_side_may_not_be_another_machine_either() -> None:
    away = endpoint(grpc_url="grpc://example.org:8001")
    assert address(away, "grpc") == ("example.org", 8001)
    with pytest.raises(TargetError, match=r"example\.org is not this machine"):
        check(away, "grpc", seconds=1, in_flight=1, workers=1, own=False)
    with pytest.raises(ConfigError, match="gRPC address is unknown"):
        address(endpoint(grpc_url=None), "grpc")


@pytest.mark.parametrize(("seconds", "in_flight", "workers"), [(4000, 1, 1), (1, 9000, 1), (1, 1, 65), (0, 1, 1)])
def test_caps_hold(seconds: float, in_flight: int, workers: int) -> None:
    with pytest.raises(ConfigError, match="at most"):
        check(endpoint(), "http", seconds=seconds, in_flight=in_flight, workers=workers, own=True)


def test_a_burst_may_not_hide_in_a_tame_mean() -> None:
    given = {"in_flight": 8, "workers": 1, "warmup": 0, "drain": 1.0, "real_time": False}
    offsets = np.concatenate([np.linspace(0, 0.5, 30_000), [59.0]])
    burst = Schedule(law="constant", rate=500.0, seconds=60.0, seed=0, offsets=offsets)
    assert peak(burst) == 30_000
    with pytest.raises(ConfigError, match="30000/s is above the hard cap"):
        open_loop(burst, **given)  # type: ignore[arg-type]
    open_loop(poisson(19_900, 2, seed=1), **given)  # type: ignore[arg-type]
    with pytest.raises(ConfigError, match="hard cap"):
        open_loop(constant(21_000, 1), **given)  # type: ignore[arg-type]


def test_abort_rules_speak_when_broken_and_only_then() -> None:
    rules = AbortRules(errors=0.01, p99=0.1)
    calm = np.full(200, 0.01)
    assert rules.breach(calm, 0) == ""
    assert rules.breach(calm, 2) == ""
    assert "1.5%" in rules.breach(calm, 3)
    slow = np.concatenate([calm, np.full(5, 0.5)])
    assert "p99" in rules.breach(slow, 0)
    assert rules.breach(slow[-99:], 99) == ""  # too few to say
    assert AbortRules().breach(slow, 200) == ""


def test_abort_rules_that_cannot_be_are_refused() -> None:
    for wrong in ({"errors": 1.5}, {"p99": 0.0}, {"window": 0.0}, {"least": 0}):
        with pytest.raises(ConfigError):
            AbortRules(**wrong)


@pytest.mark.slow
def test_locusts_tables_say_the_same_in_bundles_as_one_by_one() -> None:
    """In a process of its own: Locust patches whoever imports it."""
    script = """
import locust.stats, numpy as np
from seatrial.bench.load import tables
locust.stats.bucket_response_time = tables.three_digits
waits = np.random.default_rng(0).lognormal(-6, 2, 3000)
single, bundled = locust.stats.RequestStats(), locust.stats.RequestStats()
for wait in waits.tolist():
    single.log_request("open loop", "m", wait * 1e3, 0)
for _ in range(7):
    single.log_error("open loop", "m", "HTTP 500")
tables.add(bundled, "open loop", "m", waits[:2000], ["HTTP 500"] * 4)
tables.add(bundled, "open loop", "m", waits[2000:], ["HTTP 500"] * 3)
tables.add(bundled, "open loop", "m", waits[:0], [])
for one, other in ((single.total, bundled.total), (single.get("m", "open loop"), bundled.get("m", "open loop"))):
    assert one.num_requests == other.num_requests == sum(other.num_reqs_per_sec.values()) == 3000
    assert one.num_failures == other.num_failures == 7
    assert dict(one.response_times) == dict(other.response_times)
    assert (one.min_response_time, one.max_response_time) == (other.min_response_time, other.max_response_time)
    assert abs(one.avg_response_time / other.avg_response_time - 1) < 1e-9
    assert one.get_response_time_percentile(0.99) == other.get_response_time_percentile(0.99)
[error] = bundled.errors.values()
assert error.occurrences == 7
"""
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, cwd=ROOT)
    assert done.returncode == 0, done.stderr
