"""Prune stages on real modules: smaller, the same function as with units switched off, and reopened exactly."""

import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from seatrial.optimize.artifact import Artifact
from seatrial.optimize.building.build import build
from seatrial.optimize.building.built import Build
from seatrial.optimize.errors import StageError
from seatrial.optimize.pruning.on_graphs import sparse_weights
from seatrial.optimize.pruning.pattern import holds
from seatrial.optimize.recipe.recipe import load_recipe
from seatrial.optimize.sessions.on_torch import open_module
from seatrial.optimize.sessions.session import open_session
from seatrial.optimize.store import Store
from tests.support.built import ROOT

pytestmark = pytest.mark.system

HEAD = """
schema = 1
name = "small"
[source]
factory = "{factory}"
outputs = ["logits"]
arguments = {arguments}
[data]
loader = "{file}:samples"
train = 128
calibration = 32
evaluation = 32
"""
SHORT = "training = { epochs = 1, batch_size = 64 }"
NONE = "training = { epochs = 0 }"


def built(folder: Path, factory: str, arguments: str, *stages: str) -> tuple[Build, Store]:
    """Build a recipe of these stages in `folder`."""
    folder.mkdir(exist_ok=True)
    file = factory.partition(":")[0]
    shutil.copy(ROOT / "tests" / "support" / file, folder)
    text = HEAD.format(factory=factory, arguments=arguments, file=file)
    (folder / "r.toml").write_text(text + "".join(f"[[stages]]\n{stage}\n" for stage in stages))
    store = Store(folder / "home" / "store")
    return build(load_recipe(folder / "r.toml"), store), store


def prune(*lines: str) -> str:
    """A prune stage's text."""
    return "\n".join(('kind = "prune"', *lines))


def answers(artifact: Artifact, store: Store, inputs: dict[str, Any]) -> Any:
    """The artifact's logits, opened from the store."""
    return open_session(artifact, store).run(inputs)["logits"]


def test_blocks_heads_and_columns_go_and_a_second_stage_builds_on_the_first(tmp_path: Path) -> None:
    made, store = built(
        tmp_path,
        "attention.py:model",
        '{ style = "bert" }',
        prune("layers = 0.25", "heads = 0.5", "ffn = 0.5", "steps = 2", SHORT),
        prune("layers = 0.3", "ratio = 0.5", NONE),
        'kind = "export"',
    )
    first, second = (open_module(step.artifact, store) for step in made.steps[:2])
    shapes = [
        [(layer.attention.num_attention_heads, layer.attention.all_head_size, layer.intermediate.out_features)
         for layer in module.layers]  # type: ignore[union-attr]
        for module in (first, second)
    ]  # fmt: skip
    assert shapes == [[(2, 16, 64)] * 3, [(1, 8, 32)] * 2]
    notes = made.steps[0].artifact.made_by.notes
    assert notes["parameters"] < 0.5 * notes["parameters_before"]
    assert notes["macs"] < 0.5 * notes["macs_before"]
    inputs = {"tokens": np.random.default_rng(0).normal(size=(5, 12, 32)).astype(np.float32)}
    got = answers(made.artifact, store, inputs)
    np.testing.assert_allclose(got, answers(made.steps[1].artifact, store, inputs), rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize(
    ("style", "stage"),
    [
        ("timm", 'ratio = 0.5\nimportance = "taylor"\nscope = "global"'),
        ("torch", "ffn = 0.5\nlayers = 0.5"),
        ("torch", 'ratio = 0.5\nkeep = ["*.self_attn"]'),
    ],
)
def test_other_styles_need_no_code_of_their_own(tmp_path: Path, style: str, stage: str) -> None:
    made, store = built(tmp_path, "attention.py:model", f'{{ style = "{style}", depth = 2 }}', prune(stage, NONE))
    notes = made.artifact.made_by.notes
    module = open_module(made.artifact, store)
    assert sum(parameter.numel() for parameter in module.parameters()) == notes["parameters"]
    assert notes["parameters"] < notes["parameters_before"]


@pytest.mark.parametrize(
    ("style", "what"),
    [
        ("torch", "torch.nn.MultiheadAttention"),
        ("interleaved", "the smaller module's outputs differ from the whole module's"),
    ],
)
def test_attention_that_cannot_lose_heads_is_refused(tmp_path: Path, style: str, what: str) -> None:
    with pytest.raises(StageError, match=what) as caught:
        built(tmp_path, "attention.py:model", f'{{ style = "{style}", depth = 2 }}', prune("heads = 0.5", NONE))
    assert "keep" in caught.value.next_step
    assert not list((tmp_path / "home" / "work").iterdir())


@pytest.mark.parametrize("choice", ['importance = "taylor"', 'importance = "bn"', 'scope = "global"'])
def test_every_criterion_gives_a_smaller_network_in_multiples(tmp_path: Path, choice: str) -> None:
    made, store = built(tmp_path, "tiny.py:wide", "{ width = 32 }", prune("ratio = 0.5", "steps = 2", choice, NONE))
    module = open_module(made.artifact, store)
    widths = [layer.out_channels for layer in module.modules() if isinstance(layer, torch.nn.Conv1d)]
    assert all(width % 8 == 0 for width in widths)
    assert sum(widths) < 64


def test_kept_layers_keep_their_channels(tmp_path: Path) -> None:
    made, store = built(tmp_path, "tiny.py:wide", "{ width = 32 }", prune("ratio = 0.5", 'keep = ["first"]', NONE))
    module: Any = open_module(made.artifact, store)
    assert (module.first.out_channels, module.second.out_channels) == (32, 16)


def test_a_latency_target_is_searched_for_and_the_finished_model_is_measured(tmp_path: Path) -> None:
    stage = prune("target_latency_ratio = 0.5", "latency_batch = 8", NONE)
    made, _ = built(tmp_path, "tiny.py:wide", "{ width = 64 }", stage)
    told = made.artifact.made_by.notes["latency"]
    assert told["target"] == 0.5
    assert told["interval"][0] <= told["reached"] <= told["interval"][1]
    assert told["met"] == all(abs(end / 0.5 - 1) <= 0.05 for end in told["interval"])
    assert told["met_by_estimate"] == (abs(told["reached"] / 0.5 - 1) <= 0.05)
    assert told["met_by_estimate"] or not told["met"]
    assert 1 <= len(told["tries"]) <= 3
    assert told["ratio"] in [reading["ratio"] for reading in told["tries"]]
    nearest = min(told["tries"], key=lambda reading: abs(reading["share"] - 0.5))
    assert told["ratio"] == nearest["ratio"]


def test_two_of_four_is_held_through_training_and_export(tmp_path: Path) -> None:
    made, store = built(tmp_path, "tiny.py:wide", "{ width = 32 }", prune('sparsity = "2:4"', SHORT), 'kind = "export"')
    sparse, dense = made.steps[0].artifact, made.reference.artifact
    module: Any = open_module(sparse, store)
    assert holds(module.second.weight.detach().numpy())
    assert holds(module.head.weight.detach().numpy())
    assert (module.second.weight == 0).float().mean() == 0.5
    assert sparse.made_by.notes["sparse_weights"] == sparse.made_by.notes["sparse_weights_exported"] == 2
    assert "CPU" in sparse.made_by.notes["about"]
    after, before = (sparse_weights(store.path(each, "model.onnx")) for each in (made.artifact, dense))
    assert [weight.holds for weight in after] == [False, True, True]  # one input channel cannot be cut into fours
    assert not any(weight.holds for weight in before)
