"""A fresh server for one artifact, as the gate wants it: placed, started, proven to load, and gone afterwards.

Joins placing and starting; measures only what is visible here: how long loading took, and what the server without a
model takes of each GPU. Each artifact gets a repository and a server of its own, so that no arm of a comparison
inherits the other's warm memory.
"""

import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import replace
from pathlib import Path

from seatrial.bench.measuring.device import baseline
from seatrial.bench.targets import Endpoint
from seatrial.optimize.artifact import Artifact, TensorSpec
from seatrial.optimize.errors import ContractError
from seatrial.optimize.scratch import folder as scratched
from seatrial.optimize.sessions.cuda import driver_missing
from seatrial.optimize.sessions.device import Device
from seatrial.optimize.store import Store

from ...deployment import Deployment, default_deployment
from .. import engines
from ..repository.placing import place
from ..repository.slowed import slow_down
from ..repository.vouching import check
from .on_pytriton import load, serving


def host(
    store: Store,
    deployment: Deployment | None,
    *,
    scratch: Path,
    slow: float = 0.0,
    engine: str = "",
) -> Callable[[Artifact], AbstractContextManager[Endpoint]]:
    """A function from an artifact to a served endpoint, for the length of a block; None is the default deployment.

    It is for measuring, so answers are computed and none is remembered: a load repeats its samples.

    `slow` lets every execution take that share longer: a drill's candidate. `engine` serves artifacts that it opens in
    another engine than the deployment's, by the name that recipes use.

    Raises:
        ContractError: the deployment is for a GPU, and this machine lacks a driver or a device.
        ConfigError: no server runs an engine of that name.

    Raises (when the block is entered): whatever placing or starting raises; nothing is left behind then.
    """
    if deployment is not None:
        check_machine(deployment)
    if engine:
        engines.named(engine)

    @contextmanager
    def hosted(artifact: Artifact) -> Iterator[Endpoint]:
        chosen = default_deployment(artifact, "candidate") if deployment is None else deployment
        chosen = replace(chosen, cache=None, response_cache=None)
        chosen = engines.deployed_in(chosen, artifact, engine) if engine else chosen
        with scratched("host", scratch) as folder:
            placement = place(artifact, chosen, store=store, repository=folder / "models")
            with serving(folder / "models") as server:
                check(folder / "models", (chosen.name,), store)
                if slow:
                    slow_down(placement.path, slow)
                empty, begun = baseline(), time.perf_counter()
                load(server, (chosen.name,))
                took = time.perf_counter() - begun
                yield Endpoint(
                    url=server.url,
                    grpc_url=server.grpc_url,
                    model=chosen.name,
                    version=str(placement.version),
                    inputs=_outside(artifact.inputs, chosen),
                    outputs=_outside(artifact.outputs, chosen),
                    pids=(server.pid,),
                    metrics_url=server.metrics_url,
                    load_seconds=took,
                    device_baseline=empty,
                    engine=engines.shown(placement.engine) if chosen.backend == "python" else chosen.backend,
                )

    return hosted


def check_machine(deployment: Deployment) -> None:
    """Check that this machine has the kind of device that the deployment's instances run on.

    Raises:
        ContractError: a driver or a GPU is missing; says which.
    """
    lacking = driver_missing(Device(kind="cuda")) if deployment.instances.kind == "gpu" else None
    if lacking is not None:
        raise ContractError(
            lacking.what,
            where='instances.kind = "gpu"',
            next_step=f'{lacking.next_step}; for the processor, write kind = "cpu" in the deployment',
        )


def _outside(specs: tuple[TensorSpec, ...], deployment: Deployment) -> tuple[TensorSpec, ...]:
    """Tensors as clients see them: Triton shows a scalar (of an item, where the model batches) as an axis of one."""
    scalar = 1 if deployment.max_batch_size > 0 else 0
    return tuple(replace(spec, shape=(*spec.shape, 1)) if len(spec.shape) == scalar else spec for spec in specs)
