"""Real gates of a five-millisecond model on this machine's Triton, for the benchmark's rows. Judges nothing itself."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from bench.budget import Budget, load_budget
from bench.gating.trials import Means
from bench.targets import Host
from optimize.artifact import Artifact
from optimize.build import build
from optimize.data import Data
from optimize.environment import environment
from optimize.quality import metric
from optimize.recipe import load_recipe
from optimize.store import Store
from serve.deployment import Deployment
from serve.triton.running.host import host

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

    def means(self, name: str) -> Means:
        """What a trial needs; its runs go into a folder of that name."""
        recipe = load_recipe(HERE / "model_5ms.toml")
        return Means(
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
