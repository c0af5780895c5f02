"""From a trained model to a gated, observable Triton deployment: the verbs as functions, imported when first used.

``seatrial.build(seatrial.load_recipe(path), seatrial.Store(folder))`` is what ``seatrial build`` does. The floors are
`seatrial.optimize`, `seatrial.bench` and `seatrial.serve`.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:  # the same as _OFFERED, for type checkers
    from .bench.budget import load_budget as load_budget
    from .bench.capacity.run import capacity as capacity
    from .bench.gating.gate import gate as gate
    from .bench.gating.judge import judge as judge
    from .bench.gating.trials import aa as aa
    from .bench.gating.trials import drill as drill
    from .bench.load.on_locust import load as load
    from .bench.measuring.measure import measure_artifact as measure
    from .bench.quality.assess import assess as quality
    from .optimize.building.build import build as build
    from .optimize.building.build import plan as plan
    from .optimize.building.figures import figures as figures
    from .optimize.building.reproduce import reproduce as reproduce
    from .optimize.draft.draft import draft as init
    from .optimize.graphs.coverage import coverage as coverage
    from .optimize.parity.parity import compare as parity
    from .optimize.recipe.recipe import load_recipe as load_recipe
    from .optimize.search.explore import explore as search
    from .optimize.store import Store as Store
    from .serve.deployment import Deployment as Deployment
    from .serve.kubernetes.render import render as render
    from .serve.plan.run import run as tune
    from .serve.release.registry import Registry as Registry
    from .serve.ship import ship as ship
    from .serve.triton.lint import lint as lint
    from .serve.triton.repository.placing import place as place
    from .serve.triton.running.on_pytriton import down as down
    from .serve.triton.supervision.lasting import up as up
    from .serve.triton.supervision.supervisor import supervise as supervise
    from .serve.triton.supervision.switch import switch as switch

_OFFERED = {
    "Deployment": "serve.deployment:Deployment",
    "Registry": "serve.release.registry:Registry",
    "Store": "optimize.store:Store",
    "aa": "bench.gating.trials:aa",
    "build": "optimize.building.build:build",
    "capacity": "bench.capacity.run:capacity",
    "coverage": "optimize.graphs.coverage:coverage",
    "down": "serve.triton.running.on_pytriton:down",
    "drill": "bench.gating.trials:drill",
    "figures": "optimize.building.figures:figures",
    "gate": "bench.gating.gate:gate",
    "init": "optimize.draft.draft:draft",
    "judge": "bench.gating.judge:judge",
    "lint": "serve.triton.lint:lint",
    "load": "bench.load.on_locust:load",
    "load_budget": "bench.budget:load_budget",
    "load_recipe": "optimize.recipe.recipe:load_recipe",
    "measure": "bench.measuring.measure:measure_artifact",
    "parity": "optimize.parity.parity:compare",
    "place": "serve.triton.repository.placing:place",
    "plan": "optimize.building.build:plan",
    "quality": "bench.quality.assess:assess",
    "render": "serve.kubernetes.render:render",
    "reproduce": "optimize.building.reproduce:reproduce",
    "search": "optimize.search.explore:explore",
    "ship": "serve.ship:ship",
    "supervise": "serve.triton.supervision.supervisor:supervise",
    "switch": "serve.triton.supervision.switch:switch",
    "tune": "serve.plan.run:run",
    "up": "serve.triton.supervision.lasting:up",
}

__all__ = sorted([*_OFFERED, "__version__"])


def __getattr__(name: str) -> Any:
    """Import what is asked for: a function of the table above, or ``__version__`` (PEP 562)."""
    if name == "__version__":
        from importlib import metadata  # 40 ms, needless for anything else

        return metadata.version("seatrial")
    if name not in _OFFERED:
        raise AttributeError(f"module 'seatrial' has no attribute {name!r}")
    module, _, attribute = _OFFERED[name].partition(":")
    return getattr(import_module(f"seatrial.{module}"), attribute)


def __dir__() -> list[str]:
    """Return what the package offers."""
    return __all__
