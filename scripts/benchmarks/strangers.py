"""Twelve models of kinds that nobody tuned, with seeded random weights, as ONNX files: what `search-any` walks.

Nine are like those of the first comparison of tools (BERT, BiLSTM, U-Net, ViT, ConvNeXt, MobileNet, reading and
detecting text, scikit-learn's network), three are further ones: a mixer of patches, speech, and recommendation.
"""

import contextlib
import io
import warnings
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import torch
from onnx import TensorProto, helper, numpy_helper
from torch import nn

WORDS = 4000
Example = tuple[torch.Tensor, ...]


class Text(nn.Module):
    """Token numbers to vectors, something over them, and a class for each token or for all."""

    def __init__(self, width: int, body: nn.Module, outside: int, classes: int, *, pooled: bool) -> None:
        super().__init__()
        self.words, self.body, self.pooled = nn.Embedding(WORDS, width), body, pooled
        self.head = nn.Linear(outside, classes)

    def forward(self, tokens: torch.Tensor) -> torch.Tensor:
        """[n, length] to [n, classes], or [n, length, classes]."""
        found = self.body(self.words(tokens))
        found = found[0] if isinstance(found, tuple) else found
        result: torch.Tensor = self.head(found.mean(1) if self.pooled else found)
        return result


class Block(nn.Module):
    """A transformer's layer with separate projections."""

    def __init__(self, width: int, heads: int, norm_first: bool = False) -> None:
        super().__init__()
        self.heads, self.first = heads, norm_first
        self.q, self.k, self.v, self.o = (nn.Linear(width, width) for _ in range(4))
        self.up, self.down = nn.Linear(width, 4 * width), nn.Linear(4 * width, width)
        self.one, self.two = nn.LayerNorm(width), nn.LayerNorm(width)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """[n, length, width] to the same."""
        if self.first:
            x = x + self._attend(self.one(x))
            return x + self._feed(self.two(x))
        x = self.one(x + self._attend(x))
        result: torch.Tensor = self.two(x + self._feed(x))
        return result

    def _attend(self, x: torch.Tensor) -> torch.Tensor:
        q, k, v = (
            layer(x).reshape(x.shape[0], x.shape[1], self.heads, -1).transpose(1, 2)
            for layer in (self.q, self.k, self.v)
        )
        mixed = (q @ k.transpose(-1, -2) / q.shape[-1] ** 0.5).softmax(-1) @ v
        result: torch.Tensor = self.o(mixed.transpose(1, 2).flatten(2))
        return result

    def _feed(self, x: torch.Tensor) -> torch.Tensor:
        result: torch.Tensor = self.down(nn.functional.gelu(self.up(x)))
        return result


class Move(nn.Module):
    """A function without weights."""

    def __init__(self, way: Callable[[torch.Tensor], torch.Tensor]) -> None:
        super().__init__()
        self.way = way

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Return what the function returns."""
        return self.way(x)


class Add(nn.Module):
    """Something with its input added."""

    def __init__(self, *inner: nn.Module) -> None:
        super().__init__()
        self.inner = nn.Sequential(*inner)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """The sum."""
        result: torch.Tensor = x + self.inner(x)
        return result


class Gate(nn.Module):
    """Squeeze and excitation."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.down, self.up = nn.Conv2d(width, max(width // 4, 8), 1), nn.Conv2d(max(width // 4, 8), width, 1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Channels weighted by what is in all of the picture."""
        seen = self.up(torch.relu(self.down(x.mean((2, 3), keepdim=True))))
        result: torch.Tensor = x * nn.functional.hardsigmoid(seen)
        return result


class UNet(nn.Module):
    """Three scales down and up again, with the scales joined."""

    def __init__(self, width: int = 24) -> None:
        super().__init__()
        sizes = [width * 2**scale for scale in range(3)]
        self.down = nn.ModuleList(_twice(a, b) for a, b in zip([3, *sizes], sizes, strict=False))
        self.bottom = _twice(sizes[-1], 2 * sizes[-1])
        backwards = list(reversed(sizes))
        self.up = nn.ModuleList(nn.ConvTranspose2d(2 * size, size, 2, stride=2) for size in backwards)
        self.join = nn.ModuleList(_twice(2 * size, size) for size in backwards)
        self.head = nn.Conv2d(width, 2, 1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """[n, 3, h, w] to [n, 2, h, w]."""
        kept = []
        for layer in self.down:
            x = layer(x)
            kept.append(x)
            x = nn.functional.max_pool2d(x, 2)
        x = self.bottom(x)
        for up, join, beside in zip(self.up, self.join, reversed(kept), strict=True):
            x = join(torch.cat([up(x), beside], 1))
        result: torch.Tensor = self.head(x)
        return result


def _conv(inside: int, outside: int, size: int = 3, stride: int = 1, groups: int = 1, act: Any = nn.ReLU) -> nn.Module:
    layer = nn.Conv2d(inside, outside, size, stride, size // 2, groups=groups, bias=False)
    return nn.Sequential(layer, nn.BatchNorm2d(outside), act())


def _twice(inside: int, outside: int) -> nn.Module:
    return nn.Sequential(_conv(inside, outside), _conv(outside, outside))


def _head(width: int, classes: int) -> list[nn.Module]:
    return [nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(width, classes)]


def _tokens() -> Example:
    return (torch.randint(0, WORDS, (2, 64)),)


def _picture(*size: int) -> Example:
    return (torch.randn(2, 3, *size),)


def bert() -> tuple[nn.Module, Example]:
    """Two layers of BERT, 64 tokens."""
    return Text(256, nn.Sequential(Block(256, 4), Block(256, 4)), 256, 8, pooled=True), _tokens()


def bilstm() -> tuple[nn.Module, Example]:
    """A tagger: LSTM in both directions, 64 tokens."""
    return Text(128, nn.LSTM(128, 256, batch_first=True, bidirectional=True), 512, 20, pooled=False), _tokens()


def unet() -> tuple[nn.Module, Example]:
    """A U-Net on 96 x 96."""
    return UNet(), _picture(96, 96)


def vit() -> tuple[nn.Module, Example]:
    """A tiny vision transformer: 64 patches, six layers."""
    blocks = [Block(192, 3, norm_first=True) for _ in range(6)]
    cut = [nn.Conv2d(3, 192, 16, 16), Move(lambda x: x.flatten(2).transpose(1, 2))]
    return nn.Sequential(*cut, *blocks, nn.LayerNorm(192), Move(lambda x: x.mean(1)), nn.Linear(192, 100)), _picture(
        128, 128
    )


def convnext() -> tuple[nn.Module, Example]:
    """ConvNeXt: deep 7 x 7 convolutions by channel, then two products over channels."""
    layers: list[nn.Module] = [nn.Conv2d(3, 40, 4, 4)]
    for width, wider in ((40, 80), (80, 160), (160, 320)):
        layers += [_next(width), _next(width), nn.GroupNorm(1, width), nn.Conv2d(width, wider, 2, 2)]
    return nn.Sequential(*layers, _next(320), _next(320), *_head(320, 100)), _picture(128, 128)


def _next(width: int) -> nn.Module:
    inner = (nn.LayerNorm(width), nn.Linear(width, 4 * width), nn.GELU(), nn.Linear(4 * width, width))
    moved = (Move(lambda x: x.permute(0, 2, 3, 1)), *inner, Move(lambda x: x.permute(0, 3, 1, 2)))
    return Add(nn.Conv2d(width, width, 7, padding=3, groups=width), *moved)


def mobilenet() -> tuple[nn.Module, Example]:
    """MobileNetV3: expanded, by channel, gated, narrowed."""
    layers: list[nn.Module] = [_conv(3, 16, stride=2, act=nn.Hardswish)]
    for inside, outside, stride in ((16, 24, 2), (24, 40, 2), (40, 48, 1), (48, 96, 2), (96, 96, 1)):
        wide = 4 * inside
        inner = (
            _conv(inside, wide, 1, act=nn.Hardswish),
            _conv(wide, wide, 5, stride, groups=wide, act=nn.Hardswish),
            *(Gate(wide), _conv(wide, outside, 1, act=nn.Identity)),
        )
        layers.append(Add(*inner) if inside == outside and stride == 1 else nn.Sequential(*inner))
    return nn.Sequential(*layers, _conv(96, 576, 1, act=nn.Hardswish), *_head(576, 100)), _picture(160, 160)


def reader() -> tuple[nn.Module, Example]:
    """Reads a line of text: convolutions, then attention over columns, a class for each column."""
    cut = [_conv(3, 32, stride=2, act=nn.Hardswish), _conv(32, 64, stride=2, act=nn.Hardswish)]
    cut += [_conv(64, 64, 5, groups=64, act=nn.Hardswish), _conv(64, 128, 1, act=nn.Hardswish), nn.MaxPool2d((4, 1))]
    columns = Move(lambda x: x.mean(2).transpose(1, 2))
    blocks = [Block(128, 4, norm_first=True), Block(128, 4, norm_first=True)]
    return nn.Sequential(*cut, columns, *blocks, nn.Linear(128, 500), nn.Softmax(-1)), _picture(48, 160)


def detector() -> tuple[nn.Module, Example]:
    """Finds text: a narrow mobile body and a map of probabilities at the picture's size."""
    body = [_conv(3, 16, stride=2), _conv(16, 16, groups=16), _conv(16, 32, 1), _conv(32, 32, 5, 2, groups=32)]
    body += [_conv(32, 64, 1), Add(_conv(64, 64, 5, groups=64), _conv(64, 64, 1)), _conv(64, 96, 1)]
    up: list[nn.Module] = [nn.ConvTranspose2d(96, 24, 2, 2), nn.BatchNorm2d(24), nn.ReLU()]
    up += [nn.ConvTranspose2d(24, 1, 2, 2), nn.Sigmoid()]
    return nn.Sequential(*body, *up), _picture(160, 160)


def mixer() -> tuple[nn.Module, Example]:
    """MLP-Mixer: products over channels and over patches in turn, no attention."""
    layers: list[nn.Module] = [nn.Conv2d(3, 192, 16, 16), Move(lambda x: x.flatten(2).transpose(1, 2))]
    for _ in range(4):
        turned = (Move(lambda x: x.transpose(1, 2)), nn.Linear(64, 128), nn.GELU(), nn.Linear(128, 64))
        layers += [Add(nn.LayerNorm(192), *turned, Move(lambda x: x.transpose(1, 2)))]
        layers += [Add(nn.LayerNorm(192), nn.Linear(192, 768), nn.GELU(), nn.Linear(768, 192))]
    return nn.Sequential(*layers, Move(lambda x: x.mean(1)), nn.Linear(192, 100)), _picture(128, 128)


def speech() -> tuple[nn.Module, Example]:
    """A signal of a quarter of a second: convolutions in one dimension, then attention."""
    layers: list[nn.Module] = []
    for inside, outside, size, stride in ((1, 64, 10, 5), (64, 128, 8, 4), (128, 192, 4, 2)):
        layers += [nn.Conv1d(inside, outside, size, stride), nn.GroupNorm(1, outside), nn.GELU()]
    layers += [Move(lambda x: x.transpose(1, 2)), Block(192, 3), Block(192, 3), nn.Linear(192, 32)]
    return nn.Sequential(*layers), (torch.randn(2, 1, 4000),)


class Recommend(nn.Module):
    """Wide products over features and over embedded items that a user met."""

    def __init__(self) -> None:
        super().__init__()
        self.items = nn.Embedding(WORDS, 64)
        self.deep = nn.Sequential(nn.Linear(128, 1024), nn.ReLU(), nn.Linear(1024, 512), nn.ReLU(), nn.Linear(512, 1))

    def forward(self, items: torch.Tensor) -> torch.Tensor:
        """[n, items met] to [n, 1]."""
        seen = self.items(items)
        result: torch.Tensor = self.deep(torch.cat([seen.mean(1), seen.amax(1)], 1))
        return result


def recommender() -> tuple[nn.Module, Example]:
    """A ranking network over 64 items."""
    return Recommend(), _tokens()


MODULES: Mapping[str, Callable[[], tuple[nn.Module, Example]]] = {
    each.__name__: each
    for each in (bert, bilstm, unet, vit, convnext, mobilenet, reader, detector, mixer, speech, recommender)
}
MODELS = (*MODULES, "neurons")


def written(name: str, folder: Path) -> Path:
    """Write the model of that name as ``NAME.onnx``, its batch free."""
    path = folder / f"{name}.onnx"
    if name == "neurons":
        onnx.save(_neurons(), str(path))
        return path
    torch.manual_seed(len(name))
    module, example = MODULES[name]()
    with warnings.catch_warnings(), contextlib.redirect_stdout(io.StringIO()), torch.no_grad():
        warnings.simplefilter("ignore")
        # The older exporter, as most files in the world were written; it has an LSTM too.
        torch.onnx.export(
            module.eval(),
            example,
            str(path),
            input_names=["x"],
            output_names=["y"],
            dynamic_axes={"x": {0: "batch"}, "y": {0: "batch"}},
            opset_version=17,
            dynamo=False,
        )
    return path


def _neurons() -> onnx.ModelProto:
    """Return scikit-learn's network, trained on made-up data, in operators that every engine has."""
    from sklearn.neural_network import MLPClassifier

    random = np.random.default_rng(0)
    features = random.normal(size=(800, 20)).astype(np.float32)
    classes = (features[:, 0] + features[:, 1] * features[:, 2] > 0).astype(int) + (features[:, 3] > 1)
    fitted = MLPClassifier((128, 64), max_iter=60, random_state=0, early_stopping=True).fit(features, classes)
    nodes, constants, current = [], [], "x"
    for number, (weight, bias) in enumerate(zip(fitted.coefs_, fitted.intercepts_, strict=True)):
        last = number == len(fitted.coefs_) - 1
        constants += [numpy_helper.from_array(weight.astype(np.float32), f"w{number}")]
        constants += [numpy_helper.from_array(bias.astype(np.float32), f"b{number}")]
        nodes.append(helper.make_node("Gemm", [current, f"w{number}", f"b{number}"], [f"h{number}"], f"gemm{number}"))
        current = "y" if last else f"a{number}"
        nodes.append(helper.make_node("Softmax" if last else "Relu", [f"h{number}"], [current], f"act{number}"))
    graph = helper.make_graph(
        nodes,
        "neurons",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["batch", 20])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["batch", int(fitted.n_outputs_)])],
        constants,
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
