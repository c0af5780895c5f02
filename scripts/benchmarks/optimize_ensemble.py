"""The stage ensemble on five members: perceptrons of scikit-learn and small CNNs of torch, on noisy digits, five seeds.

Digits are scikit-learn's scans, shifted by up to a pixel and under noise; training and held-out samples come from
scans of their own. The members differ in width and in their seed alone.
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
from seatrial.optimize.quality import metric, scores
from seatrial.optimize.recipe.recipe import load_recipe
from seatrial.optimize.samples import Samples
from seatrial.optimize.sessions.on_ort import OrtSession
from seatrial.optimize.store import Store
from seatrial.optimize.user_code import Reference

SEEDS, MEMBERS, MARGIN = range(1, 6), 5, 0.005
LOADER = """
import numpy as np
from sklearn.datasets import load_digits

STREAMS = {"train": 0, "calibration": 1, "evaluation": 2, "golden": 3}
SIZES = {"train": 12000, "calibration": 20000, "evaluation": 20000, "golden": 16}


def samples(split, count=None, seed=0):
    digits = load_digits()
    held = np.random.default_rng(seed).permutation(len(digits.target)) % 2 == 0
    pool = np.flatnonzero(~held if split == "train" else held)
    random = np.random.default_rng([seed, STREAMS[split]])
    count = count or SIZES[split]
    rows = random.choice(pool, count)
    images = np.pad(digits.images[rows] / 16, ((0, 0), (1, 1), (1, 1)))
    down, right = random.integers(0, 3, count), random.integers(0, 3, count)
    lines = (down[:, None] + np.arange(8))[:, :, None]
    shifted = images[np.arange(count)[:, None, None], lines, (right[:, None] + np.arange(8))[:, None, :]]
    noisy = shifted + 0.1 * random.normal(size=shifted.shape)
    return {"image": noisy[:, None].astype(np.float32)}, digits.target[rows].astype(np.int64)
"""
RECIPE = """schema = 1
name = "digits"
seed = {seed}
[source]
onnx = "member0.onnx"
[data]
loader = "loader.py:samples"
calibration = 20000
evaluation = 20000
[[stages]]
kind = "ensemble"
members = ["member1.onnx", "member2.onnx", "member3.onnx", "member4.onnx"]
max_quality_drop = 0.005
"""


def ensemble_sklearn(folder: Path) -> Row:
    """Five perceptrons."""
    return _row(folder, "ensemble-sklearn", "perceptrons of scikit-learn", _perceptron)


def ensemble_cnn(folder: Path) -> Row:
    """Five CNNs."""
    return _row(folder, "ensemble-cnn", "CNNs of torch", _cnn)


def _row(folder: Path, name: str, what: str, write: Any) -> Row:
    told, met = [], True
    for seed in SEEDS:
        place = folder / str(seed)
        place.mkdir()
        (place / "loader.py").write_text(LOADER)
        (place / "recipe.toml").write_text(RECIPE.format(seed=seed))
        load = Reference.parse("loader.py:samples", place).load()
        inputs, labels = load("train", seed=seed)
        for number in range(MEMBERS):
            write(place / f"member{number}.onnx", number, inputs["image"], labels, seed)
        recipe, store = load_recipe(place / "recipe.toml"), Store(place / "store")
        made = build(recipe, store)
        figures(made, store)
        held, answers = load("evaluation", 20000, seed=seed)
        samples, score = Samples(split="evaluation", inputs=held, labels=answers), metric(recipe)
        whole = _mean(place, held["image"])
        before = score({"logits": whole}, answers).mean()
        after = scores(OrtSession(store.path(made.artifact, "model.onnx")), samples, score).mean()
        notes = made.artifact.made_by.notes
        kept, lost = len(notes["members"]), 100 * float(before - after)
        latency = (notes["latency"] or {}).get("ratio", 1.0)
        met = met and kept <= 2 and lost <= 100 * MARGIN
        told.append(f"{kept} of {MEMBERS}, {lost:+.2f} pp lost of {before:.4f}, time {latency:.2f}")
        print(f"seed {seed}: {told[-1]}", file=sys.stderr, flush=True)
    return Row(
        name=name,
        claim=f"five {what}, 5 seeds: members kept, accuracy lost against the mean of all on 20000, time over theirs",
        value="; ".join(told),
        bar="<= 2 kept, <= 0.5 pp",
        met=met,
    )


def _mean(folder: Path, images: Any) -> Any:
    sessions = [OrtSession(folder / f"member{number}.onnx") for number in range(MEMBERS)]
    return np.mean([next(iter(session.run({"image": images}).values())) for session in sessions], axis=0)


def _perceptron(path: Path, number: int, images: Any, labels: Any, seed: int) -> None:
    """Fit one and write it as ONNX, logits out."""
    import warnings

    from sklearn.neural_network import MLPClassifier

    width = (32, 48, 64, 128, 192)[number]
    net = MLPClassifier((width,), max_iter=12, random_state=seed * 10 + number, alpha=1e-3)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        net.fit(images.reshape(len(labels), -1), labels)
    constants = {"w1": net.coefs_[0], "b1": net.intercepts_[0], "w2": net.coefs_[1], "b2": net.intercepts_[1]}
    nodes = [
        helper.make_node("Flatten", ["image"], ["x"], axis=1),
        helper.make_node("Gemm", ["x", "w1", "b1"], ["h"]),
        helper.make_node("Relu", ["h"], ["r"]),
        helper.make_node("Gemm", ["r", "w2", "b2"], ["logits"]),
    ]
    graph = helper.make_graph(
        nodes,
        "perceptron",
        [helper.make_tensor_value_info("image", TensorProto.FLOAT, ["n", 1, 8, 8])],
        [helper.make_tensor_value_info("logits", TensorProto.FLOAT, ["n", 10])],
        [numpy_helper.from_array(value.astype(np.float32), key) for key, value in constants.items()],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=9)
    onnx.save_model(model, str(path))


def _cnn(path: Path, number: int, images: Any, labels: Any, seed: int) -> None:
    """Train one and export it."""
    import torch
    from torch import nn

    torch.manual_seed(seed * 10 + number)
    width, epochs = (4, 6, 8, 16, 24)[number], 4
    net = nn.Sequential(
        nn.Conv2d(1, width, 3, padding=1),
        nn.ReLU(),
        nn.Conv2d(width, 2 * width, 3, stride=2, padding=1),
        nn.ReLU(),
        nn.Flatten(),
        nn.Linear(32 * width, 10),
    )
    x, y = torch.from_numpy(images), torch.from_numpy(labels)
    optimizer = torch.optim.AdamW(net.parameters(), lr=3e-3)
    for _ in range(epochs):
        for rows in torch.split(torch.randperm(len(y)), 64):
            optimizer.zero_grad()
            loss = nn.functional.cross_entropy(net(x[rows]), y[rows])
            torch.autograd.backward(loss)
            optimizer.step()
    batch = torch.export.Dim("n", min=1)
    torch.onnx.export(
        net.eval(),
        (x[:2],),
        str(path),
        input_names=["image"],
        output_names=["logits"],
        dynamic_shapes=({0: batch},),
        dynamo=True,
        external_data=False,
        verbose=False,
    )
