"""Calibration statistics of a model's activations: one histogram per tensor, and largest magnitudes per channel.

Small enough for a note in the build's cache, and complete enough that another target, range method or smoothing
strength needs no second look at the samples.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from ..record import fields_json
from ..samples import Array
from .histogram import Histogram
from .ranges import Method, Range, range_of

SCHEMA = 2


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Statistics:
    """Of each tensor by name: its histogram, and for inputs of matrix products max |x| per last-axis channel, [c]."""

    tensors: Mapping[str, Histogram] = field(default_factory=dict)
    channels: Mapping[str, Array] = field(default_factory=dict)

    def merge(self, other: "Statistics") -> "Statistics":
        """Statistics of both streams, or of both sets of tensors, together."""
        tensors, channels = dict(self.tensors), dict(self.channels)
        for name, histogram in other.tensors.items():
            tensors[name] = tensors[name].merge(histogram) if name in tensors else histogram
        for name, largest in other.channels.items():
            channels[name] = np.maximum(channels[name], largest) if name in channels else largest
        return Statistics(tensors=tensors, channels=channels)

    def ranges(self, method: Method, *, symmetric: bool, percentile: float) -> dict[str, Range]:
        """The interval of every tensor."""
        return {
            name: range_of(histogram, method, symmetric=symmetric, percentile=percentile)
            for name, histogram in self.tensors.items()
        }

    def to_json(self) -> dict[str, Any]:
        """JSON values."""
        return {"schema": SCHEMA, **fields_json(self)}

    @classmethod
    def from_json(cls, value: Mapping[str, Any] | None) -> "Statistics":
        """Read what `to_json` wrote; another schema, or nothing, is empty statistics (they are measured again)."""
        if value is None or value.get("schema") != SCHEMA:
            return cls()
        return cls(
            tensors={name: Histogram.from_json(one) for name, one in value["tensors"].items()},
            channels={name: np.array(one, np.float64) for name, one in value["channels"].items()},
        )
