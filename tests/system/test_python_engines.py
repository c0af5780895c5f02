"""The Python backend in every engine on the real server: golden replies, cache, batching and errors are alike."""

import json
import time
import urllib.request
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from seatrial.optimize.artifact import Artifact
from seatrial.optimize.errors import ContractError
from seatrial.optimize.store import Store
from seatrial.serve.caching import Cache
from seatrial.serve.deployment import Batching, Deployment, OnnxCpu, OpenVino, Torch
from seatrial.serve.errors import ModelLoadError, RequestError
from seatrial.serve.triton.control import Control
from seatrial.serve.triton.lint import lint
from seatrial.serve.triton.proof.placed import prove
from seatrial.serve.triton.repository.placing import place
from seatrial.serve.triton.running.on_pytriton import Server, load, serving
from seatrial.serve.triton_releases import DEFAULT
from tests.support.exported import exported
from tests.support.graphs import pictures

pytestmark = pytest.mark.system

INSTALLED = find_spec("openvino") is not None
ENGINES: dict[str, Any] = {
    "onnx-cpu": OnnxCpu(kind="onnx-cpu", graph="extended"),
    "torch": Torch(kind="torch"),
    "openvino": OpenVino(kind="openvino"),
    "openvino-buckets": OpenVino(kind="openvino", buckets=(1, 4, 16)),
}
NAMES = [
    pytest.param(name, marks=[] if INSTALLED else pytest.mark.skip(reason="openvino is not installed"))
    if name.startswith("openvino")
    else name
    for name in ENGINES
]


def deployment(name: str, **more: Any) -> Deployment:
    batching = Batching(max_queue_delay_us=20_000)
    return Deployment(schema=1, name=name, max_batch_size=16, engine=ENGINES[name], batching=batching, **more)


def artifact(name: str, store: Store, folder: Path, scale: float = 1.0) -> Artifact:
    return (exported if name == "torch" else pictures)(store, folder, scale)


def inputs(count: int = 1, seed: int = 0) -> dict[str, Any]:
    random = np.random.default_rng(seed)
    return {
        "image": random.normal(size=(count, 3, 8, 8)).astype(np.float32),
        "gain": random.uniform(0.5, 2.0, size=(count, 1)).astype(np.float32),
    }


@dataclass(frozen=True, kw_only=True)
class Site:
    store: Store
    repository: Path
    server: Server
    control: Control


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    folder = tmp_path_factory.mktemp("engines")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("SEATRIAL_HOME", str(folder / "home"))
        store, repository = Store(folder / "store"), folder / "models"
        names = [name for name in ENGINES if INSTALLED or not name.startswith("openvino")]
        for name in names:
            cache = Cache(megabytes=1, ttl_seconds=600.0)
            place(
                artifact(name, store, folder / name), deployment(name, cache=cache), store=store, repository=repository
            )
        with serving(repository) as server, Control(server.url, timeout=30) as control:
            load(server, tuple(names))
            yield Site(store=store, repository=repository, server=server, control=control)


@pytest.mark.parametrize("name", NAMES)
def test_golden_replies_are_those_of_the_same_engine_in_process(name: str, tmp_path: Path) -> None:
    store = Store(tmp_path / "store")
    proof = prove(artifact(name, store, tmp_path / "made"), deployment(name), store=store)
    assert proof.report.passed
    assert proof.report.batch_sizes == (1, 8, 16)


@pytest.mark.parametrize("name", NAMES)
def test_requests_meet_in_batches_and_each_gets_its_own_rows(site: Site, name: str) -> None:
    def ask(seed: int) -> Any:
        with Control(site.server.url, timeout=30) as mine:
            return mine.infer(name, 1, inputs(1 + seed % 3, seed))["scores"]

    def expected(seed: int) -> Any:
        given = inputs(1 + seed % 3, seed)
        weights = np.random.default_rng(3).normal(size=(3 * 8 * 8, 5)).astype(np.float32)
        return given["image"].reshape(-1, 192) @ weights * given["gain"]

    with ThreadPoolExecutor(12) as pool:
        found = list(pool.map(ask, range(1000, 1048)))
    for seed, scores in zip(range(1000, 1048), found, strict=True):
        np.testing.assert_allclose(scores, expected(seed), rtol=1e-3, atol=1e-3)
    assert max(site.control.statistics(name, 1).batch_sizes) > 3, "no two of them ever met in a batch"


def hits(site: Site, model: str) -> float:
    """Return the hits of the model's cache as of its last report, after a request that brings one."""
    time.sleep(1.1)
    site.control.infer(model, 1, inputs(1, time.monotonic_ns() % 2**32))
    with urllib.request.urlopen(site.server.metrics_url, timeout=10) as reply:
        lines = reply.read().decode().splitlines()
    (line,) = [each for each in lines if each.startswith("seatrial_cache_hits_total{") and f'model="{model}"' in each]
    return float(line.split()[-1])


@pytest.mark.parametrize("name", NAMES)
def test_repeats_come_out_of_the_cache(site: Site, name: str) -> None:
    before = hits(site, name)
    first = site.control.infer(name, 1, inputs(2, 77))
    for _ in range(3):
        again = site.control.infer(name, 1, inputs(2, 77))
        np.testing.assert_array_equal(again["scores"], first["scores"])
    assert set(site.control.infer(name, 1, inputs(2, 77), outputs=("winner",))) == {"winner"}
    assert hits(site, name) == before + 3, "other outputs are another request"


@pytest.mark.parametrize("name", NAMES)
def test_a_wrong_request_is_refused_and_harms_no_other(site: Site, name: str) -> None:
    wrongs: list[dict[str, Any]] = [
        {"image": np.ones((1, 3, 8, 9), np.float32), "gain": np.ones((1, 1), np.float32)},
        {"image": np.ones((1, 3, 8, 8), np.float64), "gain": np.ones((1, 1), np.float32)},
        {"image": np.ones((17, 3, 8, 8), np.float32), "gain": np.ones((17, 1), np.float32)},
    ]
    for wrong in wrongs:
        with pytest.raises(RequestError) as refused:
            site.control.infer(name, 1, wrong)
        assert refused.value.status == 400
    assert site.control.infer(name, 1, inputs(3))["scores"].shape == (3, 5)


def test_two_versions_of_one_model_keep_their_engines(site: Site, tmp_path: Path) -> None:
    """All versions share config.pbtxt, so the engine stands in the version's record."""
    other = ENGINES["openvino" if INSTALLED else "onnx-cpu"]
    plain = replace(deployment("onnx-cpu"), name="both", engine=None)
    made = pictures(site.store, tmp_path / "made")
    first = place(made, plain, store=site.store, repository=site.repository)
    config = (site.repository / "both" / "config.pbtxt").read_text()
    assert place(made, plain, store=site.store, repository=site.repository) == first, "placed once"
    second = place(made, replace(plain, engine=other), store=site.store, repository=site.repository)
    assert (first.version, second.version, first.engine) == (1, 2, None)
    assert second.engine is not None
    after = (site.repository / "both" / "config.pbtxt").read_text()
    assert [line for line in after.splitlines() if line not in config.splitlines()] == ["    versions: 2"]
    load(site.server, ("both",))
    answers = [site.control.infer("both", version, inputs(2))["scores"] for version in (1, 2)]
    np.testing.assert_allclose(answers[0], answers[1], rtol=1e-4, atol=1e-4)


def needing(site: Site, made: Artifact, name: str, engine: dict[str, Any]) -> None:
    """Place a version whose record asks for another engine, as on a machine that had it."""
    placed = place(made, replace(deployment("onnx-cpu"), name=name), store=site.store, repository=site.repository)
    record = placed.path / "placement.json"
    told = json.loads(record.read_text())
    record.unlink()
    record.write_text(json.dumps(told | {"engine": engine}))


MISSING = {
    "cuda": ({"kind": "onnx-cuda"}, "CUDAExecutionProvider", "pip install 'onnxruntime-gpu[cuda,cudnn]'"),
    "bf16": ({"kind": "openvino", "precision": "bf16"}, "amx_bf16", "amx_bf16"),
    "openvino": ({"kind": "openvino"}, "openvino", "pip install 'seatrial[openvino]'"),
    "unknown": ({"kind": "evil"}, "evil", "onnx-cpu"),
}


@pytest.mark.parametrize("case", MISSING)
def test_what_the_server_lacks_fails_the_load_by_name_and_nothing_falls_back(
    site: Site, tmp_path: Path, case: str
) -> None:
    engine, what, install = MISSING[case]
    amx = "amx_bf16" in Path("/proc/cpuinfo").read_text() or "avx512_bf16" in Path("/proc/cpuinfo").read_text()
    there = {"cuda": any(Path("/dev").glob("nvidia[0-9]*")), "openvino": INSTALLED, "bf16": not INSTALLED or amx}
    if there.get(case, False):
        pytest.skip("this machine has it")
    made = pictures(site.store, tmp_path / "made", scale=2.0)
    needing(site, made, f"lacks-{case}", engine)
    with pytest.raises(ModelLoadError) as refused:
        load(site.server, (f"lacks-{case}",))
    assert what in str(refused.value)
    assert install in str(refused.value)
    found = [
        each for each in lint(site.repository, release=DEFAULT) if each.file.startswith(f"lacks-{case}/1/placement")
    ]
    assert len(found) == 1, "lint finds it beforehand"
    assert found[0].field == "engine"


@pytest.mark.skipif(INSTALLED, reason="openvino is installed")
def test_placing_refuses_an_engine_that_is_not_installed(tmp_path: Path) -> None:
    store = Store(tmp_path / "store")
    made, wanted = pictures(store, tmp_path / "made"), deployment("openvino")
    with pytest.raises(ContractError, match="needs openvino, which is not installed") as refused:
        place(made, wanted, store=store, repository=tmp_path / "models")
    assert refused.value.next_step == "pip install 'seatrial[openvino]'"
    assert not (tmp_path / "models" / "openvino").exists()
    assert place(made, wanted, store=store, repository=tmp_path / "models", elsewhere=True).engine is not None
