"""Builds with the real torch, exporter and quantizer: what is kept, what is redone, what is refused."""

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import torch

from seatrial.optimize import environment as machine
from seatrial.optimize.artifact import File
from seatrial.optimize.building.build import build, plan
from seatrial.optimize.building.figures import figures
from seatrial.optimize.errors import IntegrityError, ParityError, SeatrialError, SourceError
from seatrial.optimize.layout import read_manifest
from seatrial.optimize.recipe.data import Data
from seatrial.optimize.recipe.recipe import load_recipe
from seatrial.optimize.sessions.on_torch import open_module
from seatrial.optimize.sessions.session import open_session
from seatrial.optimize.store import Store
from seatrial.optimize.store_check import inspect
from seatrial.optimize.store_repair import repair
from tests.support.built import ROOT, TINY, Built
from tests.support.damages import FILES

pytestmark = pytest.mark.system
SEATRIAL = [sys.executable, "-m", "seatrial.serve.cli"]


def recipe_in(tmp_path: Path, *changes: tuple[str, str]) -> Path:
    """A copy of the tiny recipe with texts replaced."""
    text = TINY.read_text()
    for old, new in changes:
        assert old in text
        text = text.replace(old, new)
    shutil.copy(TINY.parent / "tiny.py", tmp_path / "tiny.py")
    (tmp_path / "tiny.toml").write_text(text)
    return tmp_path / "tiny.toml"


def copied(tiny: Built, tmp_path: Path) -> Store:
    """A copy of the session's store and cache, free to be changed."""
    shutil.copytree(tiny.home, tmp_path / "copy")
    return Store(tmp_path / "copy" / "store")


def test_a_build_and_its_figures_read_the_data_once(
    tiny: Built, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made: list[Data] = []
    begin = Data.__init__

    def counted(data: Data, *arguments: Any) -> None:
        made.append(data)
        begin(data, *arguments)

    monkeypatch.setattr(Data, "__init__", counted)
    store = copied(tiny, tmp_path)
    figures(build(load_recipe(TINY), store), store)
    assert len(made) == 1


def test_every_stage_is_stored_with_its_history(tiny: Built) -> None:
    chain = tiny.store.history(tiny.build.artifact)
    assert [artifact.made_by.stage for artifact in chain] == ["quantize", "export", "prune", "distill", "source"]
    assert all(tiny.store.holds(artifact) for artifact in chain)
    assert tiny.store.get("tiny") == tiny.build.artifact
    assert tiny.store.get("tiny.fp32") == tiny.build.reference.artifact


def test_pruning_is_physical_in_multiples_of_eight_and_no_pickle_is_kept(tiny: Built) -> None:
    distilled, pruned = (step.artifact for step in tiny.build.steps[:2])
    assert pruned.size < distilled.size
    module = open_module(pruned, tiny.store)
    widths = [layer.out_channels for layer in module.modules() if isinstance(layer, torch.nn.Conv1d)]
    assert all(width % 8 == 0 and width < 32 for width in widths)
    assert {file.path for file in pruned.files} == {"weights.safetensors", "architecture.json", "source.py"}


def test_the_export_is_one_file_with_a_symbolic_batch_and_no_paths_inside(tiny: Built) -> None:
    exported = tiny.build.steps[2].artifact
    assert [file.path for file in exported.files] == ["model.onnx"]
    assert all(spec.shape[0] == "batch" for spec in (*exported.inputs, *exported.outputs))
    data = tiny.store.path(exported, "model.onnx").read_bytes()
    assert str(ROOT).encode() not in data
    assert not onnx.load_from_string(data).graph.initializer[0].external_data


def test_the_quantized_file_has_the_integer_types_of_the_target(tiny: Built) -> None:
    artifact = tiny.build.artifact
    model = onnx.load_from_string(tiny.store.path(artifact, "model.onnx").read_bytes())
    kinds = {tensor.name: tensor.data_type for tensor in model.graph.initializer}
    points = {kinds[node.input[2]] for node in model.graph.node if node.op_type == "QuantizeLinear"}
    assert points == {onnx.TensorProto.UINT8}
    assert artifact.requires["cpu_flags_any"]


def test_a_second_build_does_no_work_and_figures_are_recalled(tiny: Built) -> None:
    again = build(load_recipe(TINY), tiny.store)
    assert not again.worked
    assert again.artifact == tiny.build.artifact
    first = figures(again, tiny.store)
    assert figures(again, tiny.store) == first
    assert [row.label for row in first] == ["source", "reference", "distill", "prune", "export", "quantize"]
    assert (first[0].quality or 0.0) > 0.9
    assert all(row.reference is not None for row in first[2:])


def test_the_same_recipe_elsewhere_gives_the_same_bytes(tiny: Built, tmp_path: Path) -> None:
    other = build(load_recipe(recipe_in(tmp_path)), Store(tmp_path / "other" / "store"))
    assert [step.artifact.digest for step in other.all] == [step.artifact.digest for step in tiny.build.all]


def test_a_changed_stage_redoes_only_itself_and_what_follows(tiny: Built, tmp_path: Path) -> None:
    store = copied(tiny, tmp_path)
    changed = load_recipe(recipe_in(tmp_path, ('kind = "quantize"', 'kind = "quantize"\nper_channel = false')))
    assert [step.artifact is not None for step in plan(changed, store)] == [True, True, True, True, False]
    made = build(changed, store)
    assert [step.cached for step in made.steps] == [True, True, True, False]
    earlier = load_recipe(recipe_in(tmp_path, ("ratio = 0.4", "ratio = 0.2")))
    assert [step.cached for step in build(earlier, store).steps] == [True, False, False, False]


def test_damage_in_the_store_is_mended_by_building_again(tiny: Built, tmp_path: Path) -> None:
    store = copied(tiny, tmp_path)
    store.path(tiny.build.artifact, "model.onnx").write_bytes(b"broken")
    with pytest.raises(IntegrityError):
        open_session(tiny.build.artifact, store)
    assert [step.cached for step in build(load_recipe(TINY), store).steps] == [True, True, True, False]
    assert store.holds(tiny.build.artifact)


def test_a_damaged_record_or_manifest_is_made_again_by_building_again(tiny: Built, tmp_path: Path) -> None:
    store = copied(tiny, tmp_path)
    for round_ in ("record", "manifest", "both"):
        entry = store.folder.read_index().entry(tiny.build.artifact.digest)
        assert entry is not None
        config = read_manifest(store.folder.read_record(entry.digest)).config
        for digest in {"record": [config], "manifest": [entry.digest], "both": [config, entry.digest]}[round_]:
            FILES["flipped"](store.folder.blob(digest))
        with pytest.raises(IntegrityError):
            store.get("tiny")
        assert [step.cached for step in build(load_recipe(TINY), store).steps] == [True, True, True, False]
        assert store.get("tiny") == store.whole(tiny.build.artifact.digest)
        if round_ == "both":  # nobody can tell any more whose record it was: only the repair finds it
            repair(store)
        assert inspect(store).damage == ()


def test_an_artifact_that_disagrees_with_its_parent_is_not_kept(tiny: Built, tmp_path: Path) -> None:
    store = copied(tiny, tmp_path)
    tight = load_recipe(
        recipe_in(tmp_path, ('kind = "quantize"', 'kind = "quantize"\nparity = { logits = { relative_error = 1e-7 } }'))
    )
    before = [artifact.digest for artifact in store.all()]
    with pytest.raises(ParityError, match="relative error"):
        build(tight, store)
    assert [artifact.digest for artifact in store.all()] == before
    assert not list((tmp_path / "copy" / "work").iterdir())


def test_a_source_may_be_an_onnx_file(tiny: Built, tmp_path: Path) -> None:
    shutil.copy(tiny.store.path(tiny.build.reference.artifact, "model.onnx"), tmp_path / "net.onnx")
    text = TINY.read_text()
    head, tail = text.split("[[stages]]", 1)[0], '[[stages]]\nkind = "quantize"\n'
    head = head.replace('factory = "tiny.py:teacher"\noutputs = ["logits"]', 'onnx = "net.onnx"')
    shutil.copy(TINY.parent / "tiny.py", tmp_path)
    (tmp_path / "r.toml").write_text(head + tail)
    store = Store(tmp_path / "s" / "store")
    made = build(load_recipe(tmp_path / "r.toml"), store)
    assert made.reference == made.source
    assert len(made.all) == 2
    assert all((row.quality or 0.0) > 0.9 for row in figures(made, store))


@pytest.mark.parametrize(
    ("change", "kind", "what"),
    [
        (("tiny.py:teacher", "tiny.py:broken"), SourceError, "broken() raised RuntimeError: no weights for width 8"),
        (("tiny.py:teacher", "tiny.py:nothing"), SourceError, "no callable 'nothing'"),
        (('outputs = ["logits"]', 'outputs = ["a", "b"]'), SourceError, "the recipe names ['a', 'b']"),
        (("tiny.py:samples", "tiny.py:student"), SourceError, "student() raised"),
    ],
)
def test_what_the_user_brings_wrong_is_named_and_nothing_is_kept(
    tmp_path: Path, change: tuple[str, str], kind: type[SeatrialError], what: str
) -> None:
    store = Store(tmp_path / "s" / "store")
    with pytest.raises(kind) as caught:
        figures(build(load_recipe(recipe_in(tmp_path, change)), store), store)
    assert what in caught.value.what
    assert caught.value.exit_code == 2
    assert caught.value.next_step


def test_an_artifact_for_other_hardware_is_not_opened(tiny: Built, tmp_path: Path) -> None:
    store = copied(tiny, tmp_path)
    foreign = replace(tiny.build.artifact, requires={"architecture": ["riscv64"]})
    store.materialize(tiny.build.artifact, tmp_path / "files")
    kept = store.put(foreign, tmp_path / "files")
    with pytest.raises(SeatrialError, match="riscv64") as caught:
        open_session(kept, store)
    assert caught.value.exit_code == 4
    assert kept.files == (File.of(tmp_path / "files" / "model.onnx"),)


def test_ctrl_c_in_a_stage_is_one_message_and_the_next_run_goes_on(tmp_path: Path) -> None:
    path = recipe_in(tmp_path, ("epochs = 6", "epochs = 4000"))
    environment = os.environ | {"SEATRIAL_HOME": str(tmp_path / "home"), "PYTHONPATH": str(ROOT)}
    process = subprocess.Popen(
        [*SEATRIAL, "build", str(path)], env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    try:
        deadline = time.monotonic() + 120
        home = tmp_path / "home"
        before = 2  # the source and the float reference, which a build makes ahead of its stages
        while len(list((home / "cache" / "steps").glob("*"))) < before or not list((home / "work").glob("*")):
            assert time.monotonic() < deadline
            assert process.poll() is None, process.communicate()
            time.sleep(0.1)
        time.sleep(1)
        process.send_signal(signal.SIGINT)
        _, errors = process.communicate(timeout=60)
    finally:
        process.kill()
    assert process.returncode == 130
    assert "interrupted" in errors
    assert "stopped in distill" in errors
    assert "Traceback" not in errors
    store = Store(tmp_path / "home" / "store")
    assert all(store.holds(artifact) for artifact in store.all())
    assert not list((tmp_path / "home" / "work").iterdir())
    path.write_text(TINY.read_text().split("[[stages]]")[0] + '[[stages]]\nkind = "export"\n')
    assert build(load_recipe(path), store).source.cached


def test_the_machine_is_described() -> None:
    here = machine.environment()
    assert here.cores >= 1
    assert here.libraries["torch"]
    assert json.dumps(here.to_json())
    assert np.isfinite(here.memory_bytes)
