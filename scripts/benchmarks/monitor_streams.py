"""Streams of traffic whose truth is known: features of five kinds by the hour, with season, memory and drift.

Every hour is drawn from its own seed, so that a drifting stream equals the quiet one until the drift begins.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import Literal

import numpy as np
from numpy.typing import NDArray
from scipy.signal import lfilter
from scipy.special import ndtr

from seatrial.serve.monitor.plan import Feature, Plan
from seatrial.serve.monitor.quantities import Columns, Floats

Mode = Literal["iid", "season", "memory"]
Drift = Literal["", "mean", "mean-all", "spread", "unit", "missing", "dependence", "swap"]
HOUR = 3600.0
MONDAY = 1_772_409_600.0  # 2 March 2026, midnight UTC
_KINDS = ("normal", "lognormal", "heavy", "few", "normal", "many", "normal", "lognormal", "normal", "few")
_HISTORY = 5_000  # hours before `MONDAY` that can be asked for


@dataclass(frozen=True, kw_only=True)
class Stream:
    """Traffic of `features` columns, `rows` an hour. From hour `begin` on, `drift` of `size` acts, on ``f0`` mostly.

    "memory": each hour has a level that remembers the last (0.8, standard deviation 0.15), and half of the features
    also remember the row before (0.9). "season": a day's wave of 0.5 and a week's of 0.25 standard deviations.
    """

    features: int
    rows: int
    mode: Mode
    seed: int
    drift: Drift = ""
    size: float = 0.0
    begin: int = 1 << 40
    kinds: tuple[str, ...] = field(init=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "kinds", tuple(_KINDS[at % len(_KINDS)] for at in range(self.features)))

    def plan(self) -> Plan:
        """The plan that watches all of it."""
        kinds = {"few": "category", "many": "category"}
        return Plan(
            schema=1,
            model="stream",
            features={
                f"f{at}": Feature(kind="category" if kind in kinds else "number") for at, kind in enumerate(self.kinds)
            },
        )

    def at(self, hour: int, rows: int = 0) -> Columns:
        """Draw the rows of one hour; negative hours are the reference."""
        draw = np.random.default_rng([self.seed, 7, hour + _HISTORY])
        count = rows or self.rows
        latent = self._latent(hour, count, draw)
        found = {f"f{at}": _SHAPES[kind](self, at, latent[:, at], draw) for at, kind in enumerate(self.kinds)}
        drifts = hour >= self.begin
        if drifts and self.drift == "unit":
            found["f0"] = found["f0"] * self.size
        if drifts and self.drift == "swap":  # the two first values of the first category feature change places
            found["f3"] = np.array([1.0, 0.0, 2.0, 3.0, 4.0])[found["f3"].astype(int)]
        for at in range(self.features):
            if at % 7 == 6 or at == 0:
                share = self.size if drifts and self.drift == "missing" and at == 0 else 0.01
                found[f"f{at}"] = np.where(draw.random(count) < share, np.nan, found[f"f{at}"])
        return found

    @cached_property
    def _levels(self) -> Floats:
        draw = np.random.default_rng([self.seed, 11])
        noise = draw.normal(size=(3 * _HISTORY, self.features)) * 0.15 * np.sqrt(1 - 0.8**2)
        found: Floats = lfilter([1.0], [1.0, -0.8], noise, axis=0)
        return found

    @cached_property
    def _phases(self) -> Floats:
        return np.random.default_rng([self.seed, 13]).uniform(0, 2 * np.pi, self.features)

    @cached_property
    def shares(self) -> Floats:
        """Shares of the five values of each category feature, shape [features, 5]."""
        return np.random.default_rng([self.seed, 17]).dirichlet(np.full(5, 3.0), self.features)

    def _latent(self, hour: int, rows: int, draw: np.random.Generator) -> Floats:
        """Standard normal columns of shape [rows, features], f0 and f4 correlated by 0.8, moved by season and drift."""
        found: Floats = draw.normal(size=(rows, self.features))
        drifts = hour >= self.begin
        if self.features > 4:
            together = self.size if drifts and self.drift == "dependence" else 0.8
            found[:, 4] = together * found[:, 0] + np.sqrt(1 - together**2) * found[:, 4]
        if self.mode == "memory":
            own = [at for at in range(0, self.features, 2) if self.kinds[at] in ("normal", "lognormal", "heavy")]
            found[:, own] = lfilter([np.sqrt(1 - 0.9**2)], [1.0, -0.9], found[:, own], axis=0)
            found += self._levels[hour + _HISTORY]
        if self.mode == "season":
            day, week = (2 * np.pi * (hour % period) / period for period in (24, 168))
            found += 0.5 * np.sin(day + self._phases) + 0.25 * np.sin(week + 2 * self._phases)
        if drifts and self.drift == "mean":
            found[:, 0] += self.size
        if drifts and self.drift == "mean-all":
            found += self.size
        if drifts and self.drift == "spread":
            found[:, 0] *= self.size
        return found


def _few(stream: Stream, at: int, latent: Floats, _: np.random.Generator) -> Floats:
    return np.searchsorted(np.cumsum(stream.shares[at])[:-1], ndtr(latent)).astype(np.float64)


def _many(_: Stream, __: int, latent: Floats, ___: np.random.Generator) -> Floats:
    return np.searchsorted(_ZIPF, ndtr(latent)).astype(np.float64)


def _heavy(_: Stream, __: int, latent: Floats, draw: np.random.Generator) -> Floats:
    found: Floats = latent / np.sqrt(draw.chisquare(2.5, len(latent)) / 2.5)
    return found


_weights = 1 / np.arange(1, 1001) ** 1.1
_ZIPF: NDArray[np.float64] = np.cumsum(_weights / _weights.sum())[:-1]
_SHAPES: Mapping[str, Callable[[Stream, int, Floats, np.random.Generator], Floats]] = {
    "normal": lambda _, __, latent, ___: 10 + 2 * latent,
    "lognormal": lambda _, __, latent, ___: np.exp(latent),
    "heavy": _heavy,
    "few": _few,
    "many": _many,
}
