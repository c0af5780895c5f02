"""Modules in the manner of Hugging Face's transformers and of timm, not written for seatrial; untrained.

Neither package is needed: what matters is how their classes behave: configuration objects, records of many optional
fields, keyword arguments with defaults, decorated forwards, feature extractors, classifiers that can be taken off.
"""

import functools
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass, fields
from typing import Any

import torch
from torch import nn


class ModelOutput(OrderedDict[str, Any]):
    """A dataclass that is a mapping too: fields that are None are not among its keys; a slice goes by position."""

    def __post_init__(self) -> None:
        for spot in fields(self):  # type: ignore[arg-type]
            if (value := getattr(self, spot.name)) is not None:
                super().__setitem__(spot.name, value)

    def __getitem__(self, key: Any) -> Any:
        return super().__getitem__(key) if isinstance(key, str) else self.to_tuple()[key]

    def to_tuple(self) -> tuple[Any, ...]:
        """The values that are there."""
        return tuple(self[key] for key in self)


@dataclass
class SequenceClassifierOutput(ModelOutput):
    """What a classifier of sentences returns."""

    loss: torch.Tensor | None = None
    logits: torch.Tensor | None = None
    hidden_states: tuple[torch.Tensor, ...] | None = None
    attentions: tuple[torch.Tensor, ...] | None = None


class EncoderConfig:
    """Hyperparameters, and whatever else was passed on."""

    model_type = "encoder"

    def __init__(self, **given: Any) -> None:
        self.vocab_size, self.hidden_size, self.num_hidden_layers, self.num_attention_heads = 64, 32, 2, 4
        self.intermediate_size, self.max_position_embeddings, self.num_labels = 64, 40, 3
        self.use_return_dict, self.output_hidden_states, self.output_attentions = True, False, False
        vars(self).update(given)


def can_return_tuple(forward: Callable[..., Any]) -> Callable[..., Any]:
    """Let ``return_dict=False`` ask for a tuple."""

    @functools.wraps(forward)
    def wrapped(self: Any, *arguments: Any, return_dict: bool | None = None, **keywords: Any) -> Any:
        found = forward(self, *arguments, **keywords)
        use = self.config.use_return_dict if return_dict is None else return_dict
        return found if use else found.to_tuple()

    return wrapped


class EncoderAttention(nn.Module):
    """Self-attention over heads."""

    def __init__(self, config: EncoderConfig) -> None:
        super().__init__()
        self.num_heads, self.head_dim = config.num_attention_heads, config.hidden_size // config.num_attention_heads
        self.q_proj, self.k_proj, self.v_proj, self.out_proj = (
            nn.Linear(config.hidden_size, config.hidden_size) for _ in range(4)
        )

    def forward(self, hidden_states: torch.Tensor, attention_mask: torch.Tensor | None = None) -> torch.Tensor:
        """[n, length, hidden] in and out; the mask is added to the scores."""
        shape = (*hidden_states.shape[:-1], -1, self.head_dim)
        query, key, value = (
            layer(hidden_states).view(shape).transpose(1, 2) for layer in (self.q_proj, self.k_proj, self.v_proj)
        )
        context = nn.functional.scaled_dot_product_attention(query, key, value, attn_mask=attention_mask)
        result: torch.Tensor = self.out_proj(context.transpose(1, 2).reshape(hidden_states.shape))
        return result


class EncoderLayer(nn.Module):
    """Attention and a feed-forward part."""

    def __init__(self, config: EncoderConfig) -> None:
        super().__init__()
        self.self_attn = EncoderAttention(config)
        self.fc1 = nn.Linear(config.hidden_size, config.intermediate_size)
        self.fc2 = nn.Linear(config.intermediate_size, config.hidden_size)
        self.norms = nn.ModuleList([nn.LayerNorm(config.hidden_size) for _ in range(2)])
        self.dropout = nn.Dropout(0.1)

    def forward(self, hidden_states: torch.Tensor, attention_mask: torch.Tensor | None = None) -> torch.Tensor:
        """[n, length, hidden] in and out."""
        hidden_states = self.norms[0](hidden_states + self.dropout(self.self_attn(hidden_states, attention_mask)))
        fed = self.fc2(nn.functional.gelu(self.fc1(hidden_states)))
        result: torch.Tensor = self.norms[1](hidden_states + self.dropout(fed))
        return result


class EncoderForSequenceClassification(nn.Module):
    """Token numbers to logits, in a record."""

    position_ids: torch.Tensor

    def __init__(self, config: EncoderConfig) -> None:
        super().__init__()
        self.config = config
        self.word_embeddings = nn.Embedding(config.vocab_size, config.hidden_size, padding_idx=0)
        self.position_embeddings = nn.Embedding(config.max_position_embeddings, config.hidden_size)
        self.token_type_embeddings = nn.Embedding(2, config.hidden_size)
        ids = torch.arange(config.max_position_embeddings).expand((1, -1))
        self.register_buffer("position_ids", ids, persistent=False)
        self.layers = nn.ModuleList([EncoderLayer(config) for _ in range(config.num_hidden_layers)])
        self.classifier = nn.Linear(config.hidden_size, config.num_labels)

    @classmethod
    def from_config(cls, **given: Any) -> "EncoderForSequenceClassification":
        """As a user makes one without downloading weights."""
        torch.manual_seed(0)
        return cls(EncoderConfig(**given))

    @can_return_tuple
    def forward(
        self,
        input_ids: torch.LongTensor | None = None,
        attention_mask: torch.Tensor | None = None,
        token_type_ids: torch.LongTensor | None = None,
        position_ids: torch.LongTensor | None = None,
        inputs_embeds: torch.FloatTensor | None = None,
        labels: torch.LongTensor | None = None,
        output_attentions: bool | None = None,
        output_hidden_states: bool | None = None,
        **kwargs: Any,
    ) -> SequenceClassifierOutput:
        """Everything is optional, as it is there."""
        if (input_ids is None) == (inputs_embeds is None):
            raise ValueError("You must specify exactly one of input_ids or inputs_embeds")
        hidden = self.word_embeddings(input_ids) if inputs_embeds is None else inputs_embeds
        length = hidden.shape[1]
        kinds = torch.zeros(hidden.shape[:2], dtype=torch.long) if token_type_ids is None else token_type_ids
        places = self.position_ids[:, :length] if position_ids is None else position_ids
        hidden = hidden + self.position_embeddings(places) + self.token_type_embeddings(kinds)
        if attention_mask is not None:
            shown = attention_mask[:, None, None, :].to(hidden.dtype)
            attention_mask = (1.0 - shown) * torch.finfo(hidden.dtype).min
        states = [hidden]
        for layer in self.layers:
            hidden = layer(hidden, attention_mask)
            states.append(hidden)
        logits = self.classifier(hidden[:, 0])
        loss = None if labels is None else nn.functional.cross_entropy(logits, labels)
        wanted = self.config.output_hidden_states if output_hidden_states is None else output_hidden_states
        return SequenceClassifierOutput(loss=loss, logits=logits, hidden_states=tuple(states) if wanted else None)


class ConvNormAct(nn.Module):
    """Convolution, batch normalization, activation."""

    def __init__(self, inputs: int, outputs: int, kernel: int, stride: int = 1, groups: int = 1) -> None:
        super().__init__()
        self.conv = nn.Conv2d(inputs, outputs, kernel, stride, kernel // 2, groups=groups, bias=False)
        self.bn = nn.BatchNorm2d(outputs)
        self.act = nn.SiLU(inplace=True)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """[n, channels, height, width]."""
        result: torch.Tensor = self.act(self.bn(self.conv(x)))
        return result


class SqueezeExcite(nn.Module):
    """Channels weighed by their means."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.reduce, self.expand = nn.Conv2d(channels, channels // 4, 1), nn.Conv2d(channels // 4, channels, 1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """[n, channels, height, width]."""
        weight = self.expand(nn.functional.silu(self.reduce(x.mean((2, 3), keepdim=True))))
        result: torch.Tensor = x * weight.sigmoid()
        return result


class InvertedResidual(nn.Module):
    """Depthwise between two 1x1 convolutions."""

    def __init__(self, inputs: int, outputs: int, stride: int) -> None:
        super().__init__()
        self.has_skip = stride == 1 and inputs == outputs
        self.expand = ConvNormAct(inputs, 2 * inputs, 1)
        self.depthwise = ConvNormAct(2 * inputs, 2 * inputs, 3, stride, groups=2 * inputs)
        self.se = SqueezeExcite(2 * inputs)
        self.project = nn.Sequential(nn.Conv2d(2 * inputs, outputs, 1, bias=False), nn.BatchNorm2d(outputs))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """[n, channels, height, width]."""
        made: torch.Tensor = self.project(self.se(self.depthwise(self.expand(x))))
        return x + made if self.has_skip else made


class MobileNet(nn.Module):
    """A picture net with a head that can be taken off, or features of several depths instead of logits."""

    def __init__(
        self, num_classes: int = 10, in_chans: int = 3, features_only: bool = False, global_pool: str = "avg"
    ) -> None:
        super().__init__()
        self.default_cfg = {"input_size": (in_chans, 40, 40), "num_classes": num_classes, "classifier": "classifier"}
        self.pretrained_cfg = self.default_cfg
        self.num_classes, self.features_only = num_classes, features_only
        self.conv_stem = ConvNormAct(in_chans, 16, 3, 2)
        self.blocks = nn.Sequential(
            nn.Sequential(InvertedResidual(16, 16, 1)),
            nn.Sequential(InvertedResidual(16, 24, 2), InvertedResidual(24, 24, 1)),
        )
        self.global_pool = nn.AdaptiveAvgPool2d(1) if global_pool else nn.Identity()
        self.classifier = nn.Linear(24, num_classes) if num_classes else nn.Identity()

    def get_classifier(self) -> nn.Module:
        """The head."""
        return self.classifier

    def forward_features(self, x: torch.Tensor) -> list[torch.Tensor]:
        """Of every depth."""
        found = [self.conv_stem(x)]
        for stage in self.blocks:
            found.append(stage(found[-1]))
        return found

    def forward_head(self, x: torch.Tensor, pre_logits: bool = False) -> torch.Tensor:
        """Pooled, and classified unless the pooled vector is asked for."""
        pooled = self.global_pool(x).flatten(1)
        result: torch.Tensor = pooled if pre_logits else self.classifier(pooled)
        return result

    def forward(self, x: torch.Tensor) -> torch.Tensor | list[torch.Tensor]:
        """Logits, or features."""
        found = self.forward_features(x)
        return found if self.features_only else self.forward_head(found[-1])


def create_model(model_name: str = "mobilenet", pretrained: bool = False, **arguments: Any) -> MobileNet:
    """As the registry of models makes one."""
    assert (model_name, pretrained) == ("mobilenet", False)
    torch.manual_seed(0)
    return MobileNet(**arguments)


def sentences() -> nn.Module:
    """What a user writes for the one: a factory that calls the class."""
    return EncoderForSequenceClassification.from_config(num_labels=4)


def features() -> nn.Module:
    """And for the other, as a backbone."""
    return create_model("mobilenet", features_only=True)
