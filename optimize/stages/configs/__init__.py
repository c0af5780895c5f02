"""What each stage can be told, and what the build must know of it before it runs: formats, splits, code, libraries.

Types only; how a stage does its work is the business of the module of the same name, which is imported when it runs.
Adding a stage is one dataclass in this room, its name in `StageConfig`, and one module with ``run``.

Every configuration carries, besides its fields: `takes` and `makes` (formats), `uses` (splits that the result depends
on), `code` (files, relative to the stages' folder) and `libraries` whose change makes the result another.
"""

from collections.abc import Mapping

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
