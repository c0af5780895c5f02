"""Types that several stage configurations share: bounded numbers, and the tolerances between artifact and parent."""

from collections.abc import Callable
from dataclasses import dataclass, fields
from math import isfinite
from typing import Annotated

from pydantic import Field

from ...environment import Environment
from ...errors import ConfigError

Positive = Annotated[int, Field(gt=0)]
Share = Annotated[float, Field(gt=0, lt=1)]
Rate = Annotated[float, Field(gt=0)]


@dataclass(frozen=True, slots=True, kw_only=True)
class Tolerance:
    """Tolerances between an output and the parent's; every limit that is set must hold, on every batch size tried.

    `spread_error` bounds the root mean square difference over the output's own spread, which is its standard deviation
    over the samples, and `column_error` the same of the worst element of a row. `relative_error` bounds
    max |difference| / max |reference|, `snr` the ratio of the parent's energy to the difference's in dB from below,
    `cosine` the mean cosine per sample from below. `agreement` is the least fraction of rows with the same decision
    (the argmax over the last axis, of a map over its channels; whole numbers, masks and texts are decisions
    themselves), and `minority` the same over the rows whose decision is not the most frequent one. Both are broken
    where an exact binomial bound says so.

    Raises:
        ConfigError: a limit that nothing can break, or that is no number.
    """

    relative_error: float | None = None
    cosine: float | None = None
    agreement: float | None = None
    snr: float | None = None
    spread_error: float | None = None
    column_error: float | None = None
    minority: float | None = None

    def __post_init__(self) -> None:
        least = {"cosine": -1.0, "agreement": 0.0, "minority": 0.0}
        for spot in fields(self):
            limit = getattr(self, spot.name)
            if limit is None:
                continue
            if not isfinite(limit) or limit <= least.get(spot.name, limit - 1):
                raise ConfigError(
                    f"{spot.name} = {limit:g} is a limit that no output can break",
                    where="parity",
                    next_step="set a limit that a wrong output would break, for instance spread_error = 0.2",
                )

    @property
    def stated(self) -> tuple[str, ...]:
        """Names of the limits that are given."""
        return tuple(spot.name for spot in fields(self) if getattr(self, spot.name) is not None)


class MachineIndependent:
    """A configuration whose result is the same on every machine, up to what is recorded anyway."""

    __slots__ = ()

    def depends_on(self, environment: Environment, metric: Callable[[], str]) -> str:
        """Return nothing: no machine and no metric makes the result another."""
        return ""


EXACT = {"*": Tolerance(relative_error=1e-4, spread_error=0.02)}
CAST = {
    "*": Tolerance(relative_error=2e-2, cosine=0.999, spread_error=0.1, column_error=0.25, agreement=0.97, minority=0.6)
}
QUANTIZED = {"*": Tolerance(cosine=0.98, agreement=0.97, minority=0.6, spread_error=0.2, column_error=0.5)}
ENGINE = {"*": Tolerance(cosine=0.999, agreement=0.99, minority=0.6, spread_error=0.1, column_error=0.25)}
