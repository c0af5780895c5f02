"""Small transformers in the styles of the field, none of which knows that it will be pruned.

`tokens` is [n, 12, 32] floats; the answer [n, 4] logits. Each style keeps its heads in another way: separate
projections with the output projection elsewhere (Hugging Face), one fused projection (timm), torch's own layer.
"""

from collections.abc import Callable
from typing import Any

import numpy as np
import torch

Array = np.ndarray[Any, np.dtype[Any]]
WIDTH, LENGTH, HEADS = 32, 12, 4


class SelfAttention(torch.nn.Module):
    """Separate projections; sizes are attributes, as in BERT."""

    def __init__(self) -> None:
        super().__init__()
        self.num_attention_heads = HEADS
        self.attention_head_size = WIDTH // HEADS
        self.all_head_size = WIDTH
        self.query = torch.nn.Linear(WIDTH, WIDTH)
        self.key = torch.nn.Linear(WIDTH, WIDTH)
        self.value = torch.nn.Linear(WIDTH, WIDTH)

    def split(self, tensor: torch.Tensor) -> torch.Tensor:
        """[n, length, all] to [n, heads, length, size]."""
        shape = (*tensor.shape[:-1], self.num_attention_heads, self.attention_head_size)
        return tensor.view(shape).permute(0, 2, 1, 3)

    def forward(self, hidden: torch.Tensor) -> tuple[torch.Tensor]:
        """Mixed values, still without the output projection."""
        query, key, value = (self.split(layer(hidden)) for layer in (self.query, self.key, self.value))
        weights = (query @ key.transpose(-1, -2) / self.attention_head_size**0.5).softmax(-1)
        mixed = (weights @ value).permute(0, 2, 1, 3).contiguous()
        return (mixed.view(*mixed.shape[:-2], self.all_head_size),)


class BertLayer(torch.nn.Module):
    """Post-norm; the output projection is not the attention's child."""

    def __init__(self) -> None:
        super().__init__()
        self.attention = SelfAttention()
        self.dense = torch.nn.Linear(WIDTH, WIDTH)
        self.first = torch.nn.LayerNorm(WIDTH)
        self.intermediate = torch.nn.Linear(WIDTH, 4 * WIDTH)
        self.output = torch.nn.Linear(4 * WIDTH, WIDTH)
        self.second = torch.nn.LayerNorm(WIDTH)

    def forward(self, hidden: torch.Tensor) -> tuple[torch.Tensor]:
        """A tuple, as that style has it."""
        hidden = self.first(hidden + self.dense(self.attention(hidden)[0]))
        wide = torch.nn.functional.gelu(self.intermediate(hidden))
        return (self.second(hidden + self.output(wide)),)


class FusedAttention(torch.nn.Module):
    """One projection for all three, as in timm."""

    def __init__(self) -> None:
        super().__init__()
        self.num_heads, self.head_dim, self.attn_dim = HEADS, WIDTH // HEADS, WIDTH
        self.qkv = torch.nn.Linear(WIDTH, 3 * WIDTH, bias=False)
        self.proj = torch.nn.Linear(WIDTH, WIDTH)

    def forward(self, hidden: torch.Tensor) -> torch.Tensor:
        """[n, length, width]."""
        rows, length, _ = hidden.shape
        qkv = self.qkv(hidden).reshape(rows, length, 3, self.num_heads, self.head_dim).permute(2, 0, 3, 1, 4)
        query, key, value = qkv.unbind(0)
        mixed = torch.nn.functional.scaled_dot_product_attention(query, key, value)
        result: torch.Tensor = self.proj(mixed.transpose(1, 2).reshape(rows, length, self.attn_dim))
        return result


class InterleavedAttention(FusedAttention):
    """The same shapes, but q, k and v of each head side by side: looks like `FusedAttention` and is not."""

    def forward(self, hidden: torch.Tensor) -> torch.Tensor:
        """[n, length, width]."""
        rows, length, _ = hidden.shape
        qkv = self.qkv(hidden).reshape(rows, length, self.num_heads, 3, self.head_dim).permute(3, 0, 2, 1, 4)
        query, key, value = qkv.unbind(0)
        mixed = torch.nn.functional.scaled_dot_product_attention(query, key, value)
        result: torch.Tensor = self.proj(mixed.transpose(1, 2).reshape(rows, length, self.attn_dim))
        return result


class Block(torch.nn.Module):
    """Pre-norm with a gated feed-forward part."""

    def __init__(self, attention: torch.nn.Module) -> None:
        super().__init__()
        self.norm1, self.norm2 = torch.nn.LayerNorm(WIDTH), torch.nn.LayerNorm(WIDTH)
        self.attn = attention
        self.gate_proj = torch.nn.Linear(WIDTH, 2 * WIDTH)
        self.up_proj = torch.nn.Linear(WIDTH, 2 * WIDTH)
        self.down_proj = torch.nn.Linear(2 * WIDTH, WIDTH)

    def forward(self, hidden: torch.Tensor) -> torch.Tensor:
        """[n, length, width]."""
        hidden = hidden + self.attn(self.norm1(hidden))
        normed = self.norm2(hidden)
        wide = torch.nn.functional.silu(self.gate_proj(normed)) * self.up_proj(normed)
        result: torch.Tensor = hidden + self.down_proj(wide)
        return result


class Classifier(torch.nn.Module):
    """Blocks, and a linear head on the mean over positions."""

    def __init__(self, blocks: list[torch.nn.Module]) -> None:
        super().__init__()
        self.layers = torch.nn.ModuleList(blocks)
        self.head = torch.nn.Linear(WIDTH, 4)

    def forward(self, tokens: torch.Tensor) -> torch.Tensor:
        """Logits."""
        for layer in self.layers:
            result = layer(tokens)
            tokens = result[0] if isinstance(result, tuple) else result
        answer: torch.Tensor = self.head(tokens.mean(dim=1))
        return answer


class Stacked(torch.nn.Module):
    """A user's module around torch.nn.TransformerEncoder."""

    def __init__(self, depth: int) -> None:
        super().__init__()
        layer = torch.nn.TransformerEncoderLayer(WIDTH, HEADS, 4 * WIDTH, batch_first=True)
        self.encoder = torch.nn.TransformerEncoder(layer, depth, enable_nested_tensor=False)
        self.head = torch.nn.Linear(WIDTH, 4)

    def forward(self, tokens: torch.Tensor) -> torch.Tensor:
        """Logits."""
        answer: torch.Tensor = self.head(self.encoder(tokens).mean(dim=1))
        return answer


def model(style: str = "bert", depth: int = 4) -> torch.nn.Module:
    """A transformer of that style with weights of its own, always the same."""
    torch.manual_seed(0)
    if style == "torch":
        return Stacked(depth).eval()
    makers: dict[str, Callable[[], torch.nn.Module]] = {
        "bert": BertLayer,
        "timm": lambda: Block(FusedAttention()),
        "interleaved": lambda: Block(InterleavedAttention()),
    }
    return Classifier([makers[style]() for _ in range(depth)]).eval()


def samples(split: str, count: int | None = None, seed: int = 7) -> tuple[dict[str, Array], Array]:
    """Four directions in token space, hidden in noise."""
    number = {"train": 1, "calibration": 2, "evaluation": 3, "golden": 4}[split]
    random = np.random.default_rng([seed, number])
    rows = count or 256
    labels = random.integers(0, 4, rows)
    directions = np.random.default_rng(seed).normal(size=(4, WIDTH))
    tokens = directions[labels][:, None, :] + random.normal(0, 1.5, (rows, LENGTH, WIDTH))
    return {"tokens": tokens.astype(np.float32)}, labels.astype(np.int64)
