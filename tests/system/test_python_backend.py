"""The Python backend's cache and its text on the real server: nobody gets another's answer, metrics say what it did."""

import re
import time
import urllib.request
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from onnx import TensorProto, helper

from seatrial.optimize.artifact import Artifact, TensorSpec
from seatrial.optimize.store import Store
from seatrial.serve.caching import Cache
from seatrial.serve.deployment import Batching, Deployment
from seatrial.serve.triton.backend.python_cache import WINDOW
from seatrial.serve.triton.control import Control
from seatrial.serve.triton.repository.placing import place
from seatrial.serve.triton.running.on_pytriton import Server, serving
from tests.support.graphs import constant, make, pictures, value

pytestmark = pytest.mark.system

Array = np.ndarray[Any, np.dtype[Any]]
CACHE = Cache(megabytes=1, ttl_seconds=1.0)
SUMS = Deployment(schema=1, name="sums", max_batch_size=8, cache=CACHE, batching=Batching(max_queue_delay_us=20_000))
FIRST = Deployment(schema=1, name="first", max_batch_size=16, cache=Cache(megabytes=1, ttl_seconds=60.0))
TEXT = Deployment(schema=1, name="text", max_batch_size=4)


def sums(store: Store, folder: Path, factor: float = 1.0) -> Artifact:
    """The sum of each row of a matrix of any shape, so that the same bytes in another shape have another answer."""
    ends = value("x", TensorProto.FLOAT, ["n", "r", "c"]), value("y", TensorProto.FLOAT, ["n", "r"])
    nodes = [
        helper.make_node("ReduceSum", ["x", "axis"], ["sum"], keepdims=0),
        helper.make_node("Mul", ["sum", "factor"], ["y"]),
    ]
    held = [constant("axis", np.array([2])), constant("factor", np.array(factor, np.float32))]
    tensors = {
        "inputs": (TensorSpec(name="x", dtype="float32", shape=("n", "r", "c")),),
        "outputs": (TensorSpec(name="y", dtype="float32", shape=("n", "r")),),
    }
    return make(store, folder, "sums", helper.make_graph(nodes, "sums", [ends[0]], [ends[1]], held), tensors)


def text(store: Store, folder: Path) -> Artifact:
    ends = [value(name, TensorProto.STRING, ["n", 2]) for name in ("said", "heard")]
    graph = helper.make_graph([helper.make_node("Identity", ["said"], ["heard"])], "text", ends[:1], ends[1:])
    specs = [TensorSpec(name=name, dtype="object", shape=("n", 2)) for name in ("said", "heard")]
    return make(store, folder, "text", graph, {"inputs": tuple(specs[:1]), "outputs": tuple(specs[1:])})


@dataclass(frozen=True, kw_only=True)
class Site:
    store: Store
    repository: Path
    server: Server
    control: Control

    def ask(self, x: Array, version: int = 1) -> list[list[float]]:
        answer: list[list[float]] = self.control.infer("sums", version, {"x": x.astype(np.float32)})["y"].tolist()
        return answer

    def settle(self) -> None:
        """Wait until the next request brings a report, and send it."""
        time.sleep(1.1)
        self.ask(np.full((1, 1, 1), 1.0))

    def metric(self, name: str, model: str = "sums", version: int = 1) -> float:
        """A metric's value as of the model's last report."""
        with urllib.request.urlopen(self.server.metrics_url, timeout=10) as reply:
            said = reply.read().decode()
        found = [
            line
            for line in said.splitlines()
            if line.startswith(f"{name}{{") and f'model="{model}"' in line and f'version="{version}"' in line
        ]
        assert len(found) == 1, f"{name} of {model} {version}: {found}"
        return float(re.split(r"\s", found[0])[-1])


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    folder = tmp_path_factory.mktemp("backend")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("SEATRIAL_HOME", str(folder / "home"))
        store, repository = Store(folder / "store"), folder / "models"
        place(sums(store, folder / "sums"), SUMS, store=store, repository=repository)
        place(pictures(store, folder / "first"), FIRST, store=store, repository=repository)
        place(text(store, folder / "text"), TEXT, store=store, repository=repository)
        with serving(repository, ("sums", "first", "text")) as server, Control(server.url, timeout=30) as control:
            yield Site(store=store, repository=repository, server=server, control=control)


def test_equal_bytes_of_two_shapes_have_their_own_answers(site: Site) -> None:
    """Triton's own response cache answers the second with the first's."""
    numbers = np.arange(12)
    for _ in range(2):
        assert site.ask(numbers.reshape(1, 3, 4)) == [[6, 22, 38]]
        assert site.ask(numbers.reshape(1, 2, 6)) == [[15, 51]]
        assert site.ask(numbers.reshape(2, 2, 3)) == [[3, 12], [21, 30]]


def test_repeats_are_hits_until_their_time_is_over(site: Site) -> None:
    def counted() -> tuple[float, float]:
        return site.metric("seatrial_cache_hits_total"), site.metric("seatrial_cache_misses_total")

    site.settle()
    hits, misses = counted()
    for _ in range(3):
        assert site.ask(np.full((1, 1, 3), 7.0)) == [[21]]
    time.sleep(1.1)  # longer than an answer is kept, and than a report waits
    assert site.ask(np.full((1, 1, 3), 7.0)) == [[21]]
    assert counted() == (hits + 2, misses + 2)
    assert site.metric("seatrial_cache_on") == 1
    assert 0 < site.metric("seatrial_cache_bytes") <= CACHE.megabytes << 20


def test_identical_requests_of_one_batch_are_computed_once(site: Site) -> None:
    site.settle()
    before = site.metric("seatrial_cache_misses_total")

    def ask(_: int) -> float:
        with Control(site.server.url, timeout=30) as mine:
            return float(mine.infer("sums", 1, {"x": np.full((1, 2, 2), 3, np.float32)})["y"][0, 1])

    with ThreadPoolExecutor(8) as pool:
        assert list(pool.map(ask, range(24))) == [6.0] * 24
    site.settle()
    assert max(site.control.statistics("sums", 1).batch_sizes) > 1, "no two of them ever met in a batch"
    # One for the answer and one for settling; a slow machine may need the answer twice, when its time is over.
    assert site.metric("seatrial_cache_misses_total") - before <= 3


def test_outputs_asked_for_are_told_apart(site: Site) -> None:
    inputs = {"image": np.ones((1, 3, 8, 8), np.float32), "gain": np.ones((1, 1), np.float32)}
    both = site.control.infer("first", 1, inputs)
    assert set(site.control.infer("first", 1, inputs, outputs=("winner",))) == {"winner"}
    again = site.control.infer("first", 1, inputs)
    assert set(again) == set(both) == {"scores", "winner"}
    np.testing.assert_array_equal(again["scores"], both["scores"])


def test_another_version_starts_empty(site: Site, tmp_path: Path) -> None:
    x = np.full((1, 1, 2), 5.0)
    assert site.ask(x) == [[10]]
    place(sums(site.store, tmp_path / "twice", 2.0), SUMS, store=site.store, repository=site.repository)
    site.control.load("sums")
    assert site.ask(x, version=2) == [[20]]
    assert site.ask(x) == [[10]]
    assert site.ask(x, version=2) == [[20]]
    assert site.metric("seatrial_cache_on", version=2) == 1


def test_a_version_loaded_again_starts_empty_and_goes_on_counting(site: Site) -> None:
    """The old process and the new one share the counters for a while; a step down would end the server."""
    assert site.ask(np.full((1, 1, 2), 4.0)) == [[8]]
    site.settle()
    config = (site.repository / "sums" / "config.pbtxt").read_text()
    site.control.load(
        "sums", config.replace("max_queue_delay_microseconds: 20000", "max_queue_delay_microseconds: 9000")
    )
    site.settle()
    misses = site.metric("seatrial_cache_misses_total")
    assert site.ask(np.full((1, 1, 2), 4.0)) == [[8]]
    site.settle()
    assert site.metric("seatrial_cache_misses_total") == misses + 2


def test_it_rests_where_nothing_repeats_and_says_so(site: Site) -> None:
    def ask(number: int) -> None:
        with Control(site.server.url, timeout=30) as mine:
            random = np.random.default_rng(number)
            for _ in range(WINDOW // 8 + 30):
                inputs = {"image": random.random((1, 3, 8, 8), np.float32), "gain": np.ones((1, 1), np.float32)}
                mine.infer("first", 1, inputs)

    with ThreadPoolExecutor(8) as pool:
        list(pool.map(ask, range(8)))
    assert site.metric("seatrial_cache_on", "first") == 0
    assert site.metric("seatrial_cache_bytes", "first") == 0
    assert "the cache rests because it does not pay" in site.server.log.read_text()


def test_text_goes_through(site: Site) -> None:
    said = np.array([["à", "b"], ["", "long " * 50]], dtype=object)
    heard = site.control.infer("text", 1, {"said": said})["heard"]
    assert [[each.decode() for each in row] for row in heard] == said.tolist()
