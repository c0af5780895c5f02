"""Draft: the first recipe for a model that somebody brings, with a sample loader to replace, in a folder of its own.

What the model takes and is made of is looked up (`on_onnx_draft`, `on_modules`); here it is only decided what that
calls for. Nothing is overwritten, and the samples are random numbers that say loudly what they are.
"""

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np

from .errors import ConfigError, MachineError
from .samples import Array
from .store import write_atomically

Family = Literal["cnn", "transformer", "mlp"]
RECIPE, SAMPLES = "recipe.toml", "samples.py"
_TEMPLATES = Path(__file__).with_name("templates")


@dataclass(frozen=True, slots=True, kw_only=True)
class Input:
    """One input: dtype and shape per sample, and for whole numbers the values that are legal, `below` that number.

    `ones` marks a mask: nothing is hidden.
    """

    name: str
    dtype: str
    shape: tuple[int, ...]
    below: int | None = None
    ones: bool = False

    @classmethod
    def parse(cls, text: str) -> "Input":
        """Read ``image=3x224x224`` or ``input_ids=128:int64``; without a dtype it is float32.

        Raises:
            ConfigError: another form.
        """
        name, equals, rest = text.partition("=")
        shape, _, dtype = rest.partition(":")
        sizes = shape.split("x") if shape else []
        if not equals or not name or not all(size.isdigit() and int(size) > 0 for size in sizes):
            raise ConfigError(
                f"not an input: {text!r}", next_step="write NAME=SHAPE[:DTYPE] per sample, for instance ids=128:int64"
            )
        known = {"float32", "float16", "float64", "int64", "int32", "uint8", "bool"}
        if (dtype or "float32") not in known:
            raise ConfigError(f"unknown dtype {dtype!r} in {text!r}", next_step=f"use {', '.join(sorted(known))}")
        whole = "int" in dtype or dtype == "bool"
        return cls(
            name=name,
            dtype=dtype or "float32",
            shape=tuple(map(int, sizes)),
            below=2 if whole else None,
            ones="mask" in name,
        )

    def sample(self, random: np.random.Generator, rows: int) -> Array:
        """What `expression` makes, as an array [rows, ...]."""
        shape = (rows, *self.shape)
        if self.ones:
            return np.ones(shape, dtype=self.dtype)
        numbers = random.normal(size=shape) if self.below is None else random.integers(0, self.below, shape)
        return np.asarray(numbers.astype(self.dtype))

    def expression(self) -> str:
        """Python that makes `rows` random samples from a generator called `random`."""
        shape = "(" + ", ".join(["rows", *map(str, self.shape)]) + ("," if not self.shape else "") + ")"
        if self.ones:
            return f'np.ones({shape}, dtype="{self.dtype}")'
        if self.below is not None:
            return f'random.integers(0, {self.below}, {shape}).astype("{self.dtype}")'
        return f'random.normal(size={shape}).astype("{self.dtype}")'


@dataclass(frozen=True, slots=True, kw_only=True)
class Model:
    """What was found out about a model: its inputs and outputs, and how many operators of each kind it has."""

    inputs: tuple[Input, ...]
    outputs: tuple[str, ...]
    operators: Mapping[str, int]


def family(operators: Mapping[str, int]) -> Family:
    """What kind of network has these operators: attention makes a transformer, else convolutions a CNN, else an MLP."""
    if operators.get("Attention", 0):
        return "transformer"
    return "cnn" if operators.get("Conv", 0) else "mlp"


def stages(kind: Family, source: Literal["factory", "onnx"], operators: Mapping[str, int]) -> list[dict[str, Any]]:
    """The stages to begin with, those that need no training: export, and int8 where there is something to quantize.

    In a transformer only the matrix products are quantized, so that normalizations and softmax stay fused in float.

    Raises:
        ConfigError: an ONNX file without anything to quantize.
    """
    found: list[dict[str, Any]] = [{"kind": "export"}] if source == "factory" else []
    if any(operators.get(name, 0) for name in ("Conv", "MatMul", "Gemm")):
        products = [name for name in ("MatMul", "Gemm") if operators.get(name, 0) or source == "factory"]
        found.append({"kind": "quantize"} | ({"operators": products} if kind == "transformer" else {}))
    if not found:
        raise ConfigError(
            "there is nothing to quantize in this graph",
            where=f"operators: {', '.join(sorted(operators))}",
            next_step="bring a model with convolutions or matrix products",
        )
    return found


def draft(model: str, folder: Path, *, name: str = "", inputs: Sequence[Input] = ()) -> tuple[Path, Path, Family]:
    """Write ``recipe.toml`` and ``samples.py`` for ``MODEL.onnx``, ``module:factory`` or ``file.py:factory``.

    `inputs` replace what would be guessed. Returns both paths and the kind of network.

    Raises:
        ConfigError: a file is there already, or the inputs cannot be guessed.
        MissingError, SourceError: no such model, or it cannot be loaded.
    """
    for file in (RECIPE, SAMPLES):
        if (folder / file).exists() and (file == RECIPE or not _drafted(folder / file)):
            raise _taken(folder, file)
    if model.endswith(".onnx"):
        from .on_onnx_draft import look

        found, source = look(Path(model), inputs), {"onnx": os.path.relpath(model, folder)}
    else:
        from .on_modules import look as look_at_module

        found = look_at_module(model, Path.cwd(), inputs)
        place, _, function = model.rpartition(":")
        moved = f"{os.path.relpath(place, folder)}:{function}" if place.endswith(".py") else model
        source = {"factory": moved}
    kind = family(found.operators)
    values = {
        "name": name or slug(folder.name),
        "source": source,
        "model": found,
        "kind": kind,
        "stages": stages(kind, "onnx" if "onnx" in source else "factory", found.operators),
    }
    recipe, samples = ((folder / name, _rendered(name, values).encode()) for name in (RECIPE, SAMPLES))
    if samples[0].exists() and samples[0].read_bytes() != samples[1]:
        raise _taken(folder, SAMPLES)
    try:
        for path, data in (samples, recipe):  # the recipe last: with it there, the draft is whole
            write_atomically(path, data)
    except OSError as error:
        raise MachineError(f"cannot write: {error.strerror or error}", where=str(folder)) from error
    return recipe[0], samples[0], kind


def _drafted(samples: Path) -> bool:
    """Tell whether a loader begins as a draft does: a killed one may have left it without its recipe."""
    first = (_TEMPLATES / f"{SAMPLES}.j2").read_bytes().split(b"{", 1)[0]
    return samples.is_file() and samples.read_bytes().startswith(first)


def _taken(folder: Path, name: str) -> ConfigError:
    return ConfigError(
        f"{name} is there already", where=str(folder), next_step="nothing is overwritten: use another --into"
    )


def slug(text: str) -> str:
    """A legal recipe name made of that text."""
    kept = "".join(character if character.isascii() and character.isalnum() else "-" for character in text.lower())
    return kept.strip("-")[:60].rstrip("-") or "model"


def _rendered(name: str, values: Mapping[str, Any]) -> str:
    from jinja2 import Environment, FileSystemLoader, StrictUndefined

    from .recipe_text import value_text

    templates = Environment(  # TOML and Python, not HTML: nothing to escape; texts go through `value_text`
        loader=FileSystemLoader(_TEMPLATES),
        autoescape=False,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    templates.filters["toml"] = value_text
    return templates.get_template(f"{name}.j2").render(values)
