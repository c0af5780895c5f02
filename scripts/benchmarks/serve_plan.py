"""The batch plan and the search around it, held against a full grid, on the real Triton: a memory-bound model.

Every configuration is measured alike: a fresh server, the Python backend, one climb of Poisson load, the largest rate
up to which the objective held ("sustained"). The grid is visited once, in random order, and those that looked best are
measured again, which names the grid's best. That one and the search's winner are then measured side by side, pair after
pair in turning order, and only those pairs are compared: what looked best of thirty looked too good.
"""

import os
import random
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import product
from math import exp, log
from pathlib import Path

import numpy as np

from scripts.benchmarks.rows import Row, Rows, main
from seatrial.bench.capacity.slo import Slo
from seatrial.bench.stats import level
from seatrial.optimize.building.build import build
from seatrial.optimize.recipe.recipe import load_recipe
from seatrial.optimize.store import Store
from seatrial.serve.deployment import Deployment
from seatrial.serve.plan.choose import Model, choose
from seatrial.serve.plan.observe import Bench, observe
from seatrial.serve.plan.on_optuna import OptunaProposer
from seatrial.serve.plan.run import Climbing, climb_for
from seatrial.serve.plan.setting import Layout, Setting
from seatrial.serve.plan.tune import Tuned, tune

RECIPE = Path(__file__).with_name("model_memory_bound.toml")
OBJECTIVE = Slo(quantile=0.99, seconds=0.060)
LAYOUTS = (
    Layout(instances=1, threads=1),
    Layout(instances=1, threads=2),
    Layout(instances=2, threads=1),
)
BAR = 0.97


@dataclass(frozen=True, slots=True, kw_only=True)
class Effort:
    """Extent of the measurement: the grid's batches and delays, the curve's rounds, the largest number of pairs.

    So many `finalists` of the grid get `rounds` more climbs; `final` pairs are compared in the end.
    """

    batches: tuple[int, ...]
    delays: tuple[int, ...]
    curve_rounds: int
    trials: int
    pairs: int
    finalists: int
    rounds: int
    final: int
    climb_seconds: float

    @property
    def grid(self) -> tuple[Setting, ...]:
        """Every configuration."""
        some = product(self.batches, self.delays, LAYOUTS)
        return tuple(Setting(max_batch=batch, delay_us=delay, layout=layout) for batch, delay, layout in some)


FULL = Effort(
    batches=(2, 4, 8, 16, 32),
    delays=(0, 3000),
    curve_rounds=2,
    trials=6,
    pairs=2,
    finalists=3,
    rounds=2,
    final=6,
    climb_seconds=4.0,
)
QUICK = Effort(
    batches=(4, 32),
    delays=(0,),
    curve_rounds=1,
    trials=2,
    pairs=1,
    finalists=2,
    rounds=1,
    final=2,
    climb_seconds=3.0,
)


def plan_against_grid(folder: Path) -> Row:
    """The row: thirty configurations, at most six trials; about ten minutes."""
    return compare(folder, FULL, "batch-plan")


def quick_check(folder: Path) -> Row:
    """The same with six configurations and two trials, in about two minutes: that it works, not the claim."""
    return compare(folder, QUICK, "batch-plan-quick")


def compare(folder: Path, effort: Effort, name: str) -> Row:
    """Search, visit the grid, and measure winner and finalists side by side."""
    os.environ["SEATRIAL_HOME"] = str(folder / "home")
    bench = _bench(folder)
    curve = observe(bench, LAYOUTS, largest=max(effort.batches), rounds=effort.curve_rounds)
    model = Model.of(curve, OBJECTIVE)
    reached = model.best(effort.grid)[1]
    start = choose(model, reached / 2, effort.grid)
    climbing = Climbing(
        bench=bench,
        slo=OBJECTIVE,
        climb=climb_for(max(start.sustains, reached), effort.climb_seconds),
        folder=folder / "climbs",
    )
    predicted = model.bearing(effort.grid, start.sustains / 2) | {start.setting: start.sustains}
    tuned = tune(
        start.setting,
        predicted,
        climbing,
        OptunaProposer(start.setting, predicted),
        trials=effort.trials,
        pairs=effort.pairs,
        keep=lambda trial: None,
    )
    grid = {setting: [rate] for setting, rate in _visited(effort.grid, climbing).items()}
    finalists = sorted(grid, key=lambda setting: -grid[setting][0])[: effort.finalists]
    for setting, rates in _side_by_side(finalists, climbing, effort.rounds).items():
        grid[setting] += rates
    best = max(finalists, key=lambda setting: _mean(grid[setting]))
    final = _side_by_side([tuned.best, best], climbing, effort.final) if best != tuned.best else {}
    return _row(name, effort, tuned, best, grid, final, climbing.climb.low)


def _bench(folder: Path) -> Bench:
    store = Store(folder / "home" / "store")
    artifact = build(load_recipe(RECIPE), store).artifact
    inputs = np.random.default_rng(1).random((64, 256), dtype=np.float32)
    deployment = Deployment(schema=1, name="memory-bound", max_batch_size=32)
    return Bench(
        artifact=artifact,
        deployment=deployment,
        store=store,
        inputs=lambda endpoint: {endpoint.inputs[0].name: inputs},
        scratch=folder / "servers",
    )


def _visited(grid: Sequence[Setting], climbing: Climbing) -> dict[Setting, float]:
    order = list(grid)
    random.Random(1).shuffle(order)
    return {setting: climbing(setting) for setting in order}


def _side_by_side(finalists: Sequence[Setting], climbing: Climbing, rounds: int) -> dict[Setting, list[float]]:
    found: dict[Setting, list[float]] = {setting: [] for setting in finalists}
    for number in range(rounds):
        for setting in finalists[:: -1 if number % 2 else 1]:
            found[setting].append(climbing(setting))
    return found


def _row(
    name: str,
    effort: Effort,
    tuned: Tuned,
    best: Setting,
    grid: dict[Setting, list[float]],
    final: dict[Setting, list[float]],
    least: float,
) -> Row:
    ratio, said = 1.0, f"the tuned plan {_short(tuned.best)} is the grid's best"
    if final:
        logs = [log(mine / other) for mine, other in zip(final[tuned.best], final[best], strict=True)]
        bounds = level(logs, 0.0, alpha=0.05)
        ratio = exp(bounds.mean)
        said = f"{ratio:.3f} (90 % interval {exp(bounds.lower):.3f} to {exp(bounds.upper):.3f}) of the best: "
        said += f"{_short(tuned.best)} {_mean(final[tuned.best]):.0f}/s, {_short(best)} {_mean(final[best]):.0f}/s"
    tried = len(tuned.state.judged)
    said += f"; {tried} trials, {tuned.stopped}; the plan before them: {_short(tuned.start)}; grid, requests/s "
    said += "sustained (batch/delay us/instances x threads): "
    levels = [(_short(setting), _mean(rates)) for setting, rates in sorted(grid.items())]
    said += ", ".join(f"{spoken} {'<= ' if rate <= 1.001 * least else ''}{rate:.0f}" for spoken, rate in levels)
    return Row(
        name=name,
        claim=f"largest rate within {OBJECTIVE} (climbs of {effort.climb_seconds:g} s) of the tuned plan over that of "
        f"the best of {len(grid)} configurations, {effort.final} pairs side by side",
        value=said,
        bar=f">= {BAR} with <= {effort.trials} trials",
        met=ratio >= BAR and tried <= effort.trials,
    )


def _mean(rates: Sequence[float]) -> float:
    """Geometric: rates are compared by their ratio."""
    return exp(sum(log(rate) for rate in rates) / len(rates))


def _short(setting: Setting) -> str:
    return f"{setting.max_batch}/{setting.delay_us}/{setting.layout.instances}x{setting.layout.threads}"


ROWS: Rows = {"batch-plan": plan_against_grid, "batch-plan-quick": quick_check}

if __name__ == "__main__":
    sys.exit(main("Hold the batch plan and the search around it against a full grid, on the real Triton.", ROWS))
