"""Caching of answers: what a deployment asks for, and whether Triton's own response cache would be safe for it.

Only says and checks; the Python backend's cache itself is `serve.triton.backend.python_cache`.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from seatrial.optimize.artifact import Artifact

from .errors import ConfigRuleError

_MEGABYTES = 1 << 20
_WEEK = 7 * 86_400


@dataclass(frozen=True, slots=True, kw_only=True)
class Cache:
    """Answers kept by each instance: at most so many `megabytes`, none older than `ttl_seconds`.

    It switches itself off where looking up costs more than hits save. Each version has its own, so a new version starts
    empty.

    Raises:
        ConfigRuleError: an invalid bound; names field, rule and fix.
    """

    megabytes: int = 64
    ttl_seconds: float = 300.0

    def __post_init__(self) -> None:
        if not 1 <= self.megabytes <= _MEGABYTES:
            raise ConfigRuleError(
                f"cache.megabytes must be between 1 and {_MEGABYTES}, got {self.megabytes}",
                where="cache.megabytes",
                next_step="give the size of one instance's cache; for no cache omit the table [cache]",
            )
        if not 0 < self.ttl_seconds <= _WEEK:
            raise ConfigRuleError(
                f"cache.ttl_seconds must be above 0 and at most {_WEEK} (a week), got {self.ttl_seconds}",
                where="cache.ttl_seconds",
                next_step="give the maximum age of a cached answer",
            )

    @property
    def parameters(self) -> dict[str, str]:
        """Return the parameters that model.py of backend "python" reads."""
        return {"cache_bytes": str(self.megabytes << 20), "cache_ttl_seconds": repr(float(self.ttl_seconds))}


def response_cache_risks(artifact: Artifact, *, batching: bool, stateful: bool = False) -> tuple[str, ...]:
    """Return the reasons why Triton's own response cache could return a wrong answer; empty if there are none.

    Triton's key is a 64-bit hash of model, version, input names and bytes. Shape, data type, parameters and the outputs
    asked for are not in it, so they must follow from the bytes. A version number that is never reused, which placing
    sees to, is the other half of safety: the cache outlives a reload.
    """
    shapes = {spec.name: list(spec.shape) for spec in artifact.inputs}
    risks = [
        f"input {name} has a variable shape, {shapes[name]}: equal bytes of two shapes would share an answer"
        for name in shapes_that_bytes_leave_open(shapes, batching=batching)
    ]
    if len(artifact.outputs) > 1:
        names = ", ".join(spec.name for spec in artifact.outputs)
        risks.append(f"requests that select different outputs of {names} would share an answer")
    if stateful:
        risks.append(
            "the answers of a stateful model depend on earlier requests; Triton refuses this combination as well"
        )
    return tuple(risks)


def shapes_that_bytes_leave_open(inputs: Mapping[str, Sequence[int | str]], *, batching: bool) -> tuple[str, ...]:
    """Return the inputs of which equal bytes can have several shapes.

    `inputs` are whole shapes; an axis of any length is a name or -1, and the first one is the batch where the model
    batches. The bytes give one free axis of each input. The batch is the same for every input, so it is known as soon
    as one input has no other free axis.
    """
    free = {name: sum(isinstance(size, str) or size < 0 for size in shape) for name, shape in inputs.items()}
    known = int(batching and 1 in free.values())
    return tuple(name for name, count in free.items() if count - known > 1)
