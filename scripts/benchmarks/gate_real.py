"""Real gates of a five-millisecond model on this machine's Triton, for the benchmark's rows. Judges nothing itself."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from seatrial.bench.budget import Budget, load_budget
from seatrial.bench.gating.gate_setup import GateSetup
from seatrial.bench.targets import Host
from seatrial.optimize.artifact import Artifact
from seatrial.optimize.building.build import build
from seatrial.optimize.environment import environment
from seatrial.optimize.quality import metric
from seatrial.optimize.recipe.data import Data
from seatrial.optimize.recipe.recipe import load_recipe
from seatrial.optimize.store import Store
from seatrial.serve.deployment import Deployment
from seatrial.serve.triton.running.host import host

HERE = Path(__file__).parent
BUDGET = HERE / "gate_5ms.toml"
DEPLOYMENT = Deployment(schema=1, name="five-ms", max_batch_size=16)


@dataclass(frozen=True, slots=True, kw_only=True)
class Bench:
    """The built model, its budget, and what serves it."""

    artifact: Artifact
    budget: Budget
    store: Store
    folder: Path

    def means(self, name: str) -> GateSetup:
        """Return the setup of a trial; its runs go into a folder of that name."""
        recipe = load_recipe(HERE / "model_5ms.toml")
        return GateSetup(
            host=host(self.store, DEPLOYMENT, scratch=self.folder / "work"),
            samples=Data(recipe, self.store, environment()).samples("evaluation"),
            metric=metric(recipe),
            folder=self.folder / name,
            max_batch=DEPLOYMENT.max_batch_size,
        )

    def slowed(self, share: float) -> Host:
        """Servers in which every execution takes that share longer."""
        return host(self.store, DEPLOYMENT, scratch=self.folder / "work", slow=share)


@contextmanager
def bench(folder: Path) -> Iterator[Bench]:
    """Build the model in a home of its own."""
    before = os.environ.get("SEATRIAL_HOME")
    os.environ["SEATRIAL_HOME"] = str(folder / "home")
    try:
        store = Store(folder / "home" / "store")
        made = build(load_recipe(HERE / "model_5ms.toml"), store)
        yield Bench(artifact=made.artifact, budget=load_budget(BUDGET), store=store, folder=folder)
    finally:
        if before is None:
            del os.environ["SEATRIAL_HOME"]
        else:
            os.environ["SEATRIAL_HOME"] = before
