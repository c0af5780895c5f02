"""The TensorRT profile that fits a batch plan, and how many batches an engine's profiles would not take.

Reads an engine's own plan and builds nothing. The profile goes into the compile stage as it is:
``CompileConfig(kind="compile", batch=profile.range)``.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from seatrial.optimize.artifact import Artifact
from seatrial.optimize.errors import ConfigError
from seatrial.optimize.recipe.configs import Profile, Range
from seatrial.optimize.store import Store
from seatrial.optimize.tensorrt.plan import PLAN, EnginePlan

WARN = 0.01  # of all batches


@dataclass(frozen=True, slots=True, kw_only=True)
class BatchProfile:
    """The batch axis of a profile: TensorRT tunes for `opt` and takes everything from `low` to `high`."""

    low: int
    opt: int
    high: int

    def __post_init__(self) -> None:
        if not 1 <= self.low <= self.opt <= self.high:
            raise ConfigError(
                f"a profile needs 1 <= min <= opt <= max, got [{self.low}, {self.opt}, {self.high}]",
                next_step="order the sizes as min, opt, max, all at least 1",
            )

    @property
    def range(self) -> Range:
        """``[min, opt, max]`` as the compile stage takes it."""
        return (self.low, self.opt, self.high)


def profile_of(sizes: Mapping[int, float], largest: int) -> BatchProfile:
    """The profile for these executed sizes: tuned for the size in which most requests are answered."""
    weighed = {size: size * share for size, share in sizes.items() if size <= largest}
    opt = max(weighed, key=lambda size: (weighed[size], size)) if weighed else largest
    return BatchProfile(low=1, opt=opt, high=largest)


def batch_profiles(profiles: Iterable[Profile]) -> tuple[BatchProfile, ...]:
    """The batch axes of an engine's profiles; over its inputs the narrowest counts."""
    found = []
    for profile in profiles:
        shapes = list(profile.values())
        low, high = max(each.min[0] for each in shapes), min(each.max[0] for each in shapes)
        opt = min(max(min(each.opt[0] for each in shapes), low), high)
        found.append(BatchProfile(low=low, opt=opt, high=high))
    return tuple(found)


def engine_profiles(artifact: Artifact, store: Store) -> tuple[BatchProfile, ...]:
    """The batch axes of the profiles of a compiled artifact, from the plan that it was built by.

    Raises:
        ConfigError: the artifact is no engine.
        IntegrityError: its plan cannot be read.
    """
    if artifact.format != "tensorrt":
        raise ConfigError(
            f"{artifact.name} must be a TensorRT engine, got format {artifact.format}",
            where="--engine",
            next_step="name an artifact of a compile stage",
        )
    return batch_profiles(EnginePlan.read(store.path(artifact, PLAN)).profiles)


def missing(sizes: Mapping[int, float], profiles: Iterable[BatchProfile]) -> float:
    """The share of batches that lie in none of the profiles; the engine refuses those."""
    some = tuple(profiles)
    total = sum(sizes.values())
    outside = sum(share for size, share in sizes.items() if not any(p.low <= size <= p.high for p in some))
    return outside / total if total else 0.0


def warning(sizes: Mapping[int, float], profiles: Iterable[BatchProfile], most: float = WARN) -> str:
    """Return a warning if more than the fraction `most` of the batches miss every profile; empty otherwise."""
    some = tuple(profiles)
    share = missing(sizes, some)
    if share <= most:
        return ""
    spoken = ", ".join(str(list(profile.range)) for profile in some) or "none"
    return f"{share:.1%} of the batches miss the engine's profiles ({spoken}): compile it for this plan"
