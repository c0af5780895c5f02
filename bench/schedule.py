"""When each request is due: seeded arrival schedules, fixed before a run and digested, so that two runs can share one.

Pure; sends nothing and reads no clock. An open-loop load offers exactly these arrivals however slow the server is.
"""

import hashlib
import json
from dataclasses import dataclass
from functools import cached_property
from math import ceil, isfinite
from pathlib import Path
from typing import Any, Literal
from zipfile import BadZipFile

import numpy as np
from numpy.typing import NDArray

from optimize.artifact import canonical
from optimize.errors import ConfigError, IntegrityError

Floats = NDArray[np.float64]
Law = Literal["poisson", "constant"]

MAX_ARRIVALS = 10_000_000  # 80 MB of float64; raw results are kept per arrival
_UNIFORM_BITS = 53


@dataclass(frozen=True, eq=False, kw_only=True)
class Schedule:
    """Arrivals at `offsets` seconds after the start: float64[n], sorted, within ``[0, seconds)``, read-only.

    `rate` is arrivals per second. Schedules are equal when their `digest` is.
    """

    law: Law
    rate: float
    seconds: float
    seed: int
    offsets: Floats

    def __post_init__(self) -> None:
        offsets = np.array(self.offsets, dtype=np.float64)
        offsets.flags.writeable = False
        object.__setattr__(self, "offsets", offsets)

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
        """What the schedule was made from, as JSON values."""
        return {"law": self.law, "rate": float(self.rate), "seconds": float(self.seconds), "seed": int(self.seed)}

    def share(self, worker: int, workers: int) -> Floats:
        """The arrivals that one of several load processes sends: every `workers`-th, starting with its own number.

        Together the shares are exactly the schedule, whatever the number of processes; independent streams of
        ``rate / workers`` would be equal in law, but not the same run again.

        Raises:
            ConfigError: there is no such worker.
        """
        if not 0 <= worker < workers:
            raise ConfigError(f"there is no worker {worker} of {workers}")
        return self.offsets[worker::workers]

    def save(self, path: Path) -> None:
        """Write arrivals and parameters as one npz file."""
        with path.open("wb") as stream:
            np.savez(stream, offsets=self.offsets, parameters=np.frombuffer(canonical(self.parameters), np.uint8))

    @classmethod
    def read(cls, path: Path) -> "Schedule":
        """Read what `save` wrote.

        Raises:
            IntegrityError: the file is no schedule.
        """
        try:
            with np.load(path, allow_pickle=False) as stored:
                return cls(offsets=stored["offsets"], **json.loads(stored["parameters"].tobytes()))
        except (OSError, EOFError, BadZipFile, ValueError, KeyError, TypeError) as error:
            raise IntegrityError(f"not a schedule: {error}", where=str(path), next_step="make it again") from error


def poisson(rate: float, seconds: float, seed: int) -> Schedule:
    """Arrivals of a Poisson process: independent exponential gaps of mean ``1 / rate``, as from many strangers.

    The same arguments give the same arrivals. Gaps are ``-ln(1 - u) / rate`` over the raw bits of PCG64, which numpy
    promises not to change, where its distributions may.

    Raises:
        ConfigError: a rate or length that is not positive, a negative seed, or too many arrivals.
    """
    expected = _checked(rate, seconds)
    if seed < 0:
        raise ConfigError(f"a seed may not be negative: {seed}")
    bits = np.random.PCG64(seed)
    parts: list[Floats] = []
    reached = 0.0
    while reached < seconds:
        uniform = (bits.random_raw(ceil(expected * 1.1) + 64) >> np.uint64(64 - _UNIFORM_BITS)) * 2.0**-_UNIFORM_BITS
        parts.append(reached + np.cumsum(-np.log1p(-uniform) / rate))
        reached = float(parts[-1][-1])
    offsets = np.concatenate(parts)
    return Schedule(law="poisson", rate=rate, seconds=seconds, seed=seed, offsets=offsets[offsets < seconds])


def constant(rate: float, seconds: float) -> Schedule:
    """Arrivals at equal distances, the first at 0. Kind to the server: real traffic comes in bunches.

    Raises:
        ConfigError: a rate or length that is not positive, or too many arrivals.
    """
    offsets = np.arange(ceil(_checked(rate, seconds))) / rate
    return Schedule(law="constant", rate=rate, seconds=seconds, seed=0, offsets=offsets[offsets < seconds])


def _checked(rate: float, seconds: float) -> float:
    """The expected number of arrivals."""
    if not (isfinite(rate) and isfinite(seconds) and rate > 0 and seconds > 0):
        raise ConfigError(f"a schedule needs a positive rate and length, not {rate}/s for {seconds} s")
    if rate * seconds > MAX_ARRIVALS:
        raise ConfigError(
            f"{rate}/s for {seconds} s would be {rate * seconds:.3g} arrivals, more than {MAX_ARRIVALS}",
            next_step="shorten the run or lower the rate",
        )
    return rate * seconds
