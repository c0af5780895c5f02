"""Torch modules: inspects one for a draft: inputs of its forward, found by trial, and its layers.

A timm model tells its input size, a Hugging Face model its image size and vocabulary; for others the first layer does.
"""

import inspect
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch

from ..artifact import TensorSpec
from ..errors import ConfigError
from ..intake.on_rows import refuse_dependence
from ..sessions.on_calls import leaves, unservable
from ..sessions.on_torch import TorchSession, build_module, call
from ..user_code import Reference
from .model import Input, Model
from .on_lengths import free_lengths

_LAYERS = {
    "Conv": torch.nn.modules.conv._ConvNd,
    "MatMul": torch.nn.Linear,
    "Embedding": torch.nn.Embedding,
    "LSTM": torch.nn.LSTM,
}
_SOUND = (4000, 16000)
_PIXELS, _POINTS, _WORDS = (224, 64, 32, 28), (64, 128, 1024, 16000), 32


def look(text: str, base: Path, given: Sequence[Input]) -> Model:
    """Return the facts that a draft needs about a factory's module, found by running two random samples.

    Raises:
        SourceError: the factory raised or made no module, or a sample's output depends on other samples or on chance.
        ConfigError: no guess at its inputs works.
    """
    torch.manual_seed(7)
    module = build_module(Reference.parse(text, base), {}).eval()
    refused = "it has no layer that tells"
    for inputs in [tuple(given)] if given else _guesses(module):
        try:
            outputs, operators = _outputs(module, inputs), _operators(module)
            found = Model(inputs=inputs, outputs=outputs, operators=operators)
        except Exception as error:  # noqa: BLE001  the module may raise anything on a wrong guess
            line = str(error).strip().partition("\n")[0]
            refused = f"{type(error).__name__}: {line[:160]}"
            continue
        _refuse_dependence(module, found, text)
        return replace(found, dynamic=free_lengths(module, inputs, outputs))
    raise ConfigError(
        "the module's inputs cannot be guessed" if not given else "the module refuses these inputs",
        where=f"{text}, forward{inspect.signature(module.forward)}: {refused}",
        next_step="name each input with --input NAME=SHAPE[:DTYPE], for instance --input image=3x224x224",
    )


def _refuse_dependence(module: torch.nn.Module, found: Model, where: str) -> None:
    random = np.random.default_rng(1)
    samples = {each.name: each.sample(random, 4) for each in found.inputs}
    inputs = [TensorSpec(name=each.name, dtype=each.dtype, shape=("batch", *each.shape)) for each in found.inputs]
    outputs = [TensorSpec(name=name, dtype="", shape=()) for name in found.outputs]
    refuse_dependence(TorchSession(module, tuple(inputs), tuple(outputs)), samples, where)


def _outputs(module: torch.nn.Module, inputs: Sequence[Input]) -> tuple[str, ...]:
    """Names of the tensors that the module returns, one row per sample."""
    random = np.random.default_rng(0)
    with torch.inference_mode():
        result = call(module, {each.name: torch.from_numpy(each.sample(random, 2)) for each in inputs})
    named = leaves(result)
    names = [
        name
        for name, value in named.items()
        if value.ndim and value.shape[0] == 2 and name.isidentifier() and not unservable(name, value)
    ]
    if not names:
        reasons = [why for name, value in named.items() if (why := unservable(name, value))]
        if reasons:
            raise TypeError(reasons[0])
        raise TypeError(f"it returns a {type(result).__name__} without a tensor that has one row per sample")
    return tuple(names)


def _operators(module: torch.nn.Module) -> Mapping[str, int]:
    """Count the layers of each kind; every module with attention in its name counts as attention."""
    counts = Counter[str]()
    for layer in module.modules():
        counts.update(name for name, kind in _LAYERS.items() if isinstance(layer, kind))
        counts["Attention"] += "attention" in type(layer).__name__.lower()
    return counts


def _guesses(module: torch.nn.Module) -> Iterator[tuple[Input, ...]]:
    """Inputs to try, the likeliest first."""
    parameters = inspect.signature(module.forward).parameters
    if "input_ids" in parameters:
        words = next((layer.num_embeddings for layer in module.modules() if isinstance(layer, torch.nn.Embedding)), 2)
        ids = Input(name="input_ids", dtype="int64", shape=(_WORDS,), below=words)
        mask = Input(name="attention_mask", dtype="int64", shape=(_WORDS,), ones=True)
        yield (ids, mask) if "attention_mask" in parameters else (ids,)
        return
    if "input_values" in parameters:  # sound, as Hugging Face calls it
        yield from ((Input(name="input_values", dtype="float32", shape=(points,)),) for points in _SOUND)
        return
    named = [each for each in parameters.values() if each.kind not in (each.VAR_POSITIONAL, each.VAR_KEYWORD)]
    needed = [each.name for each in named if each.default is each.empty] or [each.name for each in named[:1]] or ["x"]
    names = ["pixel_values"] if "pixel_values" in parameters else needed
    for shape, below in _shapes(module):
        dtype = "float32" if below is None else "int64"
        yield tuple(Input(name=name, dtype=dtype, shape=shape, below=below) for name in names)


def _shapes(module: torch.nn.Module) -> Iterator[tuple[tuple[int, ...], int | None]]:
    """Shapes per sample that the model tells of itself, then those that its first layer can take."""
    told = getattr(module, "pretrained_cfg", None) or getattr(module, "default_cfg", None)
    if isinstance(told, Mapping) and told.get("input_size"):
        yield tuple(told["input_size"]), None
    image = getattr(getattr(module, "config", None), "image_size", None)
    sizes = (image, *_PIXELS) if isinstance(image, int) else _PIXELS
    for layer in module.modules():
        if isinstance(layer, torch.nn.Embedding):
            yield from (((length,), layer.num_embeddings) for length in (_WORDS, 16, 8))
        elif isinstance(layer, torch.nn.Conv1d):
            yield from (((layer.in_channels, points), None) for points in _POINTS)
        elif isinstance(layer, torch.nn.Conv2d):
            yield from (((layer.in_channels, size, size), None) for size in sizes)
        elif isinstance(layer, torch.nn.Conv3d):
            yield (layer.in_channels, 16, 64, 64), None
        elif isinstance(layer, torch.nn.Linear):
            yield from (((layer.in_features,), None), ((_WORDS, layer.in_features), None))
        elif isinstance(layer, torch.nn.RNNBase):
            yield (_WORDS, layer.input_size), None
        else:
            continue
        return
