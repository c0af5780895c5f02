"""ResNet-50's shape with random weights in plain torch, and noise to run it on: for latency only.

The published architecture (He et al., 2015, with the stride in the 3x3 convolution, as everyone runs it today). Random
weights keep the activations finite and spread, which is all that timing an int8 graph needs; its answers mean nothing.
"""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

Floats = NDArray[np.float32]
SIDE = 224  # pixels along one side


class Bottleneck(nn.Module):
    """1x1, 3x3 and 1x1 convolutions beside a shortcut; the last one widens four times."""

    def __init__(self, inputs: int, width: int, stride: int) -> None:
        super().__init__()
        outputs = 4 * width
        self.conv1, self.norm1 = nn.Conv2d(inputs, width, 1, bias=False), nn.BatchNorm2d(width)
        self.conv2, self.norm2 = nn.Conv2d(width, width, 3, stride, 1, bias=False), nn.BatchNorm2d(width)
        self.conv3, self.norm3 = nn.Conv2d(width, outputs, 1, bias=False), nn.BatchNorm2d(outputs)
        self.shortcut: nn.Module = nn.Identity()
        if stride != 1 or inputs != outputs:
            projection = nn.Conv2d(inputs, outputs, 1, stride, bias=False)
            self.shortcut = nn.Sequential(projection, nn.BatchNorm2d(outputs))

    def forward(self, features: Tensor) -> Tensor:
        """[n, inputs, h, w] to [n, 4 * width, h / stride, w / stride]."""
        hidden = torch.relu(self.norm1(self.conv1(features)))
        hidden = torch.relu(self.norm2(self.conv2(hidden)))
        return torch.relu(self.norm3(self.conv3(hidden)) + self.shortcut(features))


class ResNet(nn.Module):
    """A stem, stages of bottlenecks, average pooling, a linear head over 1000 classes."""

    def __init__(self, depths: tuple[int, ...]) -> None:
        super().__init__()
        self.stem = nn.Sequential(nn.Conv2d(3, 64, 7, 2, 3, bias=False), nn.BatchNorm2d(64), nn.ReLU())
        self.pool = nn.MaxPool2d(3, 2, 1)
        blocks: list[nn.Module] = []
        inputs = 64
        for stage, depth in enumerate(depths):
            width = 64 * 2**stage
            for number in range(depth):
                blocks.append(Bottleneck(inputs, width, 2 if stage and number == 0 else 1))
                inputs = 4 * width
        self.blocks = nn.Sequential(*blocks)
        self.head = nn.Linear(inputs, 1000)

    def forward(self, image: Tensor) -> Tensor:
        """[n, 3, 224, 224] to logits [n, 1000]."""
        logits: Tensor = self.head(self.blocks(self.pool(self.stem(image))).mean((2, 3)))
        return logits


def resnet50() -> ResNet:
    """ResNet-50, 25.6 M parameters, untrained."""
    torch.manual_seed(0)
    return ResNet((3, 4, 6, 3)).eval()


def samples(split: str, count: int | None = None, seed: int = 7) -> tuple[dict[str, Floats], None]:
    """Noise, float32 [n, 3, 224, 224], standard normal as after the usual normalisation; no labels."""
    number = {"train": 0, "calibration": 1, "evaluation": 2, "golden": 3}[split]
    shape = (8 if count is None else count, 3, SIDE, SIDE)
    return {"image": np.random.default_rng([seed, number]).standard_normal(shape, np.float32)}, None
