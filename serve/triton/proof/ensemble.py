"""Proof of an ensemble: in a throwaway server it must answer as its steps do when they are asked one by one.

Places nothing in a served repository. Whether a step is right by itself was proven when it was placed.
"""

import shutil
import time
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from seatrial.bench.load.inputs import random_inputs
from seatrial.bench.targets import Endpoint
from seatrial.optimize import scratch
from seatrial.optimize.artifact import TensorSpec
from seatrial.optimize.environment import home
from seatrial.optimize.samples import Array, Samples
from seatrial.optimize.store import Store

from ...deployment.ensemble import Ensemble, Port
from ...errors import ProofError
from ..compiler.ensembles import members
from ..control import Control
from ..lint.backends import backend_of
from ..repository.placing import place_ensemble
from ..repository.vouching import check
from ..running.on_pytriton import load, serving
from .golden import GoldenReport, compare, gathered
from .placed import Proof, check_provable

_ROWS, _SEED = 8, 0


def prove_ensemble(ensemble: Ensemble, *, repository: Path, foreign: Collection[str] = ()) -> Proof:
    """Load a copy of the ensemble and of its models, and compare it at batch 1 and the largest on seeded random inputs.

    `foreign` names models that seatrial did not place and that the caller vouches for (`vouching.check`).

    Raises:
        IntegrityError, ConfigError: a model is not what was placed.
        UnprovenError: this machine has no server that could load one of the models.
        ModelLoadError: the server refused one; quotes the reason.
        ProofError: answers differ.
        ConfigRuleError, PlacementError: as `repository.place_ensemble` raises them.
    """
    models, _ = members(ensemble, repository)
    for name, config in models.items():
        if backend_of(config):
            check_provable(name, backend_of(config))
    store = Store(home() / "store")
    check(repository, tuple(models), store, foreign=foreign)
    with scratch.folder("proof", home() / "work") as folder:
        for name in models:
            shutil.copytree(repository / name, folder / "models" / name, symlinks=True)
        placement = place_ensemble(ensemble, repository=folder / "models")
        check(folder / "models", (ensemble.name,), store, foreign=foreign)
        with serving(folder / "models") as server:
            load(server, tuple(models))
            begun = time.perf_counter()
            load(server, (ensemble.name,))
            took = time.perf_counter() - begun
            with Control(server.url) as control:
                report = _replay(control, ensemble, str(placement.version), models)
                for name in (ensemble.name, *models):
                    control.unload(name)
    if not report.passed:
        raise ProofError(
            f"not placed: the ensemble's answers differ from its steps run one by one: {report}",
            where=ensemble.name,
            next_step="check the maps of the step whose output is named",
        )
    return Proof(report=report, inputs=f"random, seed {_SEED}, compared with the steps one by one", load_seconds=took)


def _replay(control: Control, ensemble: Ensemble, version: str, models: Mapping[str, Any]) -> GoldenReport:
    batching = ensemble.max_batch_size > 0
    inputs = tuple(_spec(port, batching) for port in ensemble.inputs)
    outputs = tuple(_spec(port, batching) for port in ensemble.outputs)
    asked = Endpoint(url=control.url, model=ensemble.name, version=version, inputs=inputs, outputs=outputs)
    samples = Samples(split="golden", inputs=random_inputs(asked, _ROWS, _SEED), labels=None)

    def whole(request: Mapping[str, Array]) -> Mapping[str, Array]:
        return control.infer(ensemble.name, version, request)

    def one_by_one(request: Mapping[str, Array]) -> Mapping[str, Array]:
        tensors, left = dict(request), list(ensemble.steps)
        while left:  # the rules have excluded circles, so one step can always run
            step = next(each for each in left if set(each.inputs.values()) <= set(tensors))
            left.remove(step)
            config = models[step.model]
            dims = {each.name: list(each.dims) for each in config.input}
            taken = {
                own: _as_taken(tensors[name], dims[own], batching=config.max_batch_size > 0)
                for own, name in step.inputs.items()
            }
            answer = control.infer(step.model, step.version, taken)
            tensors |= {name: answer[own] for own, name in step.outputs.items()}
        return {
            port.name: _as_taken(tensors[port.name], list(port.shape), batching=batching) for port in ensemble.outputs
        }

    sizes = tuple(sorted({1, max(1, ensemble.max_batch_size)}))
    return gathered(ensemble.name, version, sizes, lambda batch: compare(whole, one_by_one, samples, inputs, batch))


def _as_taken(array: Array, dims: Sequence[int], *, batching: bool) -> Array:
    """Return a tensor as the ensemble hands it on, between models of which one batches and the other does not.

    A batch axis of one is added or dropped where the dims fit only so.
    """
    alone = _fits(array.shape, dims)
    if batching:
        return array[np.newaxis] if alone else array
    return array[0] if not alone and len(array.shape) > 0 and array.shape[0] == 1 else array


def _fits(shape: Sequence[int], dims: Sequence[int]) -> bool:
    return len(shape) == len(dims) and all(own in (-1, size) for own, size in zip(dims, shape, strict=True))


def _spec(port: Port, batching: bool) -> TensorSpec:
    own = tuple("free" if size == -1 else size for size in port.shape)
    return TensorSpec(name=port.name, dtype=port.dtype, shape=("batch", *own) if batching else own)
