"""What several stages can be told: bounded numbers, and how far an artifact may be from its parent."""

from dataclasses import dataclass
from typing import Annotated

from pydantic import Field

Positive = Annotated[int, Field(gt=0)]
Share = Annotated[float, Field(gt=0, lt=1)]
Rate = Annotated[float, Field(gt=0)]


@dataclass(frozen=True, slots=True, kw_only=True)
class Tolerance:
    """How far an output may be from the parent's; every limit that is given must hold, on every batch size tried.

    `relative_error` bounds max |difference| / max |reference|, `cosine` the mean cosine per sample from below,
    `agreement` the share of samples with the same argmax over the last axis from below, `snr` the ratio of the
    parent's energy to the difference's in dB from below.
    """

    relative_error: float | None = None
    cosine: float | None = None
    agreement: float | None = None
    snr: float | None = None


EXACT = {"*": Tolerance(relative_error=1e-4)}
CAST = {"*": Tolerance(relative_error=2e-2, cosine=0.999)}
QUANTIZED = {"*": Tolerance(cosine=0.98, agreement=0.97)}
ENGINE = {"*": Tolerance(cosine=0.999, agreement=0.99)}
