"""Configurations of all stages, with the facts that a build needs beforehand: formats, splits, libraries, machine.

Types only; how a stage does its work is the business of its function, which is imported when it runs (`recipe.kinds`).
"""

from .exporting import CastConfig, CompileConfig, ExportConfig, PackageConfig, Range
from .pruning import PruneConfig
from .quantizing import MixedConfig, Override, QuantizeConfig
from .selecting import EnsembleConfig, FeaturesConfig
from .teaching import Attention, CohortsConfig, DistillConfig, Features, QatConfig, Relations, Training
from .terms import (
    CAST,
    ENGINE,
    EXACT,
    QUANTIZED,
    Positive,
    Profile,
    Rate,
    Shapes,
    Share,
    StageConfig,
    Tolerance,
)

__all__ = [
    "CAST",
    "ENGINE",
    "EXACT",
    "QUANTIZED",
    "Attention",
    "CastConfig",
    "CohortsConfig",
    "CompileConfig",
    "DistillConfig",
    "EnsembleConfig",
    "ExportConfig",
    "Features",
    "FeaturesConfig",
    "MixedConfig",
    "Override",
    "PackageConfig",
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
]
