"""Corrupted inputs at five severities: numbers, images, tokens and bytes. Pure and seeded: same call, same bytes.

Image kinds and their grading follow the benchmark of Hendrycks & Dietterich (ICLR 2019), in small-image strengths;
numeric and byte kinds are what feeds do: noise, gaps, a wrong unit, a narrower dtype, a cut or garbled record. Only
inputs of the right sort are touched; the others stay as they are. JPEG artefacts need an encoder and are not among
them.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Annotated, Any, Literal, cast
from zlib import crc32

import numpy as np
from pydantic import Field

from seatrial.optimize.errors import ConfigError
from seatrial.optimize.samples import Samples

from ..checks import Check, Plot, informational
from .evidence import Evidence, named_arms
from .quantities import Quantity
from .variants import by_variant, spoiled

Corruption = Literal[
    "gaussian_noise", "blur", "contrast", "brightness", "pixelate", "noise", "missing", "scale", "rounding", "truncate",
    "garble",
]  # fmt: skip
IMAGE = ("gaussian_noise", "blur", "contrast", "brightness", "pixelate")
NUMERIC = ("noise", "missing", "scale", "rounding")
BYTES = ("truncate", "garble")
SEVERITIES = (1, 2, 3, 4, 5)
_LOOK = 500  # samples asked at each severity where no budget says: a look, not a gate
Array = np.ndarray[Any, np.dtype[Any]]
STRENGTHS: Mapping[str, tuple[float, float, float, float, float]] = {
    "gaussian_noise": (0.04, 0.06, 0.08, 0.12, 0.18),  # standard deviation, of the data's range
    "blur": (0.4, 0.6, 0.8, 1.0, 1.5),  # Gaussian, pixels
    "contrast": (0.75, 0.5, 0.4, 0.3, 0.15),  # what is left of it
    "brightness": (0.05, 0.1, 0.15, 0.2, 0.3),  # added, of the data's range
    "pixelate": (0.9, 0.8, 0.7, 0.6, 0.5),  # resolution left
    "noise": (0.05, 0.1, 0.2, 0.4, 0.8),  # standard deviations of the data
    "missing": (0.01, 0.05, 0.1, 0.2, 0.4),  # share of values replaced by the mean
    "scale": (1.05, 1.1, 1.25, 1.5, 2.0),  # factor
    "rounding": (10, 7, 5, 3, 2),  # mantissa bits kept: half precision, bfloat16, less
    "truncate": (0.9, 0.8, 0.6, 0.4, 0.2),  # share of the record left
    "garble": (0.01, 0.03, 0.05, 0.1, 0.2),  # share of tokens or bytes replaced
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Range:
    """Range of an input's numbers over the whole evaluation set, so that corruption strength is constant."""

    low: float
    high: float
    mean: float
    std: float

    @classmethod
    def of(cls, array: Array) -> "Range":
        """Measure an input of any shape; zeros for inputs that are not numbers."""
        if array.dtype.kind not in "iuf":
            return cls(low=0.0, high=0.0, mean=0.0, std=0.0)
        if array.dtype == np.uint8:
            return cls(low=0.0, high=255.0, mean=float(array.mean()), std=float(array.std()))
        numbers = (array.min(), array.max(), array.mean(dtype=np.float64), array.std(dtype=np.float64))
        low, high, mean, std = map(float, numbers)
        return cls(low=low, high=high, mean=mean, std=std)


@dataclass(frozen=True, slots=True, kw_only=True)
class CorruptionCheck(Check):
    """The recipe's score on spoiled inputs. `statistic`: `score` (mean over severities) or `loss` (clean minus that).

    `corruption` is one of the image, numeric or byte kinds; `samples` of the evaluation set are asked at each severity.
    """

    kind: Literal["corruption"] = "corruption"
    corruption: Corruption
    severities: tuple[Annotated[int, Field(ge=1, le=5)], ...] = SEVERITIES
    statistic: Literal["score", "loss"] = "loss"
    samples: Annotated[int, Field(ge=30)] = 1000
    seed: Annotated[int, Field(ge=0)] = 0

    def __post_init__(self) -> None:
        Check.__post_init__(self)
        if not self.severities or len(set(self.severities)) < len(self.severities):
            raise ConfigError("severities must be given, each once", where=self.label)

    @property
    def label(self) -> str:
        some = "" if self.severities == SEVERITIES else f" at {','.join(map(str, self.severities))}"
        return f"corruption {self.corruption} {self.statistic}{some}"

    @property
    def higher_is_better(self) -> bool:
        return self.statistic == "score"

    @property
    def variants(self) -> tuple[str, ...]:
        """The names under which its answers are kept."""
        return tuple(f"{self.corruption}:{severity}:{self.seed}" for severity in self.severities)

    @property
    def asked(self) -> int:
        return self.samples

    def altered(
        self, variant: str, inputs: Mapping[str, Array], ranges: Mapping[str, Range], first: int
    ) -> Mapping[str, Array]:
        """Return the corrupted inputs; noise is drawn anew for every share, from its first sample."""
        severity = int(variant.split(":")[1])
        return corrupted(inputs, ranges, self.corruption, severity, self.seed * 1_000_003 + first)

    def quantity(self, evidence: Evidence, rule: str) -> Quantity:
        """The score over the severities, or its loss.

        Raises:
            ConfigError: a severity was not asked.
        """
        return spoiled(self, evidence, loss=self.statistic == "loss")

    def note(self, evidence: Evidence) -> str:
        """Return the score at each severity."""
        arms = zip(("base", "candidate"), (by_variant(self, evidence, arm) for arm in (0, 1)), strict=True)
        shown = [
            f"{name} {', '.join(f'{each:.3f}' for each in scores.mean(axis=1))}"
            for name, scores in arms
            if scores is not None
        ]
        return f" Score by severity: {'; '.join(shown)}."

    def plot(self, evidence: Evidence) -> Plot:
        """Return the score by severity; all corruptions are one plot."""
        from . import on_plotly

        curves = {}
        clean = named_arms(evidence.scores())
        for arm, name in enumerate(("base", "candidate")):
            if (scores := by_variant(self, evidence, arm)) is not None:
                curves[name] = ([0, *self.severities], [float(clean[name].mean()), *scores.mean(axis=1).tolist()])
        lead = "Mean score by severity, starting with the clean set (0); the candidate in blue, the base in grey."
        return Plot(title="Corrupted inputs", lead=lead, data={str(self.corruption): curves}, draw=on_plotly.severities)

    @classmethod
    def unprompted(cls, samples: Samples, *, against: bool, attack: bool) -> "tuple[CorruptionCheck, ...]":
        """Return the score under every corruption that has something to change."""
        return tuple(
            cls(corruption=kind, statistic="score", samples=_LOOK, **informational(against=against))
            for kind in applicable(samples.inputs)
        )


def corrupted(
    inputs: Mapping[str, Array], ranges: Mapping[str, Range], kind: str, severity: int, seed: int
) -> dict[str, Array]:
    """The inputs with one corruption at a severity of 1 to 5; dtypes and shapes stay.

    Raises:
        ConfigError: no input is of the sort that this corruption is about.
    """
    strength = STRENGTHS[kind][severity - 1]
    random = np.random.default_rng([seed, crc32(kind.encode()), severity])
    touched = [name for name, array in inputs.items() if applies(kind, array)]
    if not touched:
        raise ConfigError(
            f"{kind} applies to none of the inputs {', '.join(inputs)}",
            where="checks",
            next_step=f"applicable here: {', '.join(applicable(inputs)) or 'none'}",
        )
    changed = dict(inputs)
    if kind in BYTES:
        return changed | _spoiled(kind, {name: inputs[name] for name in touched}, strength, random)
    for name in touched:
        array, range_ = inputs[name], ranges[name]
        made = KINDS[kind](array.astype(np.float64), strength, random, range_, array.shape)
        if kind in IMAGE or array.dtype == np.uint8:
            made = np.clip(made, range_.low, range_.high)
        changed[name] = (np.rint(made) if array.dtype.kind == "u" else made).astype(array.dtype)
    return changed


def applicable(inputs: Mapping[str, Array]) -> list[Corruption]:
    """The corruptions that have something to change in these inputs, [n, ...] each."""
    return [cast("Corruption", kind) for kind in STRENGTHS if any(applies(kind, array) for array in inputs.values())]


def applies(kind: str, array: Array) -> bool:
    """Return whether the corruption applies to an input.

    Images are [n, c, h, w] or [n, h, w, c] with 1, 3 or 4 channels; numbers are floats or bytes of a picture; tokens
    are integers [n, length]; byte records are text or bytes.
    """
    number = array.dtype.kind == "f" or array.dtype == np.uint8
    if kind in IMAGE:
        return number and array.ndim == 4 and (array.shape[1] in (1, 3, 4) or array.shape[3] in (1, 3, 4))
    if kind in NUMERIC:
        return number
    return array.dtype.kind in "SUO" or (array.dtype.kind in "iu" and array.ndim == 2 and array.dtype != np.uint8)


# Numbers and images: (values, strength, random, range, shape) -> values

_Change = Callable[[Array, float, np.random.Generator, Range, tuple[int, ...]], Array]


def _sides(shape: tuple[int, ...]) -> tuple[int, int]:
    """The axes that are height and width."""
    return (2, 3) if shape[1] in (1, 3, 4) else (1, 2)


def _blur(values: Array, strength: float, random: np.random.Generator, range_: Range, shape: tuple[int, ...]) -> Array:
    """Blur along each side by a Gaussian of `strength` pixels; `values` and result are of `shape`."""
    from scipy.ndimage import gaussian_filter1d

    for axis in _sides(shape):
        values = gaussian_filter1d(values, strength, axis=axis, mode="nearest")
    return values


def _contrast(values: Array, left: float, random: np.random.Generator, range_: Range, shape: tuple[int, ...]) -> Array:
    """Keep the fraction `left` of each sample's contrast; `values` and result are of `shape`."""
    middle = values.mean(axis=_sides(shape), keepdims=True)
    return np.asarray((values - middle) * left + middle)


def _pixelate(values: Array, left: float, random: np.random.Generator, range_: Range, shape: tuple[int, ...]) -> Array:
    """Mean over blocks along each side, spread over the block again; `values` and result are of `shape`."""
    for axis in _sides(shape):
        size = shape[axis]
        blocks = np.arange(size) * max(1, round(size * left)) // size
        starts = np.flatnonzero(np.diff(blocks, prepend=-1))
        widths = np.diff([*starts, size]).reshape([-1 if each == axis else 1 for each in range(values.ndim)])
        means = np.add.reduceat(values, starts, axis=axis) / widths
        values = np.repeat(means, widths.ravel(), axis=axis)
    return values


def _rounded(values: Array, bits: float, random: np.random.Generator, range_: Range, shape: tuple[int, ...]) -> Array:
    """Round to `bits` bits of mantissa; `values` and result are of `shape`."""
    mantissa, exponent = np.frexp(values)
    return np.asarray(np.ldexp(np.rint(mantissa * 2 ** (bits + 1)) / 2 ** (bits + 1), exponent))


KINDS: Mapping[str, _Change] = {
    "gaussian_noise": lambda x, s, r, of, shape: x + s * (of.high - of.low) * r.standard_normal(shape),
    "blur": _blur,
    "contrast": _contrast,
    "brightness": lambda x, s, r, of, shape: x + s * (of.high - of.low),
    "pixelate": _pixelate,
    "noise": lambda x, s, r, of, shape: x + s * of.std * r.standard_normal(shape),
    "missing": lambda x, s, r, of, shape: np.where(r.random(shape) < s, of.mean, x),
    "scale": lambda x, s, r, of, shape: x * s,
    "rounding": _rounded,
}


# Tokens and bytes


def _spoiled(kind: str, inputs: Mapping[str, Array], strength: float, random: np.random.Generator) -> dict[str, Array]:
    """Cut tokens [n, length] together (ids and masks of one length alike), or garble only ids, not masks."""
    made = {}
    for name, array in inputs.items():
        if array.dtype.kind in "SUO":
            made[name] = _records(kind, array, strength, random)
        elif kind == "truncate":
            used = (array != 0).sum(axis=1, keepdims=True)
            keep = np.maximum(1, np.ceil(used * strength))
            made[name] = np.where(np.cumsum(array != 0, axis=1) <= keep, array, 0).astype(array.dtype)
        elif array.max() <= 1:
            made[name] = array
        else:
            drawn = random.choice(array[array != 0], array.shape)
            made[name] = np.where((random.random(array.shape) < strength) & (array != 0), drawn, array)
    return made


def _records(kind: str, array: Array, strength: float, random: np.random.Generator) -> Array:
    """Byte records cut short, or with bytes replaced by any others; text stays text, cut only between characters."""
    made = np.empty(array.shape, dtype=object)
    for index, item in np.ndenumerate(array):
        if kind == "truncate":
            made[index] = item[: int(np.ceil(len(item) * strength))]
            continue
        raw = np.frombuffer(item.encode() if isinstance(item, str) else bytes(item), np.uint8).copy()
        where = random.random(raw.size) < strength
        raw[where] = random.integers(32, 127, int(where.sum()))  # printable: a record of text stays decodable
        made[index] = raw.tobytes().decode(errors="replace") if isinstance(item, str) else raw.tobytes()
    return made if array.dtype.kind == "O" else made.astype(array.dtype.kind)
