"""What is watched of a feature: the quantities whose mean over a window's rows is compared with the baseline."""

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]
Columns = Mapping[str, NDArray[Any]]
"""Rows of traffic by feature, each array of shape [rows]: numbers with NaN for missing, categories with None."""

What = Literal["location", "scale", "missing", "outside", "unseen", "share", "pair"]
COUNTED: frozenset[What] = frozenset({"missing", "outside", "unseen", "share"})
"""Quantities that count rows; the others are means of scores."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Quantity:
    """One mean over rows: of which feature, and what of it.

    `location` is the mean normal score (0 in the reference, 1 is one standard deviation), `scale` the mean squared
    score less 1, `pair` the mean product of two features' scores (their rank correlation), the others are shares of
    rows: `missing`, `outside` the range of the reference, `unseen` there, `share` of one category. `value` names the
    category or the other feature of a pair.
    """

    feature: str
    what: What
    value: str = ""

    def __str__(self) -> str:
        """Return it as reports print it."""
        if self.what == "share":
            return f"{self.feature} = {self.value}"
        if self.what == "pair":
            return f"{self.feature} with {self.value}"
        return f"{self.feature}: {self.what}"

    @property
    def features(self) -> tuple[str, ...]:
        """The features that it concerns: two of a pair, else one."""
        return (self.feature, self.value) if self.what == "pair" else (self.feature,)


TOLERANCES: Mapping[What, float] = MappingProxyType(
    {
        "location": 0.05,
        "scale": 0.10,
        "missing": 0.005,
        "outside": 0.002,
        "unseen": 0.002,
        "share": 0.02,
        "pair": 0.05,
    }
)
"""Changes that nobody wants to hear of, where a plan says nothing: chosen, not measured. In the quantity's own unit."""
