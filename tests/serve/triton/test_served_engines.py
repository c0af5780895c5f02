"""The engine of a placed version: chosen by the deployment or the artifact's provenance, recorded, and looked for."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from seatrial.optimize.artifact import Artifact, File
from seatrial.optimize.environment import environment
from seatrial.optimize.errors import ContractError
from seatrial.optimize.store import Store
from seatrial.serve.caching import Cache
from seatrial.serve.deployment import Deployment, Instances, OnnxCpu, OnnxCuda, OpenVino, Torch
from seatrial.serve.errors import ConfigRuleError, PlacementError
from seatrial.serve.triton import engines
from seatrial.serve.triton.compiler.config import check
from seatrial.serve.triton.lint import lint
from seatrial.serve.triton.repository.placement import placements
from seatrial.serve.triton.repository.placing import place
from seatrial.serve.triton_releases import DEFAULT
from tests.support.graphs import pictures
from tests.support.kinds import SCENES, artifact, spec
from tests.support.made_by import MADE_BY

OPENVINO = OpenVino(kind="openvino")
GPU = Instances(kind="gpu")
TEXT = artifact((spec("said", "n", 2, dtype="object"),), (spec("heard", "n", 2, dtype="object"),))
FREE = artifact((spec("tokens", "n", "length", dtype="int64"),), (spec("meaning", "n", 4),))


def deployment(**more: Any) -> Deployment:
    return Deployment(schema=1, name="m", max_batch_size=8, **more)


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store(tmp_path / "store")


@pytest.fixture
def installed(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let the engine's library count as installed."""
    monkeypatch.setattr(engines, "find_spec", lambda name: object())


def measured(store: Store, folder: Path, engine: str, **more: Any) -> Artifact:
    """An artifact whose stage measured in that engine."""
    made = pictures(store, folder)
    return replace(made, made_by=replace(MADE_BY, notes={"engine": engine}, **more))


@pytest.mark.parametrize(
    ("engine", "more", "where", "says"),
    [
        (OPENVINO, {"backend": "native"}, "engine.kind", 'backend = "native" has no engine openvino'),
        (Torch(kind="torch"), {"backend": "native"}, "engine.kind", "has no engine torch"),
        (OPENVINO, {"instances": GPU}, "instances.kind", "runs on the CPU"),
        (replace(OPENVINO, buckets=(1, 4)), {}, "engine.buckets", "no bucket holds a batch of 8"),
        (replace(OPENVINO, buckets=(1, 16)), {}, "engine.buckets", "must be between 1 and max_batch_size = 8"),
        (replace(OPENVINO, buckets=(1, 8, 8)), {}, "engine.buckets", "8 is listed twice"),
        (Torch(kind="torch", outputs="device"), {}, "engine.outputs", "have no device"),
        (
            OnnxCuda(kind="onnx-cuda", outputs="device"),
            {"instances": GPU, "cache": Cache(megabytes=1, ttl_seconds=1.0)},
            "engine.outputs",
            "keeps host arrays only",
        ),
        (
            OnnxCuda(kind="onnx-cuda", cuda_graph=True),
            {"instances": GPU, "backend": "native"},
            "engine.cuda_graph",
            "only our model.py reads it",
        ),
    ],
)
def test_an_engine_that_a_deployment_cannot_have_is_refused(engine: Any, more: Any, where: str, says: str) -> None:
    with pytest.raises(ConfigRuleError) as refused:
        deployment(engine=engine, **more)
    assert refused.value.where == where
    assert says in refused.value.what


@pytest.mark.parametrize(
    ("engine", "made", "more", "says"),
    [
        (Torch(kind="torch"), SCENES, {}, "torch runs torch-export, but"),
        (OPENVINO, TEXT, {}, "openvino does not run tensors of strings"),
        (OnnxCuda(kind="onnx-cuda", cuda_graph=True), FREE, {"instances": GPU}, "a captured graph has fixed shapes"),
        (None, replace(SCENES, format="torch"), {}, "cannot serve a torch artifact"),
        (None, replace(SCENES, format="torch-export"), {"backend": "native"}, "cannot serve a torch-export artifact"),
    ],
)
def test_an_engine_that_an_artifact_cannot_run_in_is_refused(engine: Any, made: Artifact, more: Any, says: str) -> None:
    with pytest.raises(ConfigRuleError, match=says):
        check(deployment(engine=engine, **more), made)


def test_the_engine_is_the_deployments_or_the_one_that_the_artifact_was_measured_in(
    store: Store, tmp_path: Path
) -> None:
    plain = pictures(store, tmp_path / "plain")
    assert engines.served_in(plain, deployment(), store) is None
    assert engines.served_in(plain, deployment(engine=OnnxCpu(kind="onnx-cpu")), store) is None
    found = engines.served_in(plain, deployment(engine=OnnxCpu(kind="onnx-cpu", graph="basic")), store)
    assert found == {"kind": "onnx-cpu", "graph": "basic"}
    inside = measured(store, tmp_path / "inside", "openvino")
    axes = {"image": ["n", None, None, None], "gain": ["n", None]}
    assert engines.served_in(inside, deployment(), store) == {
        "kind": "openvino",
        "precision": "f32",
        "buckets": [],
        "axes": axes,
    }
    assert engines.served_in(inside, deployment(engine=OnnxCpu(kind="onnx-cpu")), store) is None, "the deployment wins"
    assert engines.served_in(inside, deployment(backend="native"), store) is None
    halves = engines.served_in(measured(store, tmp_path / "halves", "openvino-bf16"), deployment(), store)
    assert halves is not None
    assert (halves["precision"], engines.in_process(halves)) == ("bf16", "openvino-bf16")
    assert engines.shown(halves) == "openvino (bf16)"
    assert engines.served_in(measured(store, tmp_path / "ort", "onnxruntime"), deployment(), store) is None
    gpu = engines.served_in(plain, deployment(instances=GPU), store)
    assert gpu is not None
    assert (gpu["kind"], gpu["conv_search"], gpu["arena"]) == ("onnx-cuda", "heuristic", "same-as-requested")
    package = engines.served_in(replace(plain, format="torch-export"), deployment(), store)
    assert package == {"kind": "torch", "outputs": "host"}


def test_a_later_stage_keeps_the_engine_of_the_ancestor_that_was_measured(store: Store, tmp_path: Path) -> None:
    made = pictures(store, tmp_path / "parent")
    (tmp_path / "again").mkdir()
    (tmp_path / "again" / "model.onnx").write_bytes((tmp_path / "parent" / "model.onnx").read_bytes())
    named = replace(made, name="other", made_by=replace(MADE_BY, notes={"engine": "openvino"}))
    parent = store.put(named, tmp_path / "again")
    child = replace(made, made_by=replace(MADE_BY, parent=parent.digest))
    assert engines.measured_in(child, store) == "openvino"
    assert engines.measured_in(replace(made, made_by=replace(MADE_BY, parent="sha256:" + "0" * 64)), store) == ""


def test_placing_refuses_what_the_server_lacks_and_names_it(
    store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(engines, "find_spec", lambda name: None)
    repository, made = tmp_path / "models", measured(store, tmp_path / "made", "openvino")
    with pytest.raises(ContractError, match="engine openvino needs openvino, which is not installed") as refused:
        place(made, deployment(), store=store, repository=repository)
    assert refused.value.next_step == "pip install 'seatrial[openvino]'"
    assert not (repository / "m").exists(), "nothing falls back to ONNX Runtime"
    with pytest.raises(ContractError, match="needs onnxruntime"):
        place(made, deployment(engine=OnnxCpu(kind="onnx-cpu")), store=store, repository=repository)
    placed = place(made, deployment(), store=store, repository=repository, elsewhere=True)
    assert engines.kind_of(placed.engine) == "openvino"
    (found,) = [each for each in lint(repository, release=DEFAULT) if each.field == "engine"]
    assert (found.severity, found.file) == ("error", "m/1/placement.json")
    assert "needs openvino" in found.rule
    assert found.fix == "pip install 'seatrial[openvino]'"


def test_bf16_needs_instructions_for_it(monkeypatch: pytest.MonkeyPatch, installed: None) -> None:
    """OpenVINO falls back to float32 in silence, or is many times slower."""
    options = {"kind": "openvino", "precision": "bf16"}
    monkeypatch.setattr(engines, "_flags", lambda: frozenset({"avx2", "avx512_vnni"}))
    lacking = engines.missing(options)
    assert lacking is not None
    assert "amx_bf16 or avx512_bf16" in lacking.what
    monkeypatch.setattr(engines, "_flags", lambda: frozenset({"amx_bf16"}))
    assert engines.missing(options) is None
    assert engines.missing({"kind": "openvino", "precision": "f32"}) is None


def test_cuda_needs_a_wheel_with_it_and_a_gpu(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    class Found:
        submodule_search_locations = (str(tmp_path),)

    monkeypatch.setattr(engines, "find_spec", lambda name: Found)
    options = {"kind": "onnx-cuda"}
    lacking = engines.missing(options)
    assert lacking is not None
    assert "CUDAExecutionProvider" in lacking.what
    assert lacking.next_step == "pip install 'onnxruntime-gpu[cuda,cudnn]'"
    (tmp_path / "capi").mkdir()
    (tmp_path / "capi" / "libonnxruntime_providers_cuda.so").touch()
    if not environment().gpus:
        lacking = engines.missing(options)
        assert lacking is not None
        assert "NVIDIA GPU" in lacking.what
    assert engines.missing({"kind": "evil"}) is not None


def test_each_engine_is_a_version_of_its_own_and_the_configuration_stays(
    store: Store, tmp_path: Path, installed: None
) -> None:
    """Else a running version would be started again, and in another engine than it was proven in."""
    repository, made = tmp_path / "models", pictures(store, tmp_path / "made")
    first = place(made, deployment(), store=store, repository=repository)
    before = (repository / "m" / "config.pbtxt").read_text()
    second = place(made, deployment(engine=OPENVINO), store=store, repository=repository)
    third = place(made, deployment(engine=replace(OPENVINO, buckets=(2, 8))), store=store, repository=repository)
    assert [each.version for each in (first, second, third)] == [1, 2, 3]
    after = (repository / "m" / "config.pbtxt").read_text().splitlines()
    assert [line.strip() for line in after if line not in before.splitlines()] == ["versions: 2", "versions: 3"]
    assert place(made, deployment(engine=OPENVINO), store=store, repository=repository) == second
    assert place(made, deployment(), store=store, repository=repository) == first
    assert placements(repository, "m") == (first, second, third)
    record = json.loads((third.path / "placement.json").read_text())
    assert record["engine"]["buckets"] == [2, 8]
    assert third.to_json()["engine"] == record["engine"]
    assert "engine" not in first.to_json()


def test_versions_of_one_model_have_one_kind_of_file(store: Store, tmp_path: Path, installed: None) -> None:
    made = pictures(store, tmp_path / "made")
    place(made, deployment(), store=store, repository=tmp_path / "models")
    (tmp_path / "package").mkdir()
    (tmp_path / "package" / "model.pt2").write_bytes(b"package")
    files = (File.of(tmp_path / "package" / "model.pt2"),)
    package = store.put(replace(made, format="torch-export", files=files), tmp_path / "package")
    with pytest.raises(PlacementError, match="kind of file differs"):
        place(package, deployment(), store=store, repository=tmp_path / "models")
