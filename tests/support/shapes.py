"""Small networks whose channels take ways that a naive pruner gets wrong: shuffled, flipped, tied, normalized, reused.

`x` is [n, 3, 8, 8] floats; the answer [n, 4]. `fixed` networks hold numbers that no cut can follow.
"""

from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from torch import nn
from torch.nn.utils.parametrizations import weight_norm

Array = np.ndarray[Any, np.dtype[Any]]
Way = Callable[[torch.Tensor], torch.Tensor]


class Through(nn.Module):
    """Two convolutions with something between them that moves channels; `read` is how many the second one reads."""

    def __init__(self, way: Way, made: int = 32, read: int = 32, between: nn.Module | None = None) -> None:
        super().__init__()
        self.a = nn.Conv2d(3, made, 3, padding=1)
        self.between = between or nn.Identity()
        self.b = nn.Conv2d(read, 32, 3, padding=1)
        self.fc = nn.Linear(32, 4)
        self.way = way

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Logits."""
        hidden = self.way(self.between(torch.relu(self.a(x))))
        result: torch.Tensor = self.fc(torch.relu(self.b(hidden)).mean((2, 3)))
        return result


def shuffled(x: torch.Tensor) -> torch.Tensor:
    """Two halves interleaved."""
    rows, count, height, width = x.shape
    return x.view(rows, 2, count // 2, height, width).transpose(1, 2).reshape(rows, count, height, width)


def swapped(x: torch.Tensor) -> torch.Tensor:
    """The second half in front of the first."""
    one, other = x.chunk(2, 1)
    return torch.cat([other, one], 1)


def gated(x: torch.Tensor) -> torch.Tensor:
    """One half under the sigmoid of the other."""
    one, other = x.chunk(2, 1)
    return one * torch.sigmoid(other)


def strided(x: torch.Tensor) -> torch.Tensor:
    """Even channels in front of odd ones."""
    return torch.cat([x[:, ::2], x[:, 1::2]], 1)


def same(x: torch.Tensor) -> torch.Tensor:
    """Nothing."""
    return x


class Scaled(nn.Module):
    """A scale as a bare parameter and a mean as a buffer."""

    def __init__(self) -> None:
        super().__init__()
        self.gamma = nn.Parameter(torch.linspace(0.1, 1, 32).view(1, 32, 1, 1))
        self.register_buffer("mean", torch.linspace(-1, 1, 32))
        self.mean: torch.Tensor

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """The input, moved and scaled."""
        return x * self.gamma - self.mean[None, :, None, None]


class Grouped(nn.Module):
    """Grouped and depthwise convolutions side by side."""

    def __init__(self) -> None:
        super().__init__()
        self.grouped = nn.Conv2d(32, 32, 3, padding=1, groups=4)
        self.depthwise = nn.Conv2d(32, 32, 3, padding=1, groups=32)
        self.norm = nn.BatchNorm2d(64)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Twice as many channels."""
        result: torch.Tensor = self.norm(torch.cat([torch.relu(self.grouped(x)), self.depthwise(x)], 1))
        return result


class Twice(nn.Module):
    """One convolution called twice, or two that share a weight."""

    def __init__(self, tied: bool) -> None:
        super().__init__()
        self.one = nn.Conv2d(32, 32, 3, padding=1)
        self.two = nn.Conv2d(32, 32, 3, padding=1) if tied else self.one
        self.two.weight = self.one.weight

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """As many channels."""
        return torch.relu(self.two(torch.relu(self.one(x))))


NETS: dict[str, Callable[[], nn.Module]] = {
    "shuffle": lambda: Through(shuffled),
    "flip": lambda: Through(lambda x: x.flip(1)),
    "swap": lambda: Through(swapped),
    "gate": lambda: Through(gated, 64),
    "strided": lambda: Through(strided),
    "roll": lambda: Through(lambda x: x.roll(3, 1)),
    "pixels": lambda: Through(nn.PixelShuffle(2), 64, 16),
    "squeezed": lambda: Through(nn.PixelUnshuffle(2), 32, 128),
    "scaled": lambda: Through(same, between=Scaled()),
    "grouped": lambda: Through(shuffled, 32, 64, Grouped()),
    "reused": lambda: Through(same, between=Twice(tied=False)),
    "tied": lambda: Through(same, between=Twice(tied=True)),
    "instance": lambda: Through(same, between=nn.InstanceNorm2d(32, affine=True)),
    "group norm": lambda: Through(same, between=nn.GroupNorm(8, 32)),
    "transposed": lambda: Through(same, between=nn.ConvTranspose2d(32, 32, 2, stride=2)),
    "prelu": lambda: Through(same, between=nn.PReLU(32)),
}
FIXED: dict[str, Callable[[], nn.Module]] = {
    "numbers": lambda: Through(lambda x: x.view(len(x), 2, 16, 8, 8).transpose(1, 2).reshape(len(x), 32, 8, 8)),
    "cut at": lambda: Through(lambda x: torch.cat([x[:, 20:], x[:, :20]], 1)),
    "permuted": lambda: Through(lambda x: x[:, torch.arange(31, -1, -1)]),
    "constant": lambda: Through(lambda x: x + torch.linspace(-1, 1, 32).view(1, 32, 1, 1)),
    "mixed": lambda: Through(lambda x: x.cumsum(1)),
    "layer norm": lambda: Through(lambda x: nn.functional.layer_norm(x.movedim(1, -1), (32,)).movedim(-1, 1)),
    "softmax": lambda: Through(lambda x: x.softmax(1)),
    "normed": lambda: Through(same, between=weight_norm(nn.Conv2d(32, 32, 1))),
}


def make(kind: str = "shuffle") -> nn.Module:
    """The network of that name, always the same."""
    torch.manual_seed(0)
    return (NETS | FIXED)[kind]().eval()


def samples(split: str, count: int | None = None, seed: int = 7) -> tuple[dict[str, Array], Array]:
    """Noise with random labels."""
    random = np.random.default_rng([seed, len(split)])
    rows = count or 64
    return {"x": random.normal(size=(rows, 3, 8, 8)).astype(np.float32)}, random.integers(0, 4, rows)
