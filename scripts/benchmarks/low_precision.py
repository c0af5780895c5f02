"""Nets of a shape with random weights, for rows about 8-bit floats: MiniLM's and BERT-base's.

Errors on random weights compare formats and graphs; they say nothing about a trained model's quality.
"""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

LENGTH, VOCABULARY = 32, 2048


class Layer(nn.Module):
    """A transformer's layer, norms after the sums."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.query, self.key, self.value, self.out = (nn.Linear(width, width) for _ in range(4))
        self.up, self.down = nn.Linear(width, 4 * width), nn.Linear(4 * width, width)
        self.one, self.two = nn.LayerNorm(width), nn.LayerNorm(width)

    def forward(self, tokens: Tensor) -> Tensor:
        """[n, length, width] to the same."""
        count, length, width = tokens.shape

        def parted(values: Tensor) -> Tensor:
            return values.view(count, length, self.heads, width // self.heads).transpose(1, 2)

        query, key, value = parted(self.query(tokens)), parted(self.key(tokens)), parted(self.value(tokens))
        weights = torch.softmax(query @ key.transpose(2, 3) * (width // self.heads) ** -0.5, dim=-1)
        mixed = (weights @ value).transpose(1, 2).reshape(count, length, width)
        tokens = self.one(tokens + self.out(mixed))
        found: Tensor = self.two(tokens + self.down(torch.nn.functional.gelu(self.up(tokens))))
        return found


class Encoder(nn.Module):
    """Token and position embeddings, layers, and the mean over tokens as the sentence's embedding."""

    def __init__(self, layers: int, width: int, heads: int) -> None:
        super().__init__()
        self.words, self.places = nn.Embedding(VOCABULARY, width), nn.Embedding(LENGTH, width)
        self.norm = nn.LayerNorm(width)
        self.layers = nn.Sequential(*(Layer(width, heads) for _ in range(layers)))

    def forward(self, ids: Tensor) -> Tensor:
        """[n, length] to embeddings [n, width]."""
        tokens = self.norm(self.words(ids) + self.places.weight)
        embedding: Tensor = self.layers(tokens).mean(1)
        return embedding


def minilm() -> nn.Module:
    """MiniLM-L6's shape: 6 layers of 384, 12 heads."""
    torch.manual_seed(2)
    return Encoder(6, 384, 12)


def bert() -> nn.Module:
    """BERT-base's shape: 12 layers of 768, 12 heads."""
    torch.manual_seed(3)
    return Encoder(12, 768, 12)


def sentences(split: str, count: int = 64, seed: int = 7) -> tuple[dict[str, NDArray[np.int64]], None]:
    """Tokens at random [n, 32]."""
    random = np.random.default_rng([seed, len(split)])
    return {"ids": random.integers(0, VOCABULARY, (count, LENGTH))}, None
