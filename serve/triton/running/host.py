"""A fresh server for one artifact, as the gate wants it: placed, started, proven to load, and gone afterwards.

Joins placing and starting; measures only what nobody else can see: how long loading took, and what the server without a
model takes of each GPU. Each artifact gets a repository and a server of its own, so that no arm of a comparison
inherits the other's warm memory.
"""

import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import replace
from pathlib import Path

from bench.measuring.device import baseline
from bench.targets import Endpoint
from optimize.artifact import Artifact, TensorSpec
from optimize.scratch import folder as scratched
from optimize.store import Store

from ...deployment import Deployment
from ..repository.placing import place
from ..repository.slowed import slow_down
from ..repository.vouching import check
from .on_pytriton import load, serving


def host(
    store: Store, deployment: Deployment, *, scratch: Path, slow: float = 0.0
) -> Callable[[Artifact], AbstractContextManager[Endpoint]]:
    """A function from an artifact to a served endpoint, for the length of a block.

    It is for measuring, so answers are computed and none is remembered: a load repeats its samples.

    `slow` lets every execution take that share longer: a drill's candidate.

    Raises (when the block is entered): whatever placing or starting raises; nothing is left behind then.
    """

    deployment = replace(deployment, cache=None, response_cache=None)

    @contextmanager
    def hosted(artifact: Artifact) -> Iterator[Endpoint]:
        with scratched("host", scratch) as folder:
            placement = place(artifact, deployment, store=store, repository=folder / "models")
            with serving(folder / "models") as server:
                check(folder / "models", (deployment.name,), store)
                if slow:
                    slow_down(placement.path, slow)
                empty, begun = baseline(), time.perf_counter()
                load(server, (deployment.name,))
                took = time.perf_counter() - begun
                yield Endpoint(
                    url=server.url,
                    grpc_url=server.grpc_url,
                    model=deployment.name,
                    version=str(placement.version),
                    inputs=_outside(artifact.inputs, deployment),
                    outputs=_outside(artifact.outputs, deployment),
                    pids=(server.pid,),
                    metrics_url=server.metrics_url,
                    load_seconds=took,
                    device_baseline=empty,
                )

    return hosted


def _outside(specs: tuple[TensorSpec, ...], deployment: Deployment) -> tuple[TensorSpec, ...]:
    """Tensors as clients see them: Triton shows a per-item scalar of a batching model as an axis of one."""
    batching = deployment.max_batch_size > 0
    return tuple(replace(spec, shape=(*spec.shape, 1)) if batching and len(spec.shape) == 1 else spec for spec in specs)
