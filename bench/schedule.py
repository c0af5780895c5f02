"""Seeded arrival schedules, fixed before a run and digested, so that two runs can share one.

Pure; sends nothing and reads no clock. An open-loop load offers exactly these arrivals however slow the server is.
"""

import hashlib
import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from math import ceil, isfinite
from pathlib import Path
from typing import Any, Literal, Self
from zipfile import BadZipFile

import numpy as np
from numpy.typing import NDArray

from seatrial.optimize.artifact import canonical
from seatrial.optimize.errors import ConfigError, IntegrityError
from seatrial.optimize.record import Record

Floats = NDArray[np.float64]
Law = Literal["poisson", "constant", "gamma", "ramp", "replay"]

MAX_ARRIVALS = 10_000_000  # 80 MB of float64; raw results are kept per arrival
_UNIFORM_BITS = 53
_INSTANT = 1e-3  # seconds; a recording that is shorter has no rate of its own


@dataclass(frozen=True, slots=True, kw_only=True)
class Shape(Record, sparse=("burstiness", "profile", "source", "speed", "spread")):
    """What a law is made from besides rate, seconds and seed; None where it has no such parameter.

    `burstiness` of gamma gaps, the `profile` of a ramp as (second, rate) points; `source`, `speed` and `spread` of a
    replay.
    """

    burstiness: float | None = None
    profile: tuple[tuple[float, float], ...] | None = None
    source: str | None = None
    speed: float | None = None
    spread: float | None = None


@dataclass(frozen=True, eq=False, kw_only=True)
class Schedule(
    Record,
    what="the schedule",
    next_step="create it again",
    computed=("digest",),
    sparse=("shape",),
    beside=("offsets",),
):
    """Arrivals at `offsets` seconds after the start: float64[n], sorted, within ``[0, seconds)``, read-only.

    `rate` is arrivals per second, of a ramp and of a replay their mean. `shape` holds what else the law was made from.
    Schedules are equal when their `digest` is.
    """

    law: Law
    rate: float
    seconds: float
    seed: int
    offsets: Floats
    shape: Shape = Shape()

    def __post_init__(self) -> None:
        offsets = np.array(self.offsets, dtype=np.float64)
        offsets.flags.writeable = False
        object.__setattr__(self, "offsets", offsets)

    def __str__(self) -> str:
        return f"{self.law} {self.rate:g}/s for {self.seconds:g} s"

    def __len__(self) -> int:
        return len(self.offsets)

    @cached_property
    def digest(self) -> str:
        """``sha256:...`` of parameters and arrivals (little-endian bytes)."""
        state = hashlib.sha256(canonical(self.parameters))
        state.update(np.ascontiguousarray(self.offsets, dtype="<f8").tobytes())
        return "sha256:" + state.hexdigest()

    @property
    def parameters(self) -> dict[str, Any]:
        """Return the parameters of the schedule, as JSON values."""
        plain = {"law": self.law, "rate": float(self.rate), "seconds": float(self.seconds), "seed": int(self.seed)}
        return plain | ({"shape": self.shape.to_json()} if self.shape != Shape() else {})

    def to_json(self) -> dict[str, Any]:
        """Return the parameters with the digest over them and the arrivals."""
        return self.parameters | {"digest": self.digest}

    @property
    def peak_rate(self) -> float:
        """The highest rate that the law reaches: what a cap on rates has to look at."""
        return max((rate for _, rate in self.shape.profile or ()), default=self.rate)

    def expected(self, times: Floats) -> Floats:
        """Mean number of arrivals until each of the times: ``rate * t``, of a ramp the area under its profile.

        A Poisson process seen on this scale has unit rate, whatever its ramp: the time-rescaling theorem.
        """
        if self.law != "ramp" or self.shape.profile is None:
            return np.asarray(self.rate * times, dtype=np.float64)
        return _area(self.shape.profile, times)

    def share(self, worker: int, workers: int) -> Floats:
        """The arrivals that one of several load processes sends: every `workers`-th, starting with its own number.

        Together the shares are exactly the schedule, whatever the number of processes; independent streams of
        ``rate / workers`` would be equal in law, but not the same run again.

        Raises:
            ConfigError: there is no such worker.
        """
        if not 0 <= worker < workers:
            raise ConfigError(f"worker {worker} is out of range for {workers} workers")
        return self.offsets[worker::workers]

    def save(self, path: Path) -> None:
        """Write arrivals and parameters as one npz file."""
        with path.open("wb") as stream:
            np.savez(stream, offsets=self.offsets, parameters=np.frombuffer(canonical(self.parameters), np.uint8))

    @classmethod
    def read(cls, path: Path, *, next_step: str = "", **beside: Any) -> Self:
        """Read what `save` wrote.

        Raises:
            IntegrityError: the file is no schedule.
        """
        try:
            with (
                path.open("rb") as stream,
                np.load(stream, allow_pickle=False) as stored,
            ):  # it leaves a broken file open
                return cls.from_json(json.loads(stored["parameters"].tobytes()), offsets=stored["offsets"])
        except (OSError, EOFError, BadZipFile, ValueError, KeyError, TypeError, IntegrityError) as error:
            raise IntegrityError(
                f"not a valid schedule: {error}", where=str(path), next_step="create the schedule again"
            ) from error


def poisson(rate: float, seconds: float, seed: int) -> Schedule:
    """Arrivals of a Poisson process: independent exponential gaps of mean ``1 / rate``, as from many strangers.

    The same arguments give the same arrivals. Gaps are ``-ln(1 - u) / rate`` over the raw bits of PCG64, which numpy
    promises not to change, where its distributions may.

    Raises:
        ConfigError: a rate or length that is not positive, a negative seed, or too many arrivals.
    """
    expected = _checked(rate, seconds)
    offsets = _until(seconds, (-np.log1p(-u) / rate for u in _uniforms(seed, ceil(expected * 1.1) + 64)))
    return Schedule(law="poisson", rate=rate, seconds=seconds, seed=seed, offsets=offsets)


def constant(rate: float, seconds: float) -> Schedule:
    """Arrivals at equal distances, the first at 0. Kind to the server: real traffic comes in bunches.

    Raises:
        ConfigError: a rate or length that is not positive, or too many arrivals.
    """
    offsets = np.arange(ceil(_checked(rate, seconds))) / rate
    return Schedule(law="constant", rate=rate, seconds=seconds, seed=0, offsets=offsets[offsets < seconds])


def gamma(rate: float, seconds: float, seed: int, burstiness: float) -> Schedule:
    """Arrivals with independent gamma gaps of mean ``1 / rate`` and shape `burstiness`.

    1 is a Poisson process; below 1 arrivals come in bursts (the gaps' squared coefficient of variation is
    ``1 / burstiness``), above 1 they are evener. Generated by Marsaglia and Tsang's rejection (ACM TOMS 26, 2000) over
    raw bits of PCG64, for the same reason as `poisson`.

    Raises:
        ConfigError: as `poisson`, or a burstiness outside 0.01 to 1000.
    """
    expected = _checked(rate, seconds)
    if not 0.01 <= burstiness <= 1000:
        raise ConfigError(f"burstiness must lie between 0.01 and 1000 (1 = Poisson), got {burstiness}")
    blocks = _uniforms(seed, 4 * (ceil(expected * 1.2) + 64))
    scale = 1 / (burstiness * rate)
    offsets = _until(seconds, (_gammas(uniform.reshape(-1, 4), burstiness) * scale for uniform in blocks))
    shape = Shape(burstiness=float(burstiness))
    return Schedule(law="gamma", rate=rate, seconds=seconds, seed=seed, offsets=offsets, shape=shape)


def ramp(profile: Sequence[tuple[float, float]], seed: int) -> Schedule:
    """Poisson arrivals whose rate follows a profile of (second, rate) points, straight between them.

    ``[(0, 10), (60, 200)]`` climbs for a minute; two points at the same second are a step. A unit-rate Poisson process
    is mapped through the inverse of the profile's area, so no arrival is thrown away. `rate` is the mean.

    Raises:
        ConfigError: a profile that does not begin at 0 or goes back in time, a negative rate, an empty one, a negative
            seed, or too many arrivals.
    """
    points = [(float(second), float(rate)) for second, rate in profile]
    times, rates = np.array(points).T if points else (np.empty(0), np.empty(0))
    ordered = len(points) > 1 and times[0] == 0 and np.all(np.diff(times) >= 0)
    if not (ordered and np.all(np.isfinite(times)) and np.all(np.isfinite(rates)) and np.all(rates >= 0)):
        raise ConfigError(
            f"invalid profile of rates: {points}",
            next_step="give (second, rate) points from second 0, ordered by time, with rates of at least 0",
        )
    seconds, arrivals = float(times[-1]), float(_area(points, times[-1:])[0])
    _checked(arrivals / seconds if seconds else 0.0, seconds)
    unit = _until(arrivals, (-np.log1p(-uniform) for uniform in _uniforms(seed, ceil(arrivals * 1.1) + 64)))
    offsets = _area_inverse(points, unit)
    return Schedule(
        law="ramp",
        rate=arrivals / seconds,
        seconds=seconds,
        seed=seed,
        offsets=offsets[offsets < seconds],
        shape=Shape(profile=tuple(points)),
    )


def replay(
    times: Floats,
    *,
    seconds: float | None = None,
    speed: float = 1.0,
    source: str = "",
    spread: float = 0.0,
    seed: int = 0,
) -> Schedule:
    """Arrivals as they were recorded, at `times` (seconds from the start of the recording, in any order).

    `speed` 2 plays the recording in half its time, so at twice its rate; what lies after `seconds` is cut off.
    `source` names the recording, for instance by its digest (`bench.recording`). `spread` moves each arrival later by
    up to so many seconds, as chance falls. Arrivals that are all at one time make a schedule of one second.

    Raises:
        ConfigError: times that are negative, not finite, or too many; a speed or length that is not positive.
    """
    if not (isfinite(speed) and speed > 0):
        raise ConfigError(f"speed must be positive, got {speed}")
    if not (isfinite(spread) and spread >= 0):
        raise ConfigError(f"spread must be at least 0 seconds, got {spread}")
    given = np.asarray(times, dtype=np.float64)
    if spread and len(given):
        given = given + spread * next(_uniforms(seed, len(given)))
    played = np.sort(given) / speed
    if not len(played) or not np.all(np.isfinite(played)) or played[0] < 0:
        raise ConfigError("a recording needs at least one arrival, with times of at least 0 seconds")
    whole = float(np.nextafter(played[-1], np.inf)) if played[-1] > _INSTANT else 1.0
    length = whole if seconds is None else seconds
    kept = played[played < length]
    _checked(max(len(kept), 1) / length if length > 0 else 0.0, length)
    shape = Shape(source=source, speed=float(speed), spread=float(spread) if spread else None)
    return Schedule(law="replay", rate=len(kept) / length, seconds=length, seed=seed, offsets=kept, shape=shape)


def _uniforms(seed: int, count: int) -> Iterator[Floats]:
    """Blocks [count] of uniform numbers in [0, 1), 53 random bits each; the stream does not depend on the block's size.

    Raises:
        ConfigError: a negative seed.
    """
    if seed < 0:
        raise ConfigError(f"the seed must not be negative, got {seed}")
    bits = np.random.PCG64(seed)
    while True:
        yield (bits.random_raw(count) >> np.uint64(64 - _UNIFORM_BITS)) * 2.0**-_UNIFORM_BITS


def _until(end: float, gaps: Iterator[Floats]) -> Floats:
    """Gaps in seconds, summed up to the arrivals before `end`, [arrivals]."""
    parts: list[Floats] = []
    reached = 0.0
    while reached < end:
        parts.append(reached + np.cumsum(next(gaps)))
        reached = float(parts[-1][-1])
    offsets = np.concatenate(parts)
    kept: Floats = offsets[offsets < end]
    return kept


def _gammas(uniform: Floats, shape: float) -> Floats:
    """Gamma variates of scale 1 from rows of four uniforms; about one row in twenty gives none."""
    d = (shape if shape >= 1 else shape + 1) - 1 / 3
    normal = np.sqrt(-2 * np.log1p(-uniform[:, 0])) * np.cos(2 * np.pi * uniform[:, 1])
    cube = (1 + normal / np.sqrt(9 * d)) ** 3
    positive = cube > 0
    normal, cube, uniform = normal[positive], cube[positive], uniform[positive]
    taken = np.log1p(-uniform[:, 2]) < normal**2 / 2 + d * (1 - cube + np.log(cube))
    values = d * cube[taken]
    if shape >= 1:
        return np.asarray(values, dtype=np.float64)
    return np.asarray(values * (1 - uniform[taken, 3]) ** (1 / shape), dtype=np.float64)


def _area(profile: Sequence[Sequence[float]], times: Floats) -> Floats:
    """Area under a profile of rates (1/s) up to each of the times (s), [n]; beyond its end the last rate goes on."""
    ends, rates = np.array(profile, dtype=np.float64).T
    areas = np.concatenate([[0.0], np.cumsum(np.diff(ends) * (rates[1:] + rates[:-1]) / 2)])
    index = np.clip(np.searchsorted(ends, times, "right") - 1, 0, len(ends) - 1)
    slopes = np.append(np.diff(rates) / np.maximum(np.diff(ends), 1e-300), 0.0)
    past = times - ends[index]
    return np.asarray(areas[index] + past * (rates[index] + slopes[index] * past / 2), dtype=np.float64)


def _area_inverse(profile: Sequence[Sequence[float]], areas: Floats) -> Floats:
    """The times in seconds, [n], at which the area under the profile reaches these values, [n]."""
    ends, rates = np.array(profile, dtype=np.float64).T
    corners = np.concatenate([[0.0], np.cumsum(np.diff(ends) * (rates[1:] + rates[:-1]) / 2)])
    index = np.clip(np.searchsorted(corners, areas, "right") - 1, 0, len(ends) - 2)
    slope = np.diff(rates)[index] / np.maximum(np.diff(ends)[index], 1e-300)
    left = areas - corners[index]
    root = np.sqrt(np.maximum(rates[index] ** 2 + 2 * slope * left, 0.0))
    return np.asarray(ends[index] + 2 * left / np.maximum(rates[index] + root, 1e-300), dtype=np.float64)


def _checked(rate: float, seconds: float) -> float:
    """The expected number of arrivals."""
    if not (isfinite(rate) and isfinite(seconds) and rate > 0 and seconds > 0):
        raise ConfigError(f"rate and length must be positive, got {rate}/s for {seconds} s")
    if rate * seconds > MAX_ARRIVALS:
        raise ConfigError(
            f"{rate}/s for {seconds} s would be {rate * seconds:.3g} arrivals, the limit is {MAX_ARRIVALS}",
            next_step="shorten the run or lower the rate",
        )
    return rate * seconds
