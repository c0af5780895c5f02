"""The demo's source model: tell which handwritten digit stands in a cluttered scene; its data, networks and training.

Every scene is built from the real 8x8 scans of scikit-learn's `load_digits`: one whole digit at a random place, scale
and rotation, over fragments cut from scans of other digits, plus noise. The scans are parted once into a training and
an evaluation pool, so that no scan, be it shown as digit or as clutter, serves both sides. (The scans come without
their writers' names, so one writer may serve both.)

    python scripts/models/scenes.py train --out scripts/models/scenes-teacher.safetensors
    python scripts/models/scenes.py check
"""

from __future__ import annotations

import argparse
import time
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    from torch import nn

Floats = NDArray[np.float32]
Integers = NDArray[np.int64]

SIDE = 32  # pixels along one side of a scene
SCAN = 8  # pixels along one side of a scan
CLASSES = 10
SEED = 7
WEIGHTS = Path(__file__).with_name("scenes-teacher.safetensors")

_EVALUATION_SHARE = 0.25  # of each class's scans
_CHUNK = 200  # scenes built at once; keeps the working arrays in cache
_PEAK_RATE = 4e-3  # learning rate at the top of the one-cycle schedule
_BATCH = 128  # scenes in one training step
_NOISE = 0.07  # standard deviation of a pixel's noise
_CENTRE = (9.0, 22.0)  # the digit's row and column, pixels
_FRAGMENTS = 8  # pieces of clutter in a scene
_FRAGMENT_SIDE = 4  # scan pixels along one side of a fragment
_DISTANCE = (10.0, 24.0)  # from the digit's centre to a fragment's, pixels
_BORDER = 32  # pixels of canvas round the scene, so that every patch fits


class _Look(NamedTuple):
    """Appearance of an image in a scene; each pair holds the bounds of a uniform draw."""

    patch: int  # pixels along one side of the square that holds the shown image
    scale: tuple[float, float]  # scene pixels for each scan pixel
    rotation: tuple[float, float]  # radians
    contrast: tuple[float, float]  # brightness of a full stroke


_DIGIT = _Look(patch=28, scale=(1.7, 2.4), rotation=(-0.4, 0.4), contrast=(0.6, 1.0))
_FRAGMENT = _Look(patch=16, scale=(1.5, 2.2), rotation=(-3.14, 3.14), contrast=(0.4, 0.9))
_DIGIT_DRAWS, _FRAGMENT_DRAWS = 6, 8  # random numbers spent on one image


class _Split(NamedTuple):
    """One split: the pool that it draws from, its stream of random numbers and its number of scenes."""

    pool: str
    stream: int
    size: int


_SPLITS = {
    "train": _Split("train", 0, 16000),
    "calibration": _Split("train", 1, 512),
    "evaluation": _Split("evaluation", 2, 4000),
    "golden": _Split("evaluation", 3, 32),
}


class _Pool(NamedTuple):
    """Scans [m, 8, 8] in [0, 1] and their labels [m]."""

    scans: Floats
    labels: Integers


@cache
def _pools() -> dict[str, _Pool]:
    """All scans, parted class by class into the training and the evaluation pool."""
    from sklearn.datasets import load_digits

    digits = load_digits()
    scans, labels = (digits.images / 16).astype(np.float32), digits.target.astype(np.int64)
    generator = np.random.default_rng(0)
    held_out = np.zeros(len(labels), dtype=bool)
    for label in range(CLASSES):
        members = generator.permutation(np.flatnonzero(labels == label))
        held_out[members[: round(_EVALUATION_SHARE * len(members))]] = True
    return {
        "train": _Pool(scans[~held_out], labels[~held_out]),
        "evaluation": _Pool(scans[held_out], labels[held_out]),
    }


def samples(split: str, count: int | None = None, seed: int = SEED) -> tuple[dict[str, Floats], Integers]:
    """Scenes of one split with their labels, the same bit for bit for the same arguments.

    `split` is train (16000 scenes), calibration (512), evaluation (4000) or golden (32); `count` overrides its size,
    and a smaller count gives the first scenes of a greater one. Returns {"image": float32 [n, 1, 32, 32] in [0, 1]}
    and int64 labels [n] in 0..9.
    """
    if split not in _SPLITS:
        raise ValueError(f"unknown split {split!r}: it must be one of {', '.join(_SPLITS)}")
    pool_name, stream, size = _SPLITS[split]
    count = size if count is None else count
    if count < 0:
        raise ValueError(f"count must not be negative, got {count}")
    draws = np.random.default_rng([seed, stream, 0])
    noise = np.random.default_rng([seed, stream, 1])
    images, labels = np.empty((count, 1, SIDE, SIDE), np.float32), np.empty(count, np.int64)
    for start in range(0, count, _CHUNK):
        part = slice(start, min(start + _CHUNK, count))
        images[part, 0], labels[part] = _scenes(_pools()[pool_name], part.stop - part.start, draws, noise)
    return {"image": images}, labels


def _scenes(pool: _Pool, count: int, draws: np.random.Generator, noise: np.random.Generator) -> tuple[Floats, Integers]:
    """Build `count` scenes: images [count, 32, 32] in steps of 1/255, as a camera gives them, and labels [count]."""
    unit = draws.random((count, _DIGIT_DRAWS + _FRAGMENTS * _FRAGMENT_DRAWS), dtype=np.float32)
    digit, clutter = unit[:, :_DIGIT_DRAWS], unit[:, _DIGIT_DRAWS:]
    chosen = _index(digit[:, 0], len(pool.labels))
    labels = pool.labels[chosen]
    centres = _between(digit[:, 1:3], _CENTRE)
    canvas = np.zeros((count, SIDE + 2 * _BORDER, SIDE + 2 * _BORDER), np.float32)
    _place(canvas, pool.scans[chosen], centres, _DIGIT, digit[:, 3:])
    for piece in np.split(clutter, _FRAGMENTS, axis=1):
        angles, distances = 2 * np.float32(np.pi) * piece[:, 3], _between(piece[:, 4], _DISTANCE)
        around = centres + distances[:, None] * np.stack([np.sin(angles), np.cos(angles)], axis=1)
        _place(canvas, _fragments(pool, labels, piece[:, :3]), around, _FRAGMENT, piece[:, 5:])
    images = canvas[:, _BORDER:-_BORDER, _BORDER:-_BORDER]
    images = images + np.float32(_NOISE) * noise.standard_normal(images.shape, dtype=np.float32)
    return np.round(255 * np.clip(images, 0, 1)) / np.float32(255), labels


def _fragments(pool: _Pool, labels: Integers, unit: Floats) -> Floats:
    """One square piece [n, 4, 4] of a scan for each scene, of another digit than `labels` [n]; draws `unit` [n, 3]."""
    chosen = _index(unit[:, 0], len(pool.labels))
    while (same := pool.labels[chosen] == labels).any():
        chosen[same] = (chosen[same] + 1) % len(pool.labels)
    steps = np.arange(_FRAGMENT_SIDE)
    rows = _index(unit[:, 1], SCAN - _FRAGMENT_SIDE + 1)[:, None] + steps
    columns = _index(unit[:, 2], SCAN - _FRAGMENT_SIDE + 1)[:, None] + steps
    pieces: Floats = pool.scans[chosen[:, None, None], rows[:, :, None], columns[:, None, :]]
    return pieces


def _place(canvas: Floats, sources: Floats, centres: Floats, look: _Look, unit: Floats) -> None:
    """Scale, rotate and lay source i of [n, k, k] over canvas i of [n, h, h]; the brighter pixel stays.

    `centres` [n, 2] are rows and columns in scene pixels, `unit` [n, 3] draws for scale, rotation and contrast.
    Sampling is bilinear, and only inside a patch round the centre.
    """
    side = canvas.shape[1]
    corners = np.floor(centres).astype(np.intp) - (look.patch // 2 - 1)
    steps = np.arange(look.patch)
    rows, columns = corners[:, :1] + steps, corners[:, 1:] + steps
    down = (rows - centres[:, :1]).astype(np.float32)[:, :, None]
    right = (columns - centres[:, 1:]).astype(np.float32)[:, None, :]
    scale, rotation = _between(unit[:, 0], look.scale), _between(unit[:, 1], look.rotation)
    cosine, sine = (np.cos(rotation) / scale)[:, None, None], (np.sin(rotation) / scale)[:, None, None]
    patches = _bilinear(sources, cosine * down - sine * right, sine * down + cosine * right)
    patches *= _between(unit[:, 2], look.contrast)[:, None, None]
    lines = np.arange(len(canvas))[:, None] * side + rows + _BORDER
    where = lines[:, :, None] * side + (columns + _BORDER)[:, None, :]
    flat = canvas.reshape(-1)
    flat[where] = np.maximum(flat.take(where), patches)


def _bilinear(sources: Floats, down: Floats, right: Floats) -> Floats:
    """Sample sources [n, k, k] at offsets [n, p, p] from their centres, in source pixels; zero outside."""
    count, width = len(sources), sources.shape[1] + 2  # framed by one empty pixel
    flat = np.pad(sources, ((0, 0), (1, 1), (1, 1))).reshape(-1)
    middle, last = np.float32((width - 1) / 2), np.float32(width - 1.001)
    row, column = np.clip(down + middle, 0, last), np.clip(right + middle, 0, last)
    top, left = np.floor(row), np.floor(column)
    row, column = row - top, column - left
    first = (top * width + left).astype(np.intp) + np.arange(count)[:, None, None] * (width * width)
    upper, lower = flat.take(first), flat.take(first + width)
    upper += column * (flat.take(first + 1) - upper)
    lower += column * (flat.take(first + width + 1) - lower)
    result: Floats = upper + row * (lower - upper)
    return result


def _between(unit: Floats, bounds: tuple[float, float]) -> Floats:
    """Draws in [0, 1) stretched to `bounds`."""
    return np.float32(bounds[0]) + np.float32(bounds[1] - bounds[0]) * unit


def _index(unit: Floats, count: int) -> NDArray[np.intp]:
    """Draws in [0, 1) turned into indices below `count`."""
    return np.minimum((unit * count).astype(np.intp), count - 1)


def teacher() -> nn.Module:
    """The network to be optimized, untrained: 0.66 M parameters, `image` [n, 1, 32, 32] to logits [n, 10]."""
    return _network_type()(stem=32, widths=(64, 128), depth=2)


def student(width: int = 32) -> nn.Module:
    """A small network to distil the teacher into, untrained: 0.12 M parameters at width 32, the teacher's interface.

    `width` counts the first stage's channels. Use a multiple of 32, so that every layer has a multiple of 16.
    """
    return _network_type()(stem=width // 2, widths=(width, 3 * width // 2, 2 * width), depth=1)


@cache
def _network_type() -> type[nn.Module]:
    """The residual network's class; made on first use, so that the scenes need no PyTorch."""
    import torch
    from torch import Tensor, nn

    class Block(nn.Module):
        """Two 3x3 convolutions beside a shortcut; `stride` 2 halves the resolution."""

        def __init__(self, inputs: int, outputs: int, stride: int) -> None:
            super().__init__()
            self.conv1 = nn.Conv2d(inputs, outputs, 3, stride, 1, bias=False)
            self.norm1 = nn.BatchNorm2d(outputs)
            self.conv2 = nn.Conv2d(outputs, outputs, 3, 1, 1, bias=False)
            self.norm2 = nn.BatchNorm2d(outputs)
            self.shortcut: nn.Module = nn.Identity()
            if stride != 1 or inputs != outputs:
                projection = nn.Conv2d(inputs, outputs, 1, stride, bias=False)
                self.shortcut = nn.Sequential(projection, nn.BatchNorm2d(outputs))

        def forward(self, features: Tensor) -> Tensor:
            hidden = torch.relu(self.norm1(self.conv1(features)))
            return torch.relu(self.norm2(self.conv2(hidden)) + self.shortcut(features))

    class ResidualNetwork(nn.Module):
        """A stem, stages of `depth` residual blocks that each halve the resolution, average pooling, a linear head."""

        def __init__(self, stem: int, widths: tuple[int, ...], depth: int) -> None:
            super().__init__()
            self.stem = nn.Sequential(nn.Conv2d(1, stem, 3, 1, 1, bias=False), nn.BatchNorm2d(stem), nn.ReLU())
            stages = []
            for inputs, outputs in zip((stem, *widths), widths, strict=False):
                rest = [Block(outputs, outputs, 1) for _ in range(depth - 1)]
                stages.append(nn.Sequential(Block(inputs, outputs, 2), *rest))
            self.stages = nn.Sequential(*stages)
            self.pool = nn.AdaptiveAvgPool2d(1)
            self.head = nn.Linear(widths[-1], CLASSES)

        def forward(self, image: Tensor) -> Tensor:
            features = self.pool(self.stages(self.stem(image)))
            logits: Tensor = self.head(features.flatten(1))
            return logits

    return ResidualNetwork


def accuracy(model: nn.Module, images: Floats, labels: Integers) -> float:
    """The share in [0, 1] of `images` [n, 1, 32, 32] for which the model's greatest logit is that of `labels` [n]."""
    import torch

    model.eval()
    with torch.inference_mode():
        parts = [torch.from_numpy(images[start : start + 500]) for start in range(0, len(images), 500)]
        predicted = torch.cat([model(part).argmax(1) for part in parts])
    return float(np.mean(predicted.numpy() == labels))


def train_teacher(epochs: int, seed: int = SEED) -> nn.Module:
    """Train the teacher on freshly drawn training scenes in every epoch; prints the progress.

    The evaluation accuracy printed after each epoch is only shown: it chooses neither epoch nor setting.
    """
    import torch
    from torch.nn.functional import cross_entropy

    torch.manual_seed(seed)
    model = teacher()
    model.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    steps = -(-_SPLITS["train"].size // _BATCH)
    optimizer = torch.optim.AdamW(model.parameters(), lr=_PEAK_RATE, weight_decay=0.05)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, _PEAK_RATE, total_steps=epochs * steps, pct_start=0.25)
    inputs, answers = samples("evaluation")
    for epoch in range(epochs):
        start, total = time.perf_counter(), 0.0
        scenes, targets = samples("train", seed=seed + epoch)
        images, labels = torch.from_numpy(scenes["image"]), torch.from_numpy(targets)
        model.train()
        order = torch.randperm(len(labels))
        for first in range(0, len(labels), _BATCH):
            chosen = order[first : first + _BATCH]
            loss = cross_entropy(model(images[chosen]), labels[chosen], label_smoothing=0.05)
            optimizer.zero_grad()
            torch.autograd.backward(loss)
            optimizer.step()
            schedule.step()
            total += loss.item() * len(chosen)
        score = accuracy(model, inputs["image"], answers)
        seconds = time.perf_counter() - start
        print(
            f"epoch {epoch + 1}/{epochs}: loss {total / len(labels):.4f}, evaluation {score:.2%}, {seconds:.0f} s",
            flush=True,
        )
    return model


def linear_accuracy() -> float:
    """The evaluation accuracy in [0, 1] of logistic regression on the pixels, fitted to the training split."""
    from sklearn.linear_model import LogisticRegression
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    inputs, labels = samples("train")
    others, answers = samples("evaluation")
    model = make_pipeline(StandardScaler(), LogisticRegression(C=1e-3, max_iter=500))
    model.fit(inputs["image"].reshape(len(labels), -1), labels)
    return float(model.score(others["image"].reshape(len(answers), -1), answers))


def _check() -> None:
    """Print what the kept teacher and a linear model reach on the evaluation split."""
    from safetensors.torch import load_file

    model = teacher()
    model.load_state_dict(load_file(WEIGHTS))
    inputs, labels = samples("evaluation")
    print(f"teacher: {accuracy(model, inputs['image'], labels):.2%} of {len(labels)} evaluation scenes")
    print(f"linear model: {linear_accuracy():.2%}")


def _train(out: Path, epochs: int) -> None:
    """Train the teacher and write its weights to `out`."""
    from safetensors.torch import save_file

    model = train_teacher(epochs)
    save_file({name: value.contiguous() for name, value in model.state_dict().items()}, out)
    print(f"wrote {out}: {out.stat().st_size / 1e6:.2f} MB")


def main() -> None:
    """Read the command line and run the command that it names."""
    parser = argparse.ArgumentParser(description="The demo's source model: its training and its check.")
    commands = parser.add_subparsers(dest="command", required=True)
    train = commands.add_parser("train", help="train the teacher and write its weights")
    train.add_argument("--out", type=Path, default=WEIGHTS, help="safetensors file to write (default: %(default)s)")
    train.add_argument("--epochs", type=int, default=6, help="16000 fresh scenes each (default: %(default)s)")
    commands.add_parser("check", help="print the accuracy of the kept teacher and of a linear model")
    arguments = parser.parse_args()
    if arguments.command == "train":
        _train(arguments.out, arguments.epochs)
    else:
        _check()


if __name__ == "__main__":
    main()
