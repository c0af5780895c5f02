"""Factories of other people's modules, with seeded random weights, and of three of our own; each needs its package."""

from importlib import import_module
from importlib.util import find_spec
from typing import Any

import torch
from torch import nn


def _import_torchvision() -> None:
    """PyPI's torchvision has its kernels built for CUDA: beside a torch without CUDA its operators are not there, and
    describing them fails. No model here runs one of them."""
    describe = torch.library.register_fake

    def known(name: Any, *arguments: Any, **given: Any) -> Any:
        if str(name).startswith("torchvision::"):
            return lambda function: function
        return describe(name, *arguments, **given)

    torch.library.register_fake = known
    try:
        import_module("torchvision")
    finally:
        torch.library.register_fake = describe


if find_spec("torchvision") is not None and not torch.cuda.is_available():
    _import_torchvision()


def _made(module: str, name: str, *arguments: Any, **given: Any) -> nn.Module:
    torch.manual_seed(0)
    made: nn.Module = getattr(import_module(module), name)(*arguments, **given)
    return made.eval()


def _configured(config: str, model: str, **given: Any) -> nn.Module:
    return _made("transformers", model, getattr(import_module("transformers"), config)(**given))


def mobilenet() -> nn.Module:
    """A mobile CNN of torchvision."""
    return _made("torchvision.models", "mobilenet_v3_small", weights=None, num_classes=100)


def shufflenet() -> nn.Module:
    """A CNN that shuffles channels, of torchvision."""
    return _made("torchvision.models", "shufflenet_v2_x0_5", weights=None, num_classes=100)


def resnet() -> nn.Module:
    """A residual CNN of torchvision."""
    return _made("torchvision.models", "resnet18", weights=None, num_classes=100)


def convnext() -> nn.Module:
    """A modern CNN of timm."""
    return _made("timm", "create_model", "convnext_atto", pretrained=False, num_classes=100)


def vit() -> nn.Module:
    """A vision transformer of timm."""
    return _made("timm", "create_model", "vit_tiny_patch16_224", pretrained=False, num_classes=100)


def bert() -> nn.Module:
    """A sentence classifier of transformers."""
    size = {"hidden_size": 128, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 512}
    return _configured("BertConfig", "BertForSequenceClassification", vocab_size=2000, num_labels=3, **size)


def distilbert() -> nn.Module:
    """A token classifier of transformers."""
    size = {"dim": 128, "n_layers": 2, "n_heads": 2, "hidden_dim": 512}
    return _configured("DistilBertConfig", "DistilBertForTokenClassification", vocab_size=2000, num_labels=9, **size)


def t5() -> nn.Module:
    """An encoder of transformers with relative positions."""
    size = {"d_model": 128, "d_kv": 32, "d_ff": 256, "num_layers": 2, "num_heads": 4}
    return _configured("T5Config", "T5EncoderModel", vocab_size=1000, **size)


def wav2vec() -> nn.Module:
    """An encoder of sound, of transformers."""
    size = {"hidden_size": 64, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 128}
    convolutions = {"conv_dim": (32,) * 3, "conv_kernel": (10, 3, 3), "conv_stride": (5, 2, 2)}
    return _configured("Wav2Vec2Config", "Wav2Vec2ForCTC", vocab_size=32, **size, **convolutions)


class _UNet(nn.Module):
    def __init__(self) -> None:
        super().__init__()

        def block(inside: int, outside: int) -> nn.Module:
            return nn.Sequential(
                nn.Conv2d(inside, outside, 3, padding=1), nn.BatchNorm2d(outside), nn.ReLU(),
                nn.Conv2d(outside, outside, 3, padding=1), nn.BatchNorm2d(outside), nn.ReLU(),
            )  # fmt: skip

        self.down_1, self.down_2, self.down_3 = block(3, 16), block(16, 32), block(32, 64)
        self.up_2, self.up_1 = nn.ConvTranspose2d(64, 32, 2, 2), nn.ConvTranspose2d(32, 16, 2, 2)
        self.join_2, self.join_1 = block(64, 32), block(32, 16)
        self.head = nn.Conv2d(16, 2, 1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """[n, 3, height, width] to two maps of that size."""
        pool = nn.functional.max_pool2d
        one = self.down_1(x)
        two = self.down_2(pool(one, 2))
        two = self.join_2(torch.cat([self.up_2(self.down_3(pool(two, 2))), two], 1))
        result: torch.Tensor = self.head(self.join_1(torch.cat([self.up_1(two), one], 1)))
        return result


class _Tagger(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.words, self.head = nn.Embedding(500, 64), nn.Linear(192, 12)
        self.states = nn.LSTM(64, 96, 2, batch_first=True, bidirectional=True)

    def forward(self, tokens: torch.Tensor) -> torch.Tensor:
        """[n, length] to twelve scores of each token."""
        result: torch.Tensor = self.head(self.states(self.words(tokens))[0])
        return result


class _Two(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.user, self.item = nn.Linear(16, 64), nn.Linear(24, 64)
        self.scores, self.worth = nn.Linear(64, 10), nn.Linear(64, 1)

    def forward(self, user: torch.Tensor, item: torch.Tensor) -> dict[str, torch.Tensor]:
        """Two vectors of features to scores, the best one and a number."""
        joined = torch.relu(self.user(user)) * torch.relu(self.item(item))
        scores = self.scores(joined)
        return {"scores": scores, "best": scores.argmax(1), "worth": self.worth(joined).squeeze(1)}


def unet() -> nn.Module:
    """A segmentation net with skips."""
    return _seeded(_UNet)


def tagger() -> nn.Module:
    """A recurrent tagger of sequences."""
    return _seeded(_Tagger)


def two() -> nn.Module:
    """Two inputs, three outputs: a vector, a class and a number."""
    return _seeded(_Two)


def _seeded(kind: type[nn.Module]) -> nn.Module:
    torch.manual_seed(0)
    return kind().eval()
