"""Configurations of all stages, with the facts that a build needs beforehand: formats, splits, libraries, machine.

Types only; how a stage does its work is the business of the module of the same name, which is imported when it runs.
Adding a stage is one dataclass in this room, its name in `StageConfig`, and one module with ``run``.

Every configuration carries, besides its fields: `takes` and `makes` (formats), `uses` (splits that the result depends
on), `libraries` whose change makes the result another, and `depends_on`: what of the machine, and of the recipe's
metric, does so too.
"""

from collections.abc import Mapping
from dataclasses import MISSING, fields

from .exporting import CastConfig, CompileConfig, ExportConfig, Profile, Range, Shapes
from .pruning import PruneConfig
from .quantizing import MixedConfig, Override, QuantizeConfig
from .teaching import Attention, DistillConfig, Features, QatConfig, Relations, Training
from .terms import CAST, ENGINE, EXACT, QUANTIZED, Positive, Rate, Share, Tolerance

__all__ = [
    "CAST",
    "ENGINE",
    "EXACT",
    "KINDS",
    "QUANTIZED",
    "Attention",
    "CastConfig",
    "CompileConfig",
    "DistillConfig",
    "ExportConfig",
    "Features",
    "MixedConfig",
    "Override",
    "Positive",
    "Profile",
    "PruneConfig",
    "QatConfig",
    "QuantizeConfig",
    "Range",
    "Rate",
    "Relations",
    "Shapes",
    "Share",
    "StageConfig",
    "Tolerance",
    "Training",
    "contract_of",
    "default_contract",
]

StageConfig = (
    DistillConfig | PruneConfig | ExportConfig | QuantizeConfig | MixedConfig | QatConfig | CastConfig | CompileConfig
)
KINDS: Mapping[str, type[StageConfig]] = {
    "distill": DistillConfig,
    "prune": PruneConfig,
    "export": ExportConfig,
    "quantize": QuantizeConfig,
    "mixed": MixedConfig,
    "qat": QatConfig,
    "compile": CompileConfig,
    "cast": CastConfig,
}


def contract_of(config: StageConfig) -> Mapping[str, Tolerance] | None:
    """The parity contract of a stage, its default for outputs that the recipe does not name; None where it has none."""
    stated: Mapping[str, Tolerance] | None = getattr(config, "parity", None)
    return None if stated is None else {**default_contract(config.kind), **stated}


def default_contract(kind: str) -> Mapping[str, Tolerance]:
    """The contract of a stage that states none; empty where rounding gives it (export), or where there is none."""
    for spot in fields(KINDS[kind]) if kind in KINDS else ():
        if spot.name == "parity" and spot.default_factory is not MISSING:
            return dict(spot.default_factory())
    return {}
