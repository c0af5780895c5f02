"""Benefit of Triton's own response cache for a model, from the server's counters.

Pure: judges counters and changes nothing; the supervisor acts on it. The Python backend's cache judges itself.
"""

from dataclasses import dataclass, field, replace

from seatrial.bench.server_statistics import ModelStatistics

LEAST = 2000  # lookups before judging
_COUNTERS = (
    *("cache_hits", "cache_misses", "cache_hit_ns", "cache_miss_ns"),
    *("compute_input_ns", "compute_infer_ns", "compute_output_ns"),
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Worth:
    """Cost of lookups and savings of hits, in seconds; `pays` is None while there are too few lookups."""

    hits: int
    misses: int
    spent: float
    saved: float
    pays: bool | None

    def __str__(self) -> str:
        share = self.hits / (self.hits + self.misses)
        told = f"{share:.1%} of {self.hits + self.misses} lookups hit, {self.saved:.3g} s saved for {self.spent:.3g} s"
        if self.pays is None:
            return f"{told}; too few to judge"
        return f"{told}; it pays" if self.pays else f"{told}; it does not pay"


def response_cache_pays(statistics: ModelStatistics) -> Worth | None:
    """The cache's worth for one version; None where nothing was ever looked up.

    A hit saves what a computed request took on average in input, inference and output. Waiting in the queue is left
    out, since a shorter queue depends on the load; a cache that pays without it pays with it.
    """
    hits, misses = statistics.cache_hits, statistics.cache_misses
    if not hits + misses:
        return None
    spent = (statistics.cache_hit_ns + statistics.cache_miss_ns) / 1e9
    computing = statistics.compute_input_ns + statistics.compute_infer_ns + statistics.compute_output_ns
    saved = hits * computing / misses / 1e9 if misses else 0.0
    judged = misses > 0 and hits + misses >= LEAST
    return Worth(hits=hits, misses=misses, spent=spent, saved=saved, pays=saved >= spent if judged else None)


@dataclass(slots=True)
class Stretches:
    """A version's counters cut into stretches of `LEAST` lookups or more, so that what paid once is judged anew."""

    _begun: ModelStatistics | None = field(default=None)

    def judge(self, counted: ModelStatistics) -> Worth | None:
        """The worth of the stretch that ends now; None while it is too short to be judged."""
        begun = self._begun
        if begun is None or begun.cache_hits > counted.cache_hits or begun.cache_misses > counted.cache_misses:
            lately = counted  # seen for the first time, or loaded anew since
        else:
            lately = replace(counted, **{name: getattr(counted, name) - getattr(begun, name) for name in _COUNTERS})
        worth = response_cache_pays(lately)
        if worth is None or worth.pays is None:
            return None
        self._begun = counted
        return worth
