"""Placing artifacts and asking them through a real Triton: answers, batching, versions, errors of single requests."""

import time
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from seatrial.bench.server_statistics import ModelStatistics
from seatrial.bench.targets import Endpoint
from seatrial.optimize.artifact import Artifact
from seatrial.optimize.samples import Samples
from seatrial.optimize.sessions.on_ort import OrtSession
from seatrial.optimize.store import Store
from seatrial.serve.deployment import Batching, Deployment, Queue, Warmup
from seatrial.serve.errors import RequestError
from seatrial.serve.processes import alive, start_ticks
from seatrial.serve.triton.control import Control
from seatrial.serve.triton.proof.golden import ServedModel, replay
from seatrial.serve.triton.proof.replaying import reference, replayed
from seatrial.serve.triton.repository.placement import Placement
from seatrial.serve.triton.repository.placing import place
from seatrial.serve.triton.running import on_pytriton
from seatrial.serve.triton.running.host import host
from seatrial.serve.triton.running.on_pytriton import Server, serving
from seatrial.serve.triton.supervision.switch import switch
from tests.support.graphs import fixed, pictures, words

pytestmark = pytest.mark.system

Array = np.ndarray[Any, np.dtype[Any]]


@dataclass(frozen=True, kw_only=True)
class Site:
    """One server with three models, for all tests of this module."""

    store: Store
    repository: Path
    server: Server
    placed: Mapping[str, Placement]
    artifacts: Mapping[str, Artifact]

    def session(self, name: str) -> OrtSession:
        return OrtSession(self.store.path(self.artifacts[name], "model.onnx"))


PICTURES = Deployment(schema=1, name="pictures", max_batch_size=16, warmup=Warmup(batch_sizes=(1, 16)))
WORDS = Deployment(
    schema=1,
    name="words",
    max_batch_size=8,
    batching=Batching(max_queue_delay_us=50_000),  # requests that come together meet
    warmup=Warmup(batch_sizes=(1,), shapes={"tokens": (5,)}),
)
FIXED = Deployment(schema=1, name="fixed", max_batch_size=0, warmup=Warmup(batch_sizes=(1,)))


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    folder = tmp_path_factory.mktemp("site")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("SEATRIAL_HOME", str(folder / "home"))
        store, repository = Store(folder / "store"), folder / "models"
        artifacts = {
            "pictures": pictures(store, folder / "pictures"),
            "words": words(store, folder / "words"),
            "fixed": fixed(store, folder / "fixed"),
        }
        placed = {
            deployment.name: place(artifacts[deployment.name], deployment, store=store, repository=repository)
            for deployment in (PICTURES, WORDS, FIXED)
        }
        with serving(repository, tuple(placed)) as server:
            yield Site(store=store, repository=repository, server=server, placed=placed, artifacts=artifacts)
        assert start_ticks(server.pid) is None
        assert not list(Path("/dev/shm").glob(f"{server.shm_prefix}*"))


@pytest.fixture
def control(site: Site) -> Iterator[Control]:
    with Control(site.server.url, timeout=30.0) as control:
        yield control


def picture_inputs(count: int, seed: int = 0) -> dict[str, Array]:
    random = np.random.default_rng(seed)
    return {
        "image": random.normal(size=(count, 3, 8, 8)).astype(np.float32),
        "gain": random.uniform(0.5, 2.0, size=(count, 1)).astype(np.float32),
    }


@pytest.mark.parametrize("count", [1, 3, 16])
@pytest.mark.parametrize("protocol", ["http", "grpc"])
def test_plain_clients_get_what_onnx_runtime_gives(site: Site, protocol: str, count: int) -> None:
    if protocol == "http":
        import tritonclient.http as client
    else:
        import tritonclient.grpc as client
    inputs = picture_inputs(count, seed=count)
    tensors = []
    for name, array in inputs.items():
        tensor = client.InferInput(name, list(array.shape), "FP32")
        tensor.set_data_from_numpy(array)
        tensors.append(tensor)
    url = site.server.url if protocol == "http" else site.server.grpc_url
    with client.InferenceServerClient(url) as connection:
        reply = connection.infer("pictures", tensors, model_version="1")
    expected = site.session("pictures").run(inputs)
    np.testing.assert_allclose(reply.as_numpy("scores"), expected["scores"], rtol=1e-4, atol=1e-5)
    np.testing.assert_array_equal(reply.as_numpy("winner"), expected["winner"][:, None])


def test_only_the_outputs_asked_for_come_back(site: Site, control: Control) -> None:
    inputs = picture_inputs(2)
    assert set(control.infer("pictures", 1, inputs)) == {"scores", "winner"}
    answer = control.infer("pictures", 1, inputs, outputs=("winner",))
    assert set(answer) == {"winner"}
    np.testing.assert_array_equal(answer["winner"][:, 0], site.session("pictures").run(inputs)["winner"])


def counted(control: Control) -> ModelStatistics:
    """The statistics once two looks agree: the server counts a request after it was answered."""
    found, until = control.statistics("pictures", 1), time.monotonic() + 10.0
    while True:
        time.sleep(0.2)
        if (again := control.statistics("pictures", 1)) == found or time.monotonic() > until:
            return again
        found = again


def test_mixed_batch_sizes_in_parallel_are_joined_and_kept_apart(site: Site, control: Control) -> None:
    before = counted(control)
    session = site.session("pictures")

    def client(number: int) -> None:
        with Control(site.server.url, timeout=30.0) as mine:
            for turn in range(12):
                inputs = picture_inputs(1 + (number + turn) % 4, seed=100 * number + turn)
                answer = mine.infer("pictures", 1, inputs)
                expected = session.run(inputs)
                np.testing.assert_allclose(answer["scores"], expected["scores"], rtol=1e-4, atol=1e-5)

    with ThreadPoolExecutor(12) as pool:
        list(pool.map(client, range(12)))
    after = counted(control)
    requests, executions = after.successes - before.successes, after.executions - before.executions
    assert requests == 12 * 12
    assert executions < requests, "no two requests ever shared a run"
    assert max(after.batch_sizes) > 4, f"no run was larger than the largest request: {after.batch_sizes}"
    assert after.inferences - before.inferences == sum(1 + (n + t) % 4 for n in range(12) for t in range(12))


def test_golden_replay_passes_on_the_real_artifact_and_fails_on_another(
    site: Site, control: Control, tmp_path: Path
) -> None:
    samples = Samples(split="golden", inputs=picture_inputs(5, seed=9), labels=None)
    report = replay(
        control,
        site.artifacts["pictures"],
        samples,
        store=site.store,
        model=ServedModel(name="pictures", version=1, max_batch_size=PICTURES.max_batch_size),
    )
    assert report.passed, str(report)
    assert report.batch_sizes == (1, 16)
    assert report.requests == 5 + 1
    other = pictures(site.store, tmp_path / "other", scale=1.01)
    served = ServedModel(name="pictures", version=1, max_batch_size=16)
    report = replay(control, other, samples, store=site.store, model=served)
    assert not report.passed
    assert {each.output for each in report.differences} == {"scores"}
    assert len(report.differences) == report.requests
    assert 0.001 < report.largest < 10


@pytest.mark.parametrize("name", ["pictures", "words", "fixed"])
def test_a_version_that_serves_is_replayed_against_its_own_artifact(site: Site, name: str) -> None:
    """Without a recipe or a deployment: sizes of free axes come from the model's own warm-up."""
    artifact = reference(site.placed[name], site.store)
    assert artifact is not None
    report = replayed(site.server, site.placed[name], artifact, site.store)
    assert report.passed, str(report)


def test_golden_replay_of_a_model_that_does_not_batch(site: Site, control: Control) -> None:
    signal = np.random.default_rng(1).normal(size=(6, 6))
    samples = Samples(split="golden", inputs={"signal": signal}, labels=None)
    served = ServedModel(name="fixed", version=1, max_batch_size=0)
    report = replay(control, site.artifacts["fixed"], samples, store=site.store, model=served)
    assert report.passed, str(report)
    assert report.batch_sizes == (2,)
    assert report.requests == 3


def test_a_request_of_another_length_is_answered_beside_the_others(site: Site) -> None:
    session = site.session("words")

    def client(length: int) -> None:
        tokens = np.random.default_rng(length).integers(0, 8, size=(2, length))
        with Control(site.server.url, timeout=30.0) as mine:
            for _ in range(5):
                answer = mine.infer("words", 1, {"tokens": tokens})
                np.testing.assert_allclose(answer["meaning"], session.run({"tokens": tokens})["meaning"], rtol=1e-5)

    with ThreadPoolExecutor(8) as pool:
        list(pool.map(client, [1, 2, 3, 4, 4, 4, 7, 9]))


def test_one_bad_request_fails_alone_and_says_nothing_of_our_files(site: Site, control: Control) -> None:
    """Rounds of eight requests, two of them bad, until one round was a single batch and so held both kinds."""
    good, bad = np.zeros((1, 3), dtype=np.int64), np.full((1, 3), 99, dtype=np.int64)

    def ask(number: int) -> str:
        with Control(site.server.url, timeout=30.0) as mine:
            try:
                mine.infer("words", 1, {"tokens": bad if number % 4 == 0 else good})
            except RequestError as error:
                return f"{error.status} {error.what}"
            return "answered"

    answers, met = [], False
    with ThreadPoolExecutor(8) as pool:
        for _ in range(20):
            before = control.statistics("words", 1).executions
            answers += list(pool.map(ask, range(8)))
            met = control.statistics("words", 1).executions == before + 1
            if met:
                break
    for number, answer in enumerate(answers):
        if number % 4 == 0:
            assert "inference failed" in answer
            assert answer[:3] in ("400", "500")
            assert ".py" not in answer
            assert str(site.repository) not in answer
            assert "onnxruntime/" not in answer
        else:
            assert answer == "answered"
    assert met, "bad and good requests never met in one batch"


@pytest.mark.parametrize(
    ("name", "inputs"),
    [
        ("pictures", {"image": np.zeros((1, 3, 8, 9), np.float32), "gain": np.ones((1, 1), np.float32)}),
        ("pictures", {"image": np.zeros((17, 3, 8, 8), np.float32), "gain": np.ones((17, 1), np.float32)}),
        ("pictures", {"image": np.zeros((1, 3, 8, 8), np.float64), "gain": np.ones((1, 1), np.float32)}),
        ("pictures", {"image": np.zeros((2, 3, 8, 8), np.float32), "gain": np.ones((1, 1), np.float32)}),
        ("fixed", {"signal": np.zeros((3, 6))}),
    ],
)
def test_a_wrong_shape_or_type_is_the_callers_fault(control: Control, name: str, inputs: dict[str, Array]) -> None:
    with pytest.raises(RequestError) as caught:
        control.infer(name, 1, inputs)
    assert caught.value.status == 400
    assert control.ready(name, 1)


def test_a_full_queue_turns_requests_away(site: Site, control: Control, tmp_path: Path) -> None:
    """The deployment's bound is the server's: with one place in the queue a burst is partly refused, with 503."""
    store = site.store
    tight = replace(FIXED, name="tight", queue=Queue(max_size=1, timeout_ms=50), warmup=Warmup())
    place(site.artifacts["fixed"], tight, store=store, repository=site.repository)
    control.load("tight")

    def ask(_: int) -> int:
        with Control(site.server.url, timeout=30.0) as mine:
            for _ in range(25):
                try:
                    mine.infer("tight", 1, {"signal": np.zeros((2, 6))})
                except RequestError as error:
                    return error.status
        return 200

    with ThreadPoolExecutor(16) as pool:
        statuses = set(pool.map(ask, range(16)))
    control.unload("tight")
    assert not control.ready("tight", 1)
    assert 503 in statuses
    assert statuses <= {200, 503}


def test_a_second_version_beside_the_first_and_back(site: Site, control: Control, tmp_path: Path) -> None:
    newer = pictures(site.store, tmp_path / "newer", scale=2.0)
    inputs = picture_inputs(2, seed=5)
    first = control.infer("pictures", 1, inputs)["scores"]
    served = control.statistics("pictures", 1).successes
    assert served > 0
    placement = place(newer, PICTURES, store=site.store, repository=site.repository)
    assert placement.version == 2
    assert placement.path == site.repository / "pictures" / "2"
    control.load("pictures")
    assert control.ready("pictures", 1)
    assert control.ready("pictures", 2)
    assert control.statistics("pictures", 1).successes >= served, "version 1 was initialized again"
    np.testing.assert_allclose(control.infer("pictures", 2, inputs)["scores"], 2 * first, rtol=1e-3, atol=1e-4)
    np.testing.assert_array_equal(control.infer("pictures", 1, inputs)["scores"], first)

    control.set_versions("pictures", (2,))
    assert not control.ready("pictures", 1)
    with pytest.raises(RequestError) as caught:
        control.infer("pictures", 1, inputs)
    assert caught.value.status in (400, 404, 503)
    served = control.statistics("pictures", 2).successes
    control.set_versions("pictures", (1, 2))
    assert control.statistics("pictures", 2).successes >= served, "version 2 was initialized again"
    np.testing.assert_array_equal(control.infer("pictures", 1, inputs)["scores"], first)
    control.set_versions("pictures", (1,))
    assert switch(control, site.repository, "pictures", (2,)).drift == (), "the disk says what the server does"
    np.testing.assert_allclose(control.infer("pictures", 2, inputs)["scores"], 2 * first, rtol=1e-3, atol=1e-4)
    switch(control, site.repository, "pictures", (1,))
    assert [
        (each.version, each.state) for each in control.index() if each.name == "pictures" and each.state == "READY"
    ] == [("1", "READY")]
    third = pictures(site.store, tmp_path / "third", scale=3.0)
    assert place(third, PICTURES, store=site.store, repository=site.repository).version == 3
    control.load("pictures")
    assert control.ready_versions("pictures") == {1}, "a plain load served what was placed but never switched to"


def test_host_serves_one_artifact_and_leaves_nothing(site: Site, tmp_path: Path) -> None:
    scratch = tmp_path / "scratch"
    seen: list[Endpoint] = []
    with host(site.store, PICTURES, scratch=scratch)(site.artifacts["pictures"]) as endpoint:
        seen.append(endpoint)
        with Control(endpoint.url) as control:
            assert control.ready(endpoint.model, endpoint.version)
            metadata = control.metadata(endpoint.model, endpoint.version)
        assert [tuple(-1 if isinstance(s, str) else s for s in spec.shape) for spec in endpoint.outputs] == [
            tuple(int(s) for s in tensor["shape"]) for tensor in metadata["outputs"]
        ]
        ticks = start_ticks(endpoint.pids[0])
        assert ticks is not None
    deadline = time.monotonic() + 5
    while alive(endpoint.pids[0], ticks) and time.monotonic() < deadline:
        time.sleep(0.05)
    assert not alive(endpoint.pids[0], ticks)
    assert list(scratch.iterdir()) == []


def test_a_triton_in_its_default_mode_starts_on_a_placed_repository(
    site: Site, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """By default Triton loads every folder that it finds, and refuses to start over one that is no model."""
    place(site.artifacts["words"], WORDS, store=site.store, repository=tmp_path / "models")
    made = on_pytriton._command
    ours = ("--model-control-mode", "--exit-on-error", "--strict-readiness")
    monkeypatch.setattr(
        on_pytriton, "_command", lambda *given: [part for part in made(*given) if not part.startswith(ours)]
    )
    with serving(tmp_path / "models") as server, Control(server.url) as control:
        assert [(each.name, each.version, each.state) for each in control.index()] == [("words", "1", "READY")]
