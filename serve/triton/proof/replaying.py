"""Golden replay of a version that already serves: its answers against the artifact's own, for a rollout's first look.

Asks one server and compares; places and loads nothing. A version whose artifact this process cannot run, or that
was placed without one, has nothing to be compared with, and the caller is told so.
"""

from seatrial.optimize.artifact import Artifact
from seatrial.optimize.errors import SeatrialError
from seatrial.optimize.store import Store

from ..control import Control
from ..engines import in_process, missing
from ..repository.placement import Placement
from ..server import Server
from ..supervision.probe import warm_shapes
from .golden import ANSWERING, GoldenReport, ServedModel, replay
from .placed import golden_samples


def reference(placement: Placement, store: Store) -> Artifact | None:
    """The artifact whose answers are right for that version; None where this process cannot compute them."""
    try:
        artifact = store.find(placement.digest)
    except SeatrialError:  # a store that cannot be read holds no reference
        return None
    here = not in_process(placement.engine) or missing(placement.engine) is None
    return artifact if artifact is not None and artifact.format in ANSWERING and here else None


def replayed(server: Server, placement: Placement, artifact: Artifact, store: Store) -> GoldenReport:
    """Golden samples (of the artifact's recipe, else seeded ones) at batch 1 and at the largest.

    Raises:
        ServerError: the server went away.
        IntegrityError: the store's bytes are damaged.
    """
    with Control.to(server) as control:
        config = control.config(placement.name, placement.version)
        largest = int(config.get("max_batch_size", 0))
        samples, _ = golden_samples(
            artifact, store, name=placement.name, batching=largest > 0, shapes=warm_shapes(config)
        )
        return replay(
            control,
            artifact,
            samples,
            store=store,
            model=ServedModel(
                name=placement.name,
                version=placement.version,
                max_batch_size=largest,
                engine=placement.engine,
            ),
        )
