"""Small networks in numpy that run in float, in int8 and in fp16: what a good quantization really does to an output.

Samples come in clusters and the last layer knows them, as in a trained model, so that classes have margins.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from seatrial.optimize.samples import Samples

Array = np.ndarray[Any, np.dtype[Any]]
KINDS = ("score", "score of one column", "probability", "classes", "logits", "tokens", "embedding", "map")
DECIDED = ("label", "mask")
_WIDTH, _CLUSTERS = 24, 10
MAP = (3, 4, 4)


@dataclass(frozen=True, kw_only=True)
class Net:
    """One network: `float_`, `int8` and `fp16` map the input [n, 24] to the output of that kind."""

    kind: str
    samples: Samples
    weights: tuple[Array, ...]
    offset: float
    ranges: tuple[tuple[float, float], ...]

    def float_(self, x: Array) -> Array:
        return self._run(x, lambda value, place: value, lambda weight: weight)

    def int8(self, x: Array) -> Array:
        def rounded(value: Array, place: int) -> Array:
            low, high = self.ranges[place]
            step = (high - low) / 255
            zero = np.rint(-low / step)
            return np.asarray((np.clip(np.rint(value / step) + zero, 0, 255) - zero) * step)

        def weight(value: Array) -> Array:
            step = np.abs(value).max(axis=0, keepdims=True) / 127
            return np.asarray(np.rint(value / step) * step)

        return self._run(x, rounded, weight)

    def fp16(self, x: Array) -> Array:
        def half(value: Array) -> Array:
            return value.astype(np.float16).astype(np.float64)

        return self._run(x, lambda value, place: half(value), half)

    def _run(self, x: Array, activation: Callable[[Array, int], Array], weight: Callable[[Array], Array]) -> Array:
        hidden = activation(x.astype(np.float64), 0)
        for place, matrix in enumerate(self.weights[:-1], start=1):
            hidden = activation(np.maximum(hidden @ weight(matrix), 0), place)
        return shaped(self.kind, hidden @ weight(self.weights[-1]), self.offset)


def shaped(kind: str, raw: Array, offset: float) -> Array:
    """The last layer's numbers [n, c] as an output of that kind."""
    rows = len(raw)
    if kind == "score":
        return (raw[:, 0] + offset).astype(np.float32)
    if kind == "score of one column":
        return (raw[:, :1] + offset).astype(np.float32)
    if kind == "probability":
        return np.asarray(1 / (1 + np.exp(-raw[:, :1])), np.float32)
    if kind == "classes":
        powers = np.exp(raw - raw.max(axis=1, keepdims=True))
        return np.asarray(powers / powers.sum(axis=1, keepdims=True), np.float32)
    if kind == "tokens":
        return raw.reshape(rows, 4, -1).astype(np.float32)
    if kind == "embedding":
        return np.asarray(raw / np.linalg.norm(raw, axis=1, keepdims=True), np.float32)
    if kind == "map":
        return raw.reshape(rows, *MAP).astype(np.float32)
    if kind == "label":
        return np.asarray(raw.argmax(axis=1))
    if kind == "mask":
        return np.asarray(raw > 0, bool if offset > 0 else np.float32)
    return raw.astype(np.float32)


def drawn(random: np.random.Generator, kind: str = "") -> Net:
    """A network of that kind, or of any, with 64 to 256 samples."""
    kind = kind or str(random.choice((*KINDS, *DECIDED)))
    rows = int(random.choice([64, 128, 256]))
    centres = random.normal(size=(_CLUSTERS, _WIDTH))
    clusters = random.integers(0, _CLUSTERS, rows)
    x = (centres[clusters] + random.normal(0, 0.25, (rows, _WIDTH))).astype(np.float32)
    body = [random.normal(0, np.sqrt(2 / _WIDTH), (_WIDTH, _WIDTH)) for _ in range(int(random.integers(1, 4)))]
    hidden, seen = x.astype(np.float64), centres
    ranges = [(float(hidden.min()), float(hidden.max()))]
    for matrix in body:
        hidden, seen = np.maximum(hidden @ matrix, 0), np.maximum(seen @ matrix, 0)
        ranges.append((0.0, float(hidden.max())))
    if kind in ("classes", "logits", "label"):
        head = (seen / np.maximum(np.linalg.norm(seen, axis=1, keepdims=True), 1e-9)).T * 3
        head = head - head.mean(axis=1, keepdims=True)
    else:
        columns = {"tokens": 24, "map": int(np.prod(MAP)), "embedding": 32, "mask": 16}.get(kind, 1)
        head = random.normal(size=(_WIDTH, columns)) / np.sqrt(_WIDTH)
    spread = float((hidden @ head).std()) or 1.0
    offset = spread * float(random.choice([0.0, 3.0, 50.0, 300.0]))
    samples = Samples(split="calibration", inputs={"x": x}, labels=None)
    return Net(kind=kind, samples=samples, weights=(*body, head), offset=offset, ranges=tuple(ranges))


class Made:
    """A session around a function of x."""

    def __init__(self, answer: Callable[[Array], Array]) -> None:
        self._answer = answer

    def run(self, inputs: Mapping[str, Array]) -> dict[str, Array]:
        return {"y": self._answer(inputs["x"])}
