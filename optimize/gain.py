"""Gain: whether a stage pays for itself on this machine, measured against its parent and remembered.

A stage pays if it makes the model faster beyond what the timing can tell, or smaller. Quality is not asked here: what a
build may lose of it is the floor's business. A stage that changes the format is needed, whatever it costs.
"""

from collections.abc import Callable
from dataclasses import asdict
from typing import Literal

from .artifact import Artifact, canonical, digest_bytes
from .config import typed
from .environment import environment
from .pace import Pace, pace
from .samples import Samples
from .sessions.session import Session, open_session
from .store import Store

Gain = Literal["pays", "no gain", "needed"]
BATCH = 32
SMALLER = 0.99  # a size below this share of the parent's is a gain; a byte less in the header is not


def judge(parent: Artifact, child: Artifact, against: Pace) -> Gain:
    """What a stage brought: it pays if the whole 95 % interval of the latency ratio is below 1, or the size shrank."""
    if parent.format != child.format:
        return "needed"
    faster, smaller = against.high < 1, child.size < SMALLER * parent.size
    return "pays" if faster or smaller else "no gain"


def pace_to(
    parent: Artifact,
    child: Artifact,
    store: Store,
    samples: Callable[[], Samples],
    digest: str,
    opened: Callable[[Artifact], Session] | None = None,
) -> Pace:
    """The child's time over the parent's, one thread, as this machine measured it once; `digest` is of the samples.

    Remembered, so that what a build decided by it and what the figures show is one measurement.

    Raises:
        ContractError: one of the two cannot run here.
    """
    if (known := recall(parent, child, store, digest)) is not None:
        return known
    opening = opened or (lambda artifact: open_session(artifact, store, threads=1))
    found = pace(opening(parent), opening(child), samples(), batch=BATCH)
    store.remember("pace", _key(parent, child, digest), asdict(found))
    return found


def recall(parent: Artifact, child: Artifact, store: Store, digest: str) -> Pace | None:
    """The pace that this machine measured before, or None."""
    return store.recall_as("pace", _key(parent, child, digest), lambda note: typed(note, Pace))


def _key(parent: Artifact, child: Artifact, digest: str) -> str:
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
        )
    )
