"""Coverage of graphs that ONNX Runtime really optimized: U8S8 and dynamic run in int8, S8S8 convolutions do not."""

import json
import platform
import shutil
from dataclasses import asdict, replace
from pathlib import Path

import numpy as np
import pytest

from scripts.benchmarks.fault_coverage import _measured as sized
from seatrial.optimize.artifact import Artifact, File
from seatrial.optimize.building import coverage_cache
from seatrial.optimize.building.build import build
from seatrial.optimize.environment import environment
from seatrial.optimize.errors import ConfigError, StageError
from seatrial.optimize.graphs.coverage import coverage
from seatrial.optimize.recipe.recipe import load_recipe
from seatrial.optimize.sessions.on_ort_graph import executed
from seatrial.optimize.store import Store
from seatrial.optimize.verbs import comparing
from tests.support.built import ROOT, TINY, Built
from tests.support.int8_net import MACS, dynamic, float_net, pictures, static
from tests.support.made_by import MADE_BY

pytestmark = pytest.mark.system
x86 = pytest.mark.skipif(platform.machine() != "x86_64", reason="which kernels fuse depends on the processor")


def test_a_float_net_runs_in_fp32_and_every_mac_is_counted(tmp_path: Path) -> None:
    found = coverage(executed(float_net(tmp_path / "net.onnx"), pictures(1)))
    assert found.macs == MACS
    assert found.shares == {"fp32": 1.0}
    assert not found.islands
    assert coverage(executed(tmp_path / "net.onnx", pictures(3))).macs == 3 * MACS


@x86
def test_u8s8_runs_wholly_in_int8(tmp_path: Path) -> None:
    source = float_net(tmp_path / "net.onnx")
    found = coverage(executed(static(source, tmp_path / "u8.onnx", "uint8"), pictures(1)))
    assert (found.macs, found.shares, found.islands, found.unseen) == (MACS, {"int8": 1.0}, (), ())


@x86
def test_s8s8_convolutions_stay_in_float_and_are_named_with_the_reason(tmp_path: Path) -> None:
    source = float_net(tmp_path / "net.onnx")
    found = coverage(executed(static(source, tmp_path / "s8.onnx", "int8"), pictures(1)))
    assert [island.layer.name for island in found.islands] == ["first", "second"]
    assert all("S8" in island.reason and "dequantized on every run" in island.reason for island in found.islands)
    assert found.share("int8") == pytest.approx(160 / MACS)


def test_a_dynamic_model_runs_in_int8(tmp_path: Path) -> None:
    found = coverage(executed(dynamic(float_net(tmp_path / "net.onnx"), tmp_path / "dynamic.onnx"), pictures(1)))
    assert {layer.kind for layer in found.layers} == {"ConvInteger", "DynamicQuantizeMatMul"}
    assert (found.macs, found.shares) == (MACS, {"int8": 1.0})


@x86
def test_quantize_fails_under_its_threshold_and_names_what_is_left_in_float(tiny: Built, tmp_path: Path) -> None:
    shutil.copy(TINY.parent / "tiny.py", tmp_path)
    recipe = tmp_path / "tiny.toml"
    text = TINY.read_text().replace(
        'kind = "quantize"', 'kind = "quantize"\ncoverage = 0.9\noperators = ["MatMul", "Gemm"]'
    )
    recipe.write_text(text)
    with pytest.raises(StageError, match=r"run in int8, the stage requires 90.0%") as caught:
        build(load_recipe(recipe), tiny.store)
    assert "conv" in caught.value.what.lower()
    recipe.write_text(TINY.read_text().replace('kind = "quantize"', 'kind = "quantize"\ncoverage = 0.9'))
    assert build(load_recipe(recipe), tiny.store).artifact.digest == tiny.build.artifact.digest


@x86
def test_a_promise_that_another_machine_kept_is_measured_again_here(
    tiny: Built, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shutil.copy(TINY.parent / "tiny.py", tmp_path)
    recipe = tmp_path / "tiny.toml"
    recipe.write_text(TINY.read_text().replace('kind = "quantize"', 'kind = "quantize"\ncoverage = 0.9'))
    made = build(load_recipe(recipe), tiny.store)
    told = coverage_cache.recalled(made.artifact, tiny.store)
    assert told is not None
    assert told.share("int8") >= 0.9
    assert "ONNX Runtime" in told.where
    same, longer = ({"signal": np.zeros((1, 1, length), np.float32)} for length in (64, 128))
    assert coverage_cache.recalled(made.artifact, tiny.store, same) == told
    assert coverage_cache.recalled(made.artifact, tiny.store, longer) is None  # a share depends on the sizes
    monkeypatch.setattr(coverage_cache, "environment", lambda: replace(environment(), cores=environment().cores + 1))
    assert coverage_cache.recalled(made.artifact, tiny.store) is None  # another machine
    assert not build(load_recipe(recipe), tiny.store).worked  # nothing is made, and the share is measured
    assert coverage_cache.recalled(made.artifact, tiny.store) == told
    unlike = replace(told, layers=tuple(replace(layer, precision="fp32") for layer in told.layers))
    tiny.store.remember("coverage", coverage_cache._key(made.artifact), asdict(unlike))
    with pytest.raises(StageError, match="the stage requires"):
        build(load_recipe(recipe), tiny.store)


def test_an_engine_is_asked_of_its_inspector(tmp_path: Path, home: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (folder := tmp_path / "engine").mkdir()
    shutil.copy(ROOT / "tests" / "golden" / "inspector" / "bindings.json", folder / "layers.json")
    (folder / "model.plan").write_bytes(b"no engine: only its inspector's document is read")
    files = tuple(File.of(folder / name) for name in ("layers.json", "model.plan"))
    store = Store(home / "store")
    engine = Artifact(
        name="e", format="tensorrt", files=files, inputs=(), outputs=(), requires={"tensorrt": "==1"}, made_by=MADE_BY
    )
    kept = store.put(engine, folder)
    comparing.coverage(kept.digest, length=8)
    said = capsys.readouterr().out
    assert "conv3" in said
    assert "run by TensorRT" in said


def test_the_verb_prints_shares_islands_and_json(
    tiny: Built, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("SEATRIAL_HOME", str(tiny.home))
    comparing.coverage("tiny", length=8, json_=True)
    found = json.loads(capsys.readouterr().out)
    assert found["digest"] == tiny.build.artifact.digest
    assert found["macs"] == sum(layer["macs"] for layer in found["layers"]) > 0
    comparing.coverage("tiny.fp32", length=8)
    said = capsys.readouterr().out
    assert "fp32" in said
    assert "0 islands" in said
    with pytest.raises(ConfigError, match="torch"):
        comparing.coverage(tiny.build.source.artifact.digest, length=8)


def test_a_share_is_counted_at_the_sizes_of_the_samples(tmp_path: Path) -> None:
    found, true, small = sized(np.random.default_rng(1))
    assert found.share("int8") == pytest.approx(true)
    assert abs(true - small) > 0.01
    assert found.shapes["x"][2:] != (8, 8)
