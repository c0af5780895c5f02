"""The stage cohorts: a weak segment is found, trained, and kept only where it gains and the others keep."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from seatrial.optimize.building.source import make_source
from seatrial.optimize.environment import environment
from seatrial.optimize.errors import ConfigError, ParityError
from seatrial.optimize.quality import metric
from seatrial.optimize.recipe.configs import CohortsConfig, Training
from seatrial.optimize.recipe.data import Data
from seatrial.optimize.recipe.recipe import load_recipe
from seatrial.optimize.stages.cohorts import changes, refusal, repeated, run
from seatrial.optimize.stages.stage import Context, Made
from seatrial.optimize.store import Store

MODEL = """
import numpy as np
import torch


class Net(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.net = torch.nn.Sequential(torch.nn.Linear(3, 16), torch.nn.ReLU(), torch.nn.Linear(16, 2))

    def forward(self, x):
        return self.net(x)


def samples(split, count=None, seed=0):
    random = np.random.default_rng([seed, len(split)])
    x = random.normal(size=(count or 1200, 3)).astype(np.float32)
    night = random.random(len(x)) < 0.2
    x[:, 2] = night
    labels = np.where(night, x[:, 1] > 0, x[:, 0] > 0).astype(np.int64)
    return {"x": x}, labels, {"camera": np.where(night, "night", "day"), "temperature": x[:, 0]}


def trained():
    "A net that has seen the day alone."
    torch.manual_seed(0)
    net = Net()
    inputs, labels, columns = samples("train")
    day = columns["camera"] == "day"
    x, y = torch.from_numpy(inputs["x"][day]), torch.from_numpy(labels[day])
    optimizer = torch.optim.Adam(net.parameters(), lr=0.02)
    for _ in range(60):
        optimizer.zero_grad()
        torch.nn.functional.cross_entropy(net(x), y).backward()
        optimizer.step()
    return net
"""
RECIPE = """schema = 1
name = "cameras"
[source]
factory = "model.py:trained"
outputs = ["logits"]
[data]
loader = "model.py:samples"
calibration = 800
evaluation = 200
[[stages]]
kind = "export"
"""
CONFIG = CohortsConfig(kind="cohorts", training=Training(epochs=4, batch_size=64, learning_rate=0.03, soft_weight=0.0))


def ran(folder: Path, config: CohortsConfig) -> Made:
    """Make the source of the recipe, and run the stage on it."""
    (folder / "model.py").write_text(MODEL)
    (folder / "recipe.toml").write_text(RECIPE)
    recipe, store, here = load_recipe(folder / "recipe.toml"), Store(folder / "store"), environment()
    data, files, made = Data(recipe, store, here), folder / "files", folder / "made"
    files.mkdir()
    made.mkdir()
    source = store.put(make_source(recipe, data, files, here), files)
    context = Context(
        folder=made,
        checkpoints=folder / "checkpoints",
        store=store,
        origin=source,
        source=recipe.source,
        samples=data.samples,
        reference=recipe.reference,
        environment=here,
        seed=recipe.seed,
        progress=lambda share, text: None,
        score=metric(recipe),
    )
    return run(config, source, context)


def test_the_weak_segment_is_found_and_gains_while_the_other_keeps(tmp_path: Path) -> None:
    made = ran(tmp_path, replace(CONFIG, column="camera", max_segment_drop=0.08))
    assert made.notes["weak"] == ["night"]
    night, day = made.notes["segments"]["night"], made.notes["segments"]["day"]
    assert night["low"] > 0.1
    assert day["low"] > -0.08
    assert all((tmp_path / "made" / name).is_file() for name in made.files)


def test_a_segment_that_cannot_gain_is_refused_and_nothing_written(tmp_path: Path) -> None:
    config = replace(CONFIG, column="camera", segments=("day",), max_segment_drop=1.0)
    with pytest.raises(ParityError, match=r"weak segment 'day' changed by .* does not exclude 0"):
        ran(tmp_path, config)
    assert not list((tmp_path / "made").iterdir())


@pytest.mark.parametrize(
    ("keys", "said"),
    [
        ({"column": "site"}, "no column 'site'"),
        ({"column": "temperature"}, "they are float32"),
        ({"column": "camera", "segments": ("dusk",)}, "no segment 'dusk'"),
        ({"column": "camera", "weakest": 2}, "leaves none to compare with"),
        ({"support": 500}, "0 segments have 500 samples"),
    ],
)
def test_segments_that_are_not_there_are_refused(keys: dict[str, Any], said: str, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=said):
        ran(tmp_path, replace(CONFIG, **keys))


def test_no_epoch_is_refused() -> None:
    with pytest.raises(ConfigError, match="without an epoch"):
        CohortsConfig(kind="cohorts", training=Training(epochs=0))


def test_rows_of_weak_segments_are_repeated() -> None:
    assert sorted(repeated(np.array(["a", "b", "a"]), ("b",), 3).tolist()) == [0, 1, 1, 1, 2]


def test_every_segment_is_judged_by_its_own_interval() -> None:
    random = np.random.default_rng(0)
    judged = np.repeat(["good", "weak", "rare"], [400, 400, 5])
    before = (random.random(805) < np.repeat([0.9, 0.5, 0.5], [400, 400, 5])).astype(float)
    after = before.copy()
    after[400:800] = random.random(400) < 0.7
    found, few = changes(before, after, judged, ("weak",), 30)
    assert few == ("rare",)
    assert refusal(found, ("weak",), CONFIG) == ""
    after[:40] = 0
    found, _ = changes(before, after, judged, ("weak",), 30)
    assert "segment 'good'" in refusal(found, ("weak",), CONFIG)
    assert refusal(found, ("weak",), replace(CONFIG, max_segment_drop=0.2)) == ""
    found, _ = changes(before, before, judged, ("weak",), 30)
    assert "does not exclude 0" in refusal(found, ("weak",), CONFIG)
