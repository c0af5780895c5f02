"""Random small networks: ordinary ones, and ones that permute channels; and what a pruned one should compute."""

import copy
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from torch import nn

Way = Callable[[torch.Tensor], torch.Tensor]


class Parallel(nn.Module):
    """Branches over one input, added up, multiplied or put one behind the other."""

    def __init__(self, kind: str, *branches: nn.Module) -> None:
        super().__init__()
        self.kind, self.branches = kind, nn.ModuleList(branches)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """The joined results."""
        parts = [branch(x) for branch in self.branches]
        if self.kind == "concat":
            return torch.cat(parts, 1)
        joined: torch.Tensor = parts[0] + parts[1] if self.kind == "add" else parts[0] * parts[1]
        return joined


class Move(nn.Module):
    """A function without weights."""

    def __init__(self, way: Way) -> None:
        super().__init__()
        self.way = way

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Return what the function returns."""
        return self.way(x)


class Attention(nn.Module):
    """Separate projections, as in BERT; `num_heads` of a module may become fewer."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.num_heads, self.head_dim = heads, width // heads
        self.q, self.k, self.v, self.o = (nn.Linear(width, width) for _ in range(4))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """[n, length, width], with the input added."""
        q, k, v = (
            layer(x).view(*x.shape[:2], self.num_heads, self.head_dim).transpose(1, 2)
            for layer in (self.q, self.k, self.v)
        )
        mixed = (q @ k.transpose(-1, -2) / self.head_dim**0.5).softmax(-1) @ v
        result: torch.Tensor = x + self.o(mixed.transpose(1, 2).flatten(2))
        return result


def _norm(random: np.random.Generator, width: int) -> nn.Module:
    kinds = (
        nn.BatchNorm2d(width),
        nn.InstanceNorm2d(width, affine=True),
        nn.GroupNorm(width // 4, width),
        nn.Identity(),
    )
    return kinds[random.choice(4, p=[0.6, 0.1, 0.1, 0.2])]


def _conv(random: np.random.Generator, inside: int, outside: int) -> nn.Sequential:
    size = int(random.choice([1, 3]))
    groups = int(random.choice([1, 1, 1, 2, 4])) if inside % 8 == 0 and outside % 8 == 0 else 1
    layer = nn.Conv2d(inside, outside, size, padding=size // 2, groups=groups, bias=bool(random.integers(2)))
    active = (nn.ReLU(), nn.SiLU(), nn.Hardswish(), nn.PReLU(outside), nn.GELU())[random.integers(5)]
    return nn.Sequential(layer, _norm(random, outside), active)


def _block(random: np.random.Generator, width: int) -> tuple[nn.Module, int]:
    wider = int(random.choice([16, 24, 32]))
    kind = random.choice(["plain", "residual", "concat", "separable", "gate", "squeeze"])
    if kind == "plain":
        return _conv(random, width, wider), wider
    if kind == "residual":
        inner = nn.Sequential(_conv(random, width, wider), _conv(random, wider, width))
        return Parallel("add", inner, nn.Identity()), width
    if kind == "concat":
        return Parallel("concat", _conv(random, width, 16), _conv(random, width, wider)), 16 + wider
    if kind == "separable":
        depthwise = nn.Conv2d(width, width, 3, padding=1, groups=width)
        return nn.Sequential(depthwise, _norm(random, width), nn.ReLU(), nn.Conv2d(width, wider, 1)), wider
    if kind == "gate":
        return Parallel(
            "multiply", _conv(random, width, wider), nn.Sequential(_conv(random, width, wider), nn.Sigmoid())
        ), wider
    squeezed = nn.Sequential(
        nn.AdaptiveAvgPool2d(1), nn.Conv2d(width, 16, 1), nn.ReLU(), nn.Conv2d(16, width, 1), nn.Sigmoid()
    )
    return Parallel("multiply", nn.Identity(), squeezed), width


def ordinary(random: np.random.Generator) -> nn.Module:
    """Convolutions, norms, residuals, concats, groups, gates, and a head, in random order and sizes."""
    return _net(random, None)


def permuting(random: np.random.Generator) -> nn.Module:
    """An ordinary network with something that permutes channels in the middle, by shapes or by fixed numbers."""
    return _net(random, _permutation(random))


def _net(random: np.random.Generator, way: Callable[[int], Way] | None) -> nn.Module:
    torch.manual_seed(int(random.integers(2**31)))
    layers: list[nn.Module] = [_conv(random, 3, 16)]
    width, count = 16, int(random.integers(1, 4))
    for number in range(count):
        made, width = _block(random, width)
        layers.append(made)
        if way is not None and number == count - 1:
            plain = nn.Conv2d(width, 32, 1)
            layers += [plain, Move(way(32)), nn.Conv2d(32, 16, 3, padding=1), nn.ReLU()]
            width = 16
    if random.integers(2):
        head: list[nn.Module] = [
            nn.AdaptiveAvgPool2d(1),
            nn.Flatten(),
            nn.Linear(width, 16),
            nn.ReLU(),
            nn.Linear(16, 4),
        ]
    else:
        head = [nn.MaxPool2d(2), nn.Flatten(), nn.Linear(width * 9, 4)]
    return _randomized(nn.Sequential(*layers, *head))


def attentive(random: np.random.Generator) -> nn.Module:
    """Attention and feed-forward blocks over six tokens."""
    torch.manual_seed(int(random.integers(2**31)))
    width, heads = int(random.choice([16, 32])), int(random.choice([2, 4]))
    layers: list[nn.Module] = []
    for _ in range(random.integers(1, 3)):
        wide = int(random.choice([2, 4])) * width
        feed = nn.Sequential(nn.LayerNorm(width), nn.Linear(width, wide), nn.GELU(), nn.Linear(wide, width))
        layers += [Attention(width, heads), Parallel("add", feed, nn.Identity())]
    return _randomized(nn.Sequential(nn.Linear(8, width), *layers, Move(lambda x: x.mean(1)), nn.Linear(width, 4)))


def _permutation(random: np.random.Generator) -> Callable[[int], Way]:
    """Return a permutation of `width` channels: derived from shapes, or by indices fixed in the code."""
    number = int(random.choice([2, 4, 8]))
    order = torch.from_numpy(random.permutation(32))
    ways: list[Callable[[int], Way]] = [
        lambda width: lambda x: x.reshape(len(x), number, -1, *x.shape[2:]).transpose(1, 2).flatten(1, 2),
        lambda width: lambda x: x.reshape(len(x), -1, number, *x.shape[2:]).transpose(1, 2).flatten(1, 2),
        lambda width: lambda x: x.view(len(x), number, width // number, *x.shape[2:]).transpose(1, 2).reshape(x.shape),
        lambda width: lambda x: x.flip(1),
        lambda width: lambda x: x.roll(number, 1),
        lambda width: lambda x: x.index_select(1, order),
        lambda width: lambda x: torch.cat([x[:, number:], x[:, :number]], 1),
        lambda width: lambda x: torch.cat(x.chunk(number, 1)[::-1], 1),
        lambda width: lambda x: torch.cat([x[:, start::number] for start in range(number)], 1),
        lambda width: lambda x: torch.stack(x.chunk(2, 1), 2).flatten(1, 2),
    ]
    return ways[random.integers(len(ways))]


def _randomized(net: nn.Module) -> nn.Module:
    """Double precision, so that each weight has a value of its own, and statistics that are not the first ones."""
    net = net.double().eval()
    for parameter in net.parameters():
        nn.init.normal_(parameter, std=0.5) if parameter.ndim > 1 else nn.init.uniform_(parameter, 0.5, 1.5)
    for layer in net.modules():
        if isinstance(layer, nn.BatchNorm2d):
            assert layer.running_mean is not None
            assert layer.running_var is not None
            nn.init.normal_(layer.running_mean, std=0.3)
            nn.init.uniform_(layer.running_var, 0.5, 1.5)
    return net


def is_right(whole: nn.Module, smaller: nn.Module, x: torch.Tensor) -> bool:
    """Tell whether the pruned network is the whole one with the inputs of its layers that are gone set to zero.

    Which are gone is read from the weights' values alone.
    """
    masked: Any = copy.deepcopy(whole)
    small: Any = dict(smaller.named_modules())
    for name, layer in masked.named_modules():
        if isinstance(layer, nn.Conv2d | nn.Linear) and layer.weight.shape != small[name].weight.shape:
            old, new = (
                each.weight.detach().flatten(2).numpy()
                if each.weight.ndim > 2
                else each.weight.detach()[..., None].numpy()
                for each in (layer, small[name])
            )
            known = {value: (row, place) for row, line in enumerate(old[:, :, 0]) for place, value in enumerate(line)}
            left = np.zeros(old.shape[:2], dtype=bool)
            for value in new[:, :, 0].flat:
                left[known[value]] = True
            with torch.no_grad():
                layer.weight[torch.from_numpy(~left & left.any(1, keepdims=True))] = 0
    with torch.no_grad():
        return bool(torch.allclose(smaller(x), masked(x), rtol=1e-8, atol=1e-10))
