"""Proof before placing: the very configuration is loaded in a throwaway server, and known inputs are answered.

Places nothing in a served repository: the copy, its server and its folder are gone when this returns. What cannot be
loaded on this machine is said to be unproven; it is never taken for proven.
"""

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any

from seatrial.bench.load.inputs import random_inputs
from seatrial.bench.targets import Endpoint
from seatrial.optimize import scratch
from seatrial.optimize.artifact import Artifact, TensorSpec
from seatrial.optimize.draft.finished import tried_on
from seatrial.optimize.environment import environment, home
from seatrial.optimize.errors import SeatrialError
from seatrial.optimize.recipe.configs import Profile
from seatrial.optimize.recipe.data import Data
from seatrial.optimize.recipe.recipe import Recipe
from seatrial.optimize.recipe.recorded import recorded_recipe
from seatrial.optimize.samples import Samples
from seatrial.optimize.store import Store

from ...deployment import Deployment, OnnxTensorrt, TensorrtPlan
from ...errors import ProofError, UnprovenError
from ..compiler.native import PLATFORMS
from ..control import Control
from ..repository.placing import place
from ..running import wheel
from ..running.on_pytriton import load, serving
from .golden import GoldenReport, ServedModel, replay

Progress = Callable[[str, float, str], None]
_RANDOM_ROWS, _SEED = 8, 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Proof:
    """Proof of a placed model: golden answers at batch 1, opt and max, after a load of `load_seconds`.

    `inputs` says where the samples came from.
    """

    report: GoldenReport
    inputs: str
    load_seconds: float

    def __str__(self) -> str:
        report = self.report  # its version is the throwaway repository's, not the one that is placed
        sizes = f"batch {list(report.batch_sizes)}" + "".join(f", {length}" for length in report.lengths)
        found = f"{report.requests} golden requests at {sizes} agree"
        return (
            f"{found} (largest difference {report.largest:.3g}), loaded in {self.load_seconds:.1f} s, "
            f"inputs: {self.inputs}"
        )

    def to_json(self) -> dict[str, Any]:
        """JSON values."""
        report = self.report
        return {
            "passed": report.passed,
            "batch_sizes": list(report.batch_sizes),
            "lengths": list(report.lengths),
            "requests": report.requests,
            "largest": report.largest,
            "inputs": self.inputs,
            "load_seconds": self.load_seconds,
        }


def prove(
    artifact: Artifact,
    deployment: Deployment,
    *,
    store: Store,
    recipe: Recipe | None = None,
    progress: Progress = lambda label, share, text: None,
) -> Proof:
    """Load the artifact under the deployment in a throwaway server, and compare its answers with its engine's here.

    Samples are the golden ones of `recipe`, else of the recipe that the store recorded for the artifact, else seeded
    random numbers.

    Raises:
        UnprovenError: this machine has no server that could load it.
        ModelLoadError: the server refused it; quotes the reason.
        ProofError: answers differ.
        ConfigRuleError, ContractError, IntegrityError: as `repository.place` raises them.
    """
    check_provable(deployment.name, _backend(artifact, deployment))
    if deployment.instances.kind == "gpu" and not environment().gpus:
        raise UnprovenError(
            ("cannot be proven here, because its instances need GPUs and this machine has none; nothing was placed"),
            where=deployment.name,
            next_step="place with --unproven and replay golden inputs on the target machine",
        )
    samples, source = _samples(artifact, deployment, store, recipe)
    with scratch.folder("proof", home() / "work") as folder:
        progress("proof", 0.1, "starting a throwaway server")
        placement = place(artifact, deployment, store=store, repository=folder / "models")
        with serving(folder / "models", foreign=()) as server:
            progress("proof", 0.4, "loading")
            begun = time.perf_counter()
            load(server, (deployment.name,))
            took = time.perf_counter() - begun
            progress("proof", 0.7, f"replaying {len(samples)} samples")
            with Control(server.url) as control:
                report = replay(
                    control,
                    artifact,
                    samples,
                    store=store,
                    model=ServedModel(
                        name=deployment.name,
                        version=placement.version,
                        max_batch_size=deployment.max_batch_size,
                        engine=placement.engine,
                    ),
                    threads=deployment.threads,
                    between=(optimal_batch(deployment),),
                )
                control.unload(deployment.name)
    if not report.passed:
        raise ProofError(
            f"not placed: its answers in a throwaway server differ from the artifact's: {report}",
            where=artifact.short,
            next_step="check the first sample named; if a batch fails where 1 passes, its rows are mixed up",
        )
    progress("proof", 1.0, "proven")
    return Proof(report=report, inputs=source, load_seconds=took)


def optimal_batch(deployment: Deployment) -> int:
    """The batch that is to run most: the engine's opt, else the largest preferred size, else half of the largest."""
    engine = deployment.engine
    profiles: tuple[Profile, ...] = ()
    if isinstance(engine, OnnxTensorrt):
        profiles = (engine.profile,)
    elif isinstance(engine, TensorrtPlan):
        profiles = engine.profiles
    opts = [shapes.opt[0] for profile in profiles for shapes in profile.values()]
    return max(opts or deployment.batching.preferred_sizes or (max(1, deployment.max_batch_size // 2),))


def check_provable(name: str, backend: str) -> None:
    """Refuse what no server of this machine can load.

    Raises:
        UnprovenError: there is no such backend.
    """
    if not (wheel.backends(wheel.installed(), home() / "triton") / backend).is_dir():
        raise UnprovenError(
            (
                f"cannot be proven here, because the server of this machine has no backend {backend!r}; "
                "nothing was placed"
            ),
            where=name,
            next_step=(
                'place with --unproven and replay golden inputs on the target machine, or use backend = "python"'
            ),
        )


def _backend(artifact: Artifact, deployment: Deployment) -> str:
    return "python" if deployment.backend == "python" else PLATFORMS.get(artifact.format, ("none", ""))[0]


def _samples(artifact: Artifact, deployment: Deployment, store: Store, recipe: Recipe | None) -> tuple[Samples, str]:
    shapes, batching = next(iter(deployment.warmup.every_bucket), {}), deployment.max_batch_size > 0
    return golden_samples(artifact, store, name=deployment.name, batching=batching, shapes=shapes, recipe=recipe)


def golden_samples(
    artifact: Artifact,
    store: Store,
    *,
    name: str,
    batching: bool,
    shapes: Mapping[str, tuple[int, ...]],
    recipe: Recipe | None = None,
) -> tuple[Samples, str]:
    """Golden samples where there are any, else random ones; and the words for which they are.

    `shapes` (without the batch axis) are the sizes that free axes of random inputs take.
    """
    if recipe is not None:
        return Data(recipe, store, environment()).samples("golden"), f"golden samples of recipe {recipe.name}"
    try:
        recorded = recorded_recipe(artifact, store)
        samples = Data(recorded, store, environment()).samples("golden")
    except SeatrialError as error:
        made = None if shapes else tried_on(artifact, _RANDOM_ROWS, _SEED)
        made = made or random_inputs(_asked(artifact, name, batching, shapes), _RANDOM_ROWS, _SEED)
        why = f"random, seed {_SEED}, because there are no golden samples: {error.what}"
        return Samples(split="golden", inputs=made, labels=None), why
    return samples, f"golden samples of recipe {recorded.name}"


def _asked(artifact: Artifact, name: str, batching: bool, shapes: Mapping[str, tuple[int, ...]]) -> Endpoint:
    """The artifact's tensors as something to make inputs for; free axes take the sizes that it is warmed up with."""

    def concrete(spec: TensorSpec) -> TensorSpec:
        if spec.name not in shapes:
            return spec
        return replace(spec, shape=(*(spec.shape[:1] if batching else ()), *shapes[spec.name]))

    inputs = tuple(concrete(spec) for spec in artifact.inputs)
    return Endpoint(url="", model=name, version="1", inputs=inputs, outputs=artifact.outputs)
