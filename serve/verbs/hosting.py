"""Fresh servers for the verbs of bench that gate."""

from pathlib import Path

from seatrial.bench.targets import Host
from seatrial.optimize import config
from seatrial.optimize.errors import ConfigError
from seatrial.optimize.terminal import store

from ..deployment import LARGEST_BATCH, Deployment
from ..triton import engines
from ..triton.running.host import host


def hosting(
    deployment: Path | None, scratch: Path, slow: float = 0.0, engine: str = "", otherwise: str = ""
) -> tuple[Host, int | None]:
    """Return a host of fresh servers for the gate, by a deployment file or the default, and its largest batch.

    `slow` is the fraction by which they are slowed down, for a drill. `engine` serves in place of the deployment's,
    `otherwise` (the recipe's) where the deployment names none and a server runs it.
    """
    chosen = config.load(deployment, Deployment) if deployment is not None else None
    if slow and chosen is not None and chosen.backend != "python":
        raise ConfigError(
            'only backend = "python" can be slowed down',
            where=str(deployment),
            next_step='use a deployment with backend = "python"',
        )
    largest = LARGEST_BATCH if chosen is None else chosen.max_batch_size or None
    wanted = engine or engines.of_recipe(otherwise, chosen)
    return host(store(), chosen, scratch=scratch, slow=slow, engine=wanted), largest
