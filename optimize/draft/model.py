"""Facts about a model that a draft decides by: its inputs, its outputs, and what it is made of."""

from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np

from ..errors import ConfigError
from ..samples import Array


@dataclass(frozen=True, slots=True, kw_only=True)
class Input:
    """One input: dtype and shape per sample, and for whole numbers the values that are legal, `below` that number.

    `ones` marks a mask: nothing is hidden. `fill` is the one number that is legal, for instance a sampling rate.
    """

    name: str
    dtype: str
    shape: tuple[int, ...]
    below: int | None = None
    ones: bool = False
    fill: int | None = None

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
        """Return the value of `expression` as an array [rows, ...]."""
        shape = (rows, *self.shape)
        if self.ones or self.fill is not None:
            return np.full(shape, 1 if self.fill is None else self.fill, dtype=self.dtype)
        numbers = random.normal(size=shape) if self.below is None else random.integers(0, self.below, shape)
        return np.asarray(numbers.astype(self.dtype))

    def expression(self) -> str:
        """Python that makes `rows` random samples from a generator called `random`."""
        shape = "(" + ", ".join(["rows", *map(str, self.shape)]) + ("," if not self.shape else "") + ")"
        if self.ones:
            return f'np.ones({shape}, dtype="{self.dtype}")'
        if self.fill is not None:
            return f'np.full({shape}, {self.fill}, dtype="{self.dtype}")'
        if self.below is not None:
            return f'random.integers(0, {self.below}, {shape}).astype("{self.dtype}")'
        return f'random.normal(size={shape}).astype("{self.dtype}")'


@dataclass(frozen=True, slots=True, kw_only=True)
class Model:
    """Facts about a model: its inputs and outputs, and how many operators of each kind it has.

    `kept` are the outputs of an ONNX file where some cannot be served. `batches` says that a run takes any number of
    samples. `as_it_is` is why no stage should change the file, if one should not. `dynamic` are a module's free axes
    beside the batch, by input.
    """

    inputs: tuple[Input, ...]
    outputs: tuple[str, ...]
    operators: Mapping[str, int]
    kept: tuple[str, ...] = ()
    batches: bool = True
    as_it_is: str = ""
    dynamic: Mapping[str, Mapping[str, str]] = field(default_factory=dict)
