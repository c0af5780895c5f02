"""What configurations need of the server it is started with: models that share a resource take turns, a cache hits."""

import signal
import threading
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from itertools import product
from typing import Any

import numpy as np
import pytest

from seatrial.optimize.errors import SeatrialError
from seatrial.serve.processes import send, wait
from seatrial.serve.triton.control import Control
from seatrial.serve.triton.running.on_pytriton import Server, serving
from seatrial.serve.triton.running.stubs import stubs
from seatrial.serve.triton.supervision.cache_worth import LEAST, response_cache_pays
from seatrial.serve.triton.supervision.probe import probe
from seatrial.serve.triton.supervision.supervisor import Pace, Supervisor

pytestmark = pytest.mark.system

# Answers with when it began and ended, in seconds of a clock that all processes share.
MODEL = """
import time

import numpy
import triton_python_backend_utils as pb_utils


class TritonPythonModel:
    def execute(self, requests):
        begun = time.monotonic()
        time.sleep(0.05)
        told = numpy.array([begun, time.monotonic()])
        return [pb_utils.InferenceResponse([pb_utils.Tensor("ran", told)]) for _ in requests]
"""
CONFIG = """
backend: "python"
max_batch_size: 0
input [ { name: "x" data_type: TYPE_FP64 dims: [ 1 ] } ]
output [ { name: "ran" data_type: TYPE_FP64 dims: [ 2 ] } ]
version_policy { specific { versions: [ 1 ] } }
"""
FREE = "instance_group [ { kind: KIND_CPU count: 1 } ]"
SHARING = """
instance_group [ { kind: KIND_CPU count: 1 rate_limiter { resources [ { name: "R" count: 1 global: true } ] } } ]
parameters { key: "seatrial_resource_R" value { string_value: "1" } }
"""
CACHED = FREE + " response_cache { enable: true }"
MODELS = {
    "free_a": FREE,
    "free_b": FREE,
    "sharing_a": SHARING,
    "sharing_b": SHARING,
    "cached": CACHED,
    "quick": CACHED,
}


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    folder = tmp_path_factory.mktemp("flags")
    for name, rest in MODELS.items():
        (folder / "models" / name / "1").mkdir(parents=True)
        (folder / "models" / name / "config.pbtxt").write_text(CONFIG + rest)
        (folder / "models" / name / "1" / "model.py").write_text(
            MODEL if name != "quick" else MODEL.replace("0.05", "0")
        )
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("SEATRIAL_HOME", str(folder / "home"))
        with serving(folder / "models", tuple(MODELS)) as started:
            yield started


def runs(server: Server, model: str, count: int = 6) -> list[tuple[float, float]]:
    """Beginning and end of executions, one after the other."""
    with Control(server.url, timeout=30.0) as control:
        answers = [control.infer(model, 1, {"x": np.array([float(number)])})["ran"] for number in range(count)]
    return [(float(begun), float(ended)) for begun, ended in answers]


def overlaps(server: Server, first: str, second: str) -> int:
    """How many executions of two models that are asked at once ran at the same time."""
    with ThreadPoolExecutor(2) as pool:
        one, other = pool.map(lambda name: runs(server, name), (first, second))
    return sum(a[0] < b[1] and b[0] < a[1] for a, b in product(one, other))


def test_models_that_share_a_resource_take_turns(server: Server) -> None:
    assert overlaps(server, "free_a", "free_b") > 0
    assert overlaps(server, "sharing_a", "sharing_b") == 0


def test_the_response_cache_answers_what_it_has_seen(server: Server) -> None:
    with Control(server.url) as control:
        first, again, other = (
            control.infer("cached", 1, {"x": np.array([x])})["ran"].tolist() for x in (1.0, 1.0, 2.0)
        )
        counted = control.statistics("cached", 1)
        worth, none = response_cache_pays(counted), response_cache_pays(control.statistics("free_a", 1))
    assert first == again != other
    assert (counted.cache_hits, counted.cache_misses, counted.executions) == (1, 2, 2)
    assert none is None
    assert worth is not None
    assert worth.pays is None, "three requests are too few"
    assert worth.saved > 0.04 > worth.spent > 0


def test_a_cache_that_does_not_pay_is_switched_off_and_no_request_fails(server: Server) -> None:
    events: list[dict[str, Any]] = []
    supervisor = Supervisor(server, lambda *_: None, pace=Pace(caches=0.0, deadline=10.0), tell=events.append)
    text = (server.repository / "quick" / "config.pbtxt").read_text
    asked, failed, over = Counter[str](), list[Exception](), threading.Event()

    def ask(model: str, kinds: int, offset: float) -> None:
        with Control(server.url, timeout=30.0) as control:
            while not over.is_set():
                asked[model] += 1
                try:
                    control.infer(model, 1, {"x": np.array([offset + asked[model] % kinds])})
                except SeatrialError as error:
                    failed.append(error)

    def off() -> bool:
        assert supervisor.tick()
        return any(event["event"] == "response cache off" for event in events)

    with ThreadPoolExecutor(2) as pool:
        loads = [pool.submit(ask, "quick", 10**9, 0.5), pool.submit(ask, "cached", 5, 100.5)]
        try:
            assert supervisor.tick()
            assert "response_cache" in text()
            assert wait(off, 60.0)
            before = asked["quick"]
            assert wait(lambda: asked["quick"] > before + 200 and asked["cached"] > LEAST + 1000, 60.0)
            assert supervisor.tick()
        finally:
            over.set()
        for load in loads:
            load.result()
    told = [event for event in events if event["event"].startswith("response cache")]
    assert [event["subject"] for event in told] == ["quick"]
    assert "does not pay" in told[0]["reason"]
    assert not failed
    assert "response_cache" not in text()
    with Control(server.url) as control:
        assert "response_cache" not in control.config("quick", 1)
        assert control.statistics("quick", 1).cache_misses == 0
        assert control.config("cached", 1)["response_cache"] == {"enable": True}


def test_the_cache_does_not_answer_for_a_dead_model(server: Server) -> None:
    with Control(server.url) as control:
        before = control.statistics("cached", 1).executions
        assert [probe(server.url, "cached", 1).state for _ in range(3)] == ["ok"] * 3
        assert control.statistics("cached", 1).executions == before + 3
    (stub,) = (each for each in stubs(server.pid) if each.model == "cached")
    send(stub.pid, stub.started, signal.SIGKILL)
    assert wait(lambda: probe(server.url, "cached", 1).state == "broken", 60.0)
