"""Conversion of fake quantizers to fixed scales: the same arithmetic, in the operators that export to Q/DQ.

A trained module goes in; what comes out holds int8 weights and int32 biases and no longer observes anything.
"""

import copy
from typing import Any

import torch
import torch.ao.quantization.fx._decomposed  # registers the operators below
from torch.ao.quantization import FakeQuantize

from ..errors import StageError
from ..recipe.targets import Contract

_INT32 = (-(2**31), 2**31 - 1, torch.int32)
_INT8 = (-128, 127, torch.int8)


def fix(trained: torch.fx.GraphModule, contract: Contract) -> torch.fx.GraphModule:
    """Return a copy with fixed scales in place of fake quantizers, and folded layers in place of trained ones.

    Raises:
        StageError: a quantized layer is fed by something that is not.
    """
    fixed = copy.deepcopy(trained)
    calls: dict[str, int] = {}
    for node, other in zip(trained.graph.nodes, fixed.graph.nodes, strict=True):
        if node.op != "call_module":
            continue
        layer = trained.get_submodule(node.target)
        if isinstance(layer, FakeQuantize):
            _replace(fixed, node.target, Grid(layer, contract))
        elif hasattr(layer, "weight_fake_quant"):
            calls[node.target] = calls.get(node.target, 0) + 1
            if calls[node.target] > 1:  # called again, at another scale: its bias has that scale
                other.target = f"{node.target}_call_{calls[node.target]}"
            _replace(fixed, other.target, _Folded.of(layer, _scale_into(node, trained)))
    fixed.recompile()
    return fixed.eval()


def _scale_into(node: torch.fx.Node, trained: torch.fx.GraphModule) -> float:
    """The scale of what a quantized layer is fed."""
    feeding: Any = node.args[0]
    feeder = trained.get_submodule(feeding.target) if feeding.op == "call_module" else None
    if not isinstance(feeder, FakeQuantize):
        raise StageError(f"the input of {node.target} is not quantized", next_step=f"exclude {node.target}")
    return float(feeder.scale)


def _replace(module: torch.nn.Module, name: str, layer: torch.nn.Module) -> None:
    place, _, leaf = name.rpartition(".")
    setattr(module.get_submodule(place), leaf, layer)


class Grid(torch.nn.Module):
    """Round to the grid of one tensor and back."""

    def __init__(self, trained: FakeQuantize, contract: Contract) -> None:
        super().__init__()
        signed = contract.activations == "int8"  # trained as unsigned: shifted by half the range
        self.scale = float(trained.scale)
        self.zero_point = int(trained.zero_point) - (128 if signed else 0)
        self._grid = (self.scale, self.zero_point, *(_INT8 if signed else (0, 255, torch.uint8)))

    def forward(self, hidden: torch.Tensor) -> torch.Tensor:
        operators = torch.ops.quantized_decomposed
        whole = operators.quantize_per_tensor(hidden, *self._grid)
        return operators.dequantize_per_tensor(whole, *self._grid)  # type: ignore[no-any-return]


class _Folded(torch.nn.Module):
    """A convolution or linear layer with integer weights, one scale per output channel, and integer bias."""

    weight: torch.Tensor
    scale: torch.Tensor
    zero: torch.Tensor
    bias: torch.Tensor
    bias_scale: torch.Tensor

    def __init__(self, layer: Any, scale: torch.Tensor, input_scale: float) -> None:
        super().__init__()
        zero = torch.zeros(len(scale), dtype=torch.int64)
        whole = torch.ops.quantized_decomposed.quantize_per_channel(layer.weight.detach(), scale, zero, 0, *_INT8)
        self.register_buffer("weight", whole)
        self.register_buffer("scale", scale)
        self.register_buffer("zero", zero)
        self._has_bias = layer.bias is not None
        if self._has_bias:
            self.register_buffer("bias_scale", scale * input_scale)
            self.register_buffer("bias", torch.round(layer.bias.detach() / (scale * input_scale)).to(torch.int32))
        self._convolution = None if isinstance(layer, torch.nn.Linear) else layer

    @classmethod
    def of(cls, trained: Any, input_scale: float) -> torch.nn.Module:
        """Fold a trained layer (batch normalization goes into weights and bias), its ReLU kept behind it."""
        grid = trained.weight_fake_quant
        floating = trained.to_float()
        parts: list[Any] = list(floating) if isinstance(floating, torch.nn.Sequential) else [floating]
        parts[0].weight.data = grid_of(parts[0].weight, grid)
        folded = cls(parts[0], grid.scale.detach().clone(), input_scale)
        return torch.nn.Sequential(folded, *parts[1:]) if len(parts) > 1 else folded

    def forward(self, hidden: torch.Tensor) -> torch.Tensor:
        operators = torch.ops.quantized_decomposed
        weight = operators.dequantize_per_channel(self.weight, self.scale, self.zero, 0, *_INT8)
        bias = None
        if self._has_bias:
            bias = operators.dequantize_per_channel(self.bias, self.bias_scale, self.zero, 0, *_INT32)
        if self._convolution is None:
            return torch.nn.functional.linear(hidden, weight, bias)
        return self._convolution._conv_forward(hidden, weight, bias)  # type: ignore[no-any-return]


def grid_of(weight: torch.Tensor, grid: FakeQuantize) -> torch.Tensor:
    """Weights clipped and rounded as they were while training (7 bits where the target wants them)."""
    zero = torch.zeros(len(grid.scale), dtype=torch.int32)
    return torch.fake_quantize_per_channel_affine(
        weight.detach(), grid.scale, zero, 0, int(grid.quant_min), int(grid.quant_max)
    )
