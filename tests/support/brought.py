"""Models as people bring them: a picture net, a record-returning text encoder, a plain MLP; untrained, tiny."""

from collections import OrderedDict
from typing import Any

import torch


class ModelOutput(OrderedDict[str, Any]):
    """A mapping whose keys are attributes too, as Hugging Face's models return."""

    def __getattr__(self, name: str) -> Any:
        try:
            return self[name]
        except KeyError as error:
            raise AttributeError(name) from error


class SelfAttention(torch.nn.Module):
    """One head."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.query, self.key, self.value = (torch.nn.Linear(width, width) for _ in range(3))

    def forward(self, hidden: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
        """[n, length, width] in and out."""
        scores = self.query(hidden) @ self.key(hidden).transpose(1, 2) / hidden.shape[-1] ** 0.5
        scores = scores.masked_fill(mask[:, None, :] == 0, -1e4)
        result: torch.Tensor = scores.softmax(-1) @ self.value(hidden)
        return result


class Encoder(torch.nn.Module):
    """Token numbers and a mask to hidden states and a pooled vector, in a record."""

    def __init__(self, words: int = 50, width: int = 32) -> None:
        super().__init__()
        self.embedding = torch.nn.Embedding(words, width)
        self.attention = SelfAttention(width)
        self.norm = torch.nn.LayerNorm(width)
        self.pooler = torch.nn.Linear(width, width)

    def forward(
        self, input_ids: torch.Tensor | None = None, attention_mask: torch.Tensor | None = None, use_cache: bool = False
    ) -> ModelOutput:
        """Keyword arguments with defaults, as Hugging Face's forwards have."""
        assert input_ids is not None
        hidden = self.embedding(input_ids)
        mask = torch.ones_like(input_ids) if attention_mask is None else attention_mask
        hidden = self.norm(hidden + self.attention(hidden, mask))
        return ModelOutput(last_hidden_state=hidden, pooler_output=torch.tanh(self.pooler(hidden[:, 0])))


def encoder() -> Encoder:
    """A transformer that returns a record."""
    return Encoder()


def pictures() -> torch.nn.Module:
    """A CNN that says what it takes, as timm's do."""
    net = torch.nn.Sequential(
        torch.nn.Conv2d(3, 16, 3, stride=2),
        torch.nn.ReLU(),
        torch.nn.AdaptiveAvgPool2d(1),
        torch.nn.Flatten(),
        torch.nn.Linear(16, 5),
    )
    net.default_cfg = {"input_size": (3, 48, 48)}  # type: ignore[assignment]
    return net


def plain() -> torch.nn.Module:
    """An MLP."""
    return torch.nn.Sequential(torch.nn.Linear(12, 32), torch.nn.ReLU(), torch.nn.Linear(32, 3))


class Sum(torch.nn.Module):
    """Two inputs that do not go by one shape: nothing can guess them."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = torch.nn.Linear(6, 2)

    def forward(self, left: torch.Tensor, right: torch.Tensor) -> torch.Tensor:
        """[n, 6] and [n, 2]."""
        result: torch.Tensor = self.layer(left) + right
        return result


def two() -> Sum:
    """A module with two unlike inputs."""
    return Sum()


class Positioned(torch.nn.Module):
    """Attention by the fused kernel with a bias of relative positions, as T5 has it: not contiguous, and reshaped."""

    def __init__(self, heads: int = 4, width: int = 32) -> None:
        super().__init__()
        self.heads = heads
        self.words, self.bias = torch.nn.Embedding(50, width), torch.nn.Embedding(8, heads)
        self.query, self.key, self.value, self.out = (torch.nn.Linear(width, width) for _ in range(4))

    def forward(self, tokens: torch.Tensor) -> torch.Tensor:
        """[n, length] numbers to [n, length, width]."""
        hidden = self.words(tokens)
        rows, length = tokens.shape
        query, key, value = (
            layer(hidden).view(rows, length, self.heads, -1).transpose(1, 2)
            for layer in (self.query, self.key, self.value)
        )
        places = torch.arange(length)
        bias = self.bias((places[None] - places[:, None]).clamp(-3, 4) + 3).permute(2, 0, 1)[None]
        mixed = torch.nn.functional.scaled_dot_product_attention(query, key, value, attn_mask=bias, scale=1.0)
        result: torch.Tensor = self.out(mixed.transpose(1, 2).reshape(rows, length, -1))
        return result


def positioned() -> Positioned:
    """Relative positions."""
    return Positioned()
