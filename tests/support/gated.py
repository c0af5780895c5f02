"""One real gate that passes, for every test that needs a whole run: the wide tiny model against the small int8 one."""

import shutil
from dataclasses import dataclass
from pathlib import Path

from seatrial.bench.budget import Budget, Design, Limit
from seatrial.bench.gating.gate import gate
from seatrial.bench.gating.gate_setup import GateSetup
from seatrial.bench.load_limits import LoadLimits
from seatrial.bench.targets import Host
from seatrial.bench.verdict import Verdict
from seatrial.optimize.artifact import Artifact
from seatrial.optimize.building.build import build
from seatrial.optimize.environment import environment
from seatrial.optimize.quality import metric
from seatrial.optimize.recipe.data import Data
from seatrial.optimize.recipe.recipe import load_recipe
from seatrial.optimize.store import Store
from seatrial.serve.deployment import Deployment
from seatrial.serve.triton.running import host as hosting
from tests.support.built import TINY, Built

DEPLOYMENT = Deployment(schema=1, name="tiny", max_batch_size=32)
LIMITS = (
    Limit(metric="quality", max_drop=0.02),
    Limit(metric="p50", max_regression=0.10),
    # Told, not judged here: a second of load on a machine that others use decides nothing about tails and saturation.
    Limit(metric="p99", max_regression=0.10, gating=False),
    Limit(metric="throughput", max_regression=0.10, gating=False),
    Limit(metric="cost", max_regression=0.10, gating=False),
    Limit(metric="peak_memory", max_regression=0.10, floor=float(32 << 20)),
    Limit(metric="file_size", max_regression=0.0),
    Limit(metric="errors", at_most=0.0),
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Gated:
    """The run's folder, its verdict, both arms, and the scratch folder that the servers had."""

    run: Path
    verdict: Verdict
    heavy: Artifact
    light: Artifact
    scratch: Path


def budget() -> Budget:
    """A short run; the client's lag is not what these tests are about, and the machine may be busy."""
    design = Design(pairs=4, rate=80.0, seconds=1.5, saturation_seconds=0.5, seed=5)
    return Budget(design=design, limits=LIMITS, load=LoadLimits(lag=0.1, client_cpu=1.0, arrival_p=0.0, offered=0.5))


def judged(tiny: Built, base: Artifact, candidate: Artifact, folder: Path, *, host: Host) -> Verdict:
    """Gate two artifacts of the tiny model."""
    recipe = load_recipe(TINY)
    samples = Data(recipe, tiny.store, environment()).samples("evaluation")
    return gate(base, candidate, budget(), GateSetup(host=host, samples=samples, metric=metric(recipe), folder=folder))


def wide_against_tiny(tiny: Built, folder: Path) -> Gated:
    """Build the wide model and gate the small one against it, in a copy of the session's store."""
    shutil.copytree(tiny.home / "store", folder / "copy" / "store")
    store = Store(folder / "copy" / "store")
    text = TINY.read_text().replace("tiny.py:teacher", "tiny.py:wide").split("[[stages]]")[0]
    shutil.copy(TINY.parent / "tiny.py", folder)
    (folder / "wide.toml").write_text(text.replace('"tiny"', '"wide"') + '[[stages]]\nkind = "export"\n')
    heavy, light = build(load_recipe(folder / "wide.toml"), store).artifact, tiny.build.artifact
    host = hosting.host(store, DEPLOYMENT, scratch=folder / "w")
    verdict = judged(tiny, heavy, light, folder / "run", host=host)
    return Gated(run=folder / "run", verdict=verdict, heavy=heavy, light=light, scratch=folder / "w")
