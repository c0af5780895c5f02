"""A recipe of the linear model: four classes, its labels those that the model gives, but for some noise."""

from pathlib import Path

from tests.support.linear import linear

LOADER = """
import numpy as np


def samples(split, count=None, seed=0):
    random = np.random.default_rng([seed, len(split)])
    x = random.normal(size=(count or 200, 8)).astype(np.float32)
    weight = np.random.default_rng(1).normal(size=(8, 4)).astype(np.float32)
    noisy = x @ weight + random.normal(size=(len(x), 4))
    return {"x": x}, noisy.argmax(axis=1).astype(np.int64)
"""
RECIPE = """schema = 1
name = "linear"
stages = []

[source]
onnx = "linear.onnx"

[data]
loader = "loader.py:samples"
calibration = 64
evaluation = 400
"""


def linear_recipe(folder: Path, stages: str = "") -> Path:
    """Write model, loader and recipe into a new folder; `stages` are tables of TOML; returns the recipe's path."""
    folder.mkdir(parents=True)
    linear(folder / "linear.onnx")
    (folder / "loader.py").write_text(LOADER)
    path = folder / "recipe.toml"
    path.write_text(RECIPE.replace("stages = []\n", "") + "\n" + stages if stages else RECIPE)
    return path
