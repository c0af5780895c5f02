"""Gain: whether a stage pays for itself on this machine, measured against its parent and remembered.

Latency, size and memory are judged separately: a stage that makes the model slower beyond the timing noise is called
slower first, however small it became. Otherwise it pays if it is better in one of them. Quality is not judged here; the
recipe's floor limits its loss. A stage that changes the format is always needed.
"""

from collections.abc import Callable, Mapping
from typing import Literal

from ..artifact import Artifact, canonical, digest_bytes
from ..environment import environment
from ..reading import decode
from ..recipe.recipe import Fate, OnNoGain, Resource
from ..record import as_json
from ..samples import Samples
from ..sessions.choice import OWN, EngineChoice
from ..sessions.session import Session, open_session
from ..store import Store
from ..timing import memory as peak
from ..timing.memory import Memory, memory_of
from ..timing.pace import LatencyRatio, pace

Gain = Literal["pays", "slower", "no gain", "needed"]
Change = Literal["better", "same", "worse"]
BATCH = 32
SMALLER = 0.99  # a size below this share of the parent's is a gain; a few bytes less in a header are not
SLOWER = 1.02
"""Ratio of latencies that the interval's lower end must exceed for a stage to be slower. Chosen, so that a stage
that changes nothing is not called slower for the noise of a shared machine.
"""


def rule(given: Fate | OnNoGain) -> OnNoGain:
    """Return the policy that a recipe's value stands for: ``drop`` leaves out a stage that is slower or improves
    nothing.
    """
    return given if isinstance(given, OnNoGain) else OnNoGain(latency=given)


def changes(
    parent: Artifact, child: Artifact, against: LatencyRatio, memory: tuple[Memory | None, Memory | None] = (None, None)
) -> dict[Resource, Change]:
    """Return the measured change of each resource by a stage; memory only where both were measured."""
    size = child.size / parent.size if parent.size else 1.0
    found: dict[Resource, Change] = {
        "latency": _change(against.high < 1, against.low > SLOWER),
        "size": _change(size < SMALLER, size > 1 / SMALLER),
    }
    before, after = memory
    if before is not None and after is not None:
        found["memory"] = _change(after.high < SMALLER * before.low, after.low > before.high / SMALLER)
    return found


def judge(
    parent: Artifact, child: Artifact, against: LatencyRatio, memory: tuple[Memory | None, Memory | None] = (None, None)
) -> Gain:
    """Judge the gain of a stage: slower where the whole 95 % interval of the latency ratio lies above the limit."""
    if parent.format != child.format:
        return "needed"
    found = changes(parent, child, against, memory)
    if found["latency"] == "worse":
        return "slower"
    return "pays" if "better" in found.values() else "no gain"


def dropped(found: Mapping[Resource, Change], on_no_gain: OnNoGain) -> bool:
    """Return whether a stage with these changes is left out."""
    counted = on_no_gain.counted
    if not counted:
        return False
    return any(found.get(name) == "worse" for name in counted) or "better" not in found.values()


def memories(
    parent: Artifact,
    child: Artifact,
    store: Store,
    samples: Callable[[], Samples],
    digest: str,
    choice: EngineChoice = OWN,
) -> tuple[Memory | None, Memory | None]:
    """Peak memory of both as this machine measured it once; None where it is unknown."""
    one, other = (memory_of(each, store, samples, digest, batch=BATCH, choice=choice) for each in (parent, child))
    return one, other


def recall_memories(
    parent: Artifact, child: Artifact, store: Store, digest: str, choice: EngineChoice = OWN
) -> tuple[Memory | None, Memory | None]:
    """Return stored results of `memories` only."""
    one, other = (peak.recall(each, store, digest, batch=BATCH, choice=choice) for each in (parent, child))
    return one, other


def _change(better: bool, worse: bool) -> Change:
    return "better" if better else "worse" if worse else "same"


def pace_to(
    parent: Artifact,
    child: Artifact,
    store: Store,
    samples: Callable[[], Samples],
    digest: str,
    opened: Callable[[Artifact], Session] | None = None,
    choice: EngineChoice = OWN,
) -> LatencyRatio:
    """The child's time over the parent's, one thread, as this machine measured it once; `digest` is of the samples.

    Remembered, so that what a build decided by it and what the figures show is one measurement.

    Raises:
        ContractError: one of the two cannot run here.
    """
    if (known := recall(parent, child, store, digest, choice)) is not None:
        return known
    opening = opened or (lambda artifact: open_session(artifact, store, threads=1, choice=choice))
    found = pace(opening(parent), opening(child), samples(), batch=BATCH)
    store.remember("pace", _key(parent, child, digest, choice), as_json(found))
    return found


def recall(
    parent: Artifact, child: Artifact, store: Store, digest: str, choice: EngineChoice = OWN
) -> LatencyRatio | None:
    """Return the latency ratio that this machine measured before, or None."""
    key = _key(parent, child, digest, choice)
    return store.recall_as("pace", key, lambda note: decode(LatencyRatio, note, where=""))


def _key(parent: Artifact, child: Artifact, digest: str, choice: EngineChoice = OWN) -> str:
    return digest_bytes(
        canonical(
            {
                "schema": 1,
                "parent": parent.digest,
                "child": child.digest,
                "samples": digest,
                "batch": BATCH,
                "machine": environment().fingerprint,
            }
            | choice.key(parent.format, child.format)
        )
    )
