"""The stage features against a table of 60 columns of which 20 matter: what goes, what stays, over five seeds.

The model is scikit-learn's multilayer perceptron behind a StandardScaler, written as its ONNX converter would. The
useful columns have weights of different size; the useless ones are noise, which the perceptron partly learns.
"""

import sys
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from scripts.benchmarks.rows import Row
from seatrial.optimize.building.build import build
from seatrial.optimize.building.figures import figures
from seatrial.optimize.recipe.recipe import load_recipe
from seatrial.optimize.store import Store

COLUMNS, USEFUL, SEEDS = 60, 20, range(1, 6)
LOADER = f"""
import numpy as np

STREAMS = {{"train": 0, "calibration": 1, "evaluation": 2, "golden": 3}}


def samples(split, count=None, seed=0):
    random = np.random.default_rng([seed, STREAMS[split]])
    world = np.random.default_rng([seed, 9])
    weights = np.zeros({COLUMNS})
    useful = world.permutation({COLUMNS})[:{USEFUL}]
    weights[useful] = world.uniform(0.7, 1.5, {USEFUL}) * world.choice([-1, 1], {USEFUL})
    x = random.normal(size=(count or 6000, {COLUMNS}))
    total = x @ weights + 0.8 * (x[:, useful[0]] * x[:, useful[1]]) + random.normal(size=len(x))
    scales = world.uniform(0.5, 20, {COLUMNS})
    return {{"x": (x * scales + scales).astype(np.float32)}}, (total > 0).astype(np.int64), {{}}
"""
RECIPE = """schema = 1
name = "table"
seed = {seed}
[source]
onnx = "table.onnx"
[data]
loader = "loader.py:samples"
calibration = 20000
evaluation = 20000
[[stages]]
kind = "features"
max_quality_drop = 0.01
repeats = 3
"""


def features(folder: Path) -> Row:
    """Build once per seed; a column counts as useful where the labels were drawn from it."""
    told, met = [], True
    for seed in SEEDS:
        place = folder / str(seed)
        place.mkdir()
        (place / "loader.py").write_text(LOADER)
        useful = _trained(place, seed)
        (place / "recipe.toml").write_text(RECIPE.format(seed=seed))
        store = Store(place / "store")
        made = build(load_recipe(place / "recipe.toml"), store)
        rows = figures(made, store)
        dropped = set(made.artifact.made_by.notes["dropped"]["x"])
        wrong, pace = len(dropped & useful), rows[-1].parent
        loss = 100 * ((rows[0].quality or 0) - (rows[-1].quality or 0))
        met = met and wrong == 0 and len(dropped) >= 36 and loss <= 1
        told.append(f"{len(dropped - useful)} useless and {wrong} useful, {loss:+.2f} pp, size {_size(rows)}")
        print(f"seed {seed}: {told[-1]}, latency {pace.ratio if pace else 0:.2f}", file=sys.stderr, flush=True)
    return Row(
        name="features",
        claim=f"{COLUMNS - USEFUL} useless of {COLUMNS} columns, a perceptron, 5 seeds: columns dropped, quality lost",
        value="; ".join(told),
        bar=">= 36 useless, no useful, <= 1 pp (the recipe's margin)",
        met=met,
    )


def _size(rows: Any) -> str:
    return f"{rows[-1].size / rows[0].size:.2f}"


def _trained(folder: Path, seed: int) -> set[int]:
    """Train the perceptron, write it as ONNX, return the useful columns."""
    from sklearn.neural_network import MLPClassifier
    from sklearn.preprocessing import StandardScaler

    scope: dict[str, Any] = {}
    exec(compile(LOADER, "loader.py", "exec"), scope)
    inputs, labels, _ = scope["samples"]("train", seed=seed)
    scaler = StandardScaler().fit(inputs["x"])
    net = MLPClassifier((64,), max_iter=30, random_state=seed, alpha=1e-2, early_stopping=True)
    net.fit(scaler.transform(inputs["x"]), labels)
    constants = {
        "mean": scaler.mean_,
        "scale": scaler.scale_,
        "w1": net.coefs_[0],
        "b1": net.intercepts_[0],
        "w2": np.concatenate([-net.coefs_[1], net.coefs_[1]], axis=1) / 2,
        "b2": np.concatenate([-net.intercepts_[1], net.intercepts_[1]]) / 2,
    }
    nodes = [
        helper.make_node("Sub", ["x", "mean"], ["c"]),
        helper.make_node("Div", ["c", "scale"], ["z"]),
        helper.make_node("MatMul", ["z", "w1"], ["h"]),
        helper.make_node("Add", ["h", "b1"], ["hb"]),
        helper.make_node("Relu", ["hb"], ["r"]),
        helper.make_node("Gemm", ["r", "w2", "b2"], ["y"]),
    ]
    graph = helper.make_graph(
        nodes,
        "table",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["n", COLUMNS])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["n", 2])],
        [numpy_helper.from_array(value.astype(np.float32), name) for name, value in constants.items()],
    )
    onnx.save_model(
        helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=9), str(folder / "table.onnx")
    )
    world = np.random.default_rng([seed, 9])
    return set(world.permutation(COLUMNS)[:USEFUL].tolist())
