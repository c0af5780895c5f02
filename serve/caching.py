"""Caching of answers: what a deployment asks for, and whether Triton's own response cache would be safe for it.

Only says and checks; the python flavour's cache itself is `serve.triton.flavour.python_cache`.
"""

from dataclasses import dataclass

from optimize.artifact import Artifact

from .errors import ConfigRuleError

_MEGABYTES = 1 << 20
_WEEK = 7 * 86_400


@dataclass(frozen=True, slots=True, kw_only=True)
class Cache:
    """Answers kept by each instance: at most so many `megabytes`, none older than `ttl_seconds`.

    It switches itself off where looking up costs more than hits save. Each version has its own, so a new version starts
    empty.

    Raises:
        ConfigRuleError: a bound that bounds nothing; names field, rule and mend.
    """

    megabytes: int = 64
    ttl_seconds: float = 300.0

    def __post_init__(self) -> None:
        if not 1 <= self.megabytes <= _MEGABYTES:
            raise ConfigRuleError(
                f"cache.megabytes: {self.megabytes} is not from 1 to {_MEGABYTES}",
                where="cache.megabytes",
                next_step="write what one instance may keep; for no cache leave the table [cache] out",
            )
        if not 0 < self.ttl_seconds <= _WEEK:
            raise ConfigRuleError(
                f"cache.ttl_seconds: {self.ttl_seconds} is not above 0 and at most {_WEEK} (a week)",
                where="cache.ttl_seconds",
                next_step="write how old an answer may be",
            )

    @property
    def parameters(self) -> dict[str, str]:
        """What the python flavour's model.py reads of it."""
        return {"cache_bytes": str(self.megabytes << 20), "cache_ttl_seconds": repr(float(self.ttl_seconds))}


def response_cache_risks(artifact: Artifact, *, batching: bool, stateful: bool = False) -> tuple[str, ...]:
    """Why Triton's own response cache could give a request another's answer; empty where it cannot.

    Triton's key is a 64-bit hash of model, version, input names and bytes. Shape, data type, parameters and the outputs
    asked for are not in it, so they must follow from the bytes. A version number that is never reused, which placing
    sees to, is the other half of safety: the cache outlives a reload.
    """
    risks = []
    for spec in artifact.inputs:
        item = spec.shape[1:] if batching else spec.shape
        if any(isinstance(size, str) for size in item):
            risks.append(
                f"input {spec.name} has a shape that varies, {list(spec.shape)}: equal bytes of two shapes would share "
                "an answer"
            )
    if len(artifact.outputs) > 1:
        names = ", ".join(spec.name for spec in artifact.outputs)
        risks.append(f"a request may ask for some of the outputs {names}, and would get those that another asked for")
    if stateful:
        risks.append("answers of a stateful model depend on the requests before; Triton refuses it as well")
    return tuple(risks)
