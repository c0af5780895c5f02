"""Kinds of stages: which configuration a kind has, which function runs it, and the registry of all.

Importing this imports no stage. A stage of this project is the module of its name in `stages`; one of another package
is an entry point of the group ``seatrial.stages``; one of the user's own is named in the recipe as ``file.py:name``.
"""

import importlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass, is_dataclass, replace
from pathlib import Path
from typing import Any

from ..config import ByKind
from ..errors import ConfigError
from ..import_closure import digest_of_file, digest_of_package, own_tree
from ..registry import Origin, Registry, described
from ..user_code import Reference
from .configs import StageConfig, Tolerance

GROUP = "seatrial.stages"
_CONFIGS = "seatrial.optimize.recipe.configs"
_FLOOR = "seatrial.optimize."
_DECLARED_BY = ("intake.axes", "intake.on_onnx")  # what writes the axes of any result


@dataclass(frozen=True, slots=True, kw_only=True)
class StageKind:
    """One kind of stage: the dataclass of its keys, and the function ``run(config, source, context) -> Made``.

    `stages.stage.stage` makes it of a function. `module` stands in for a function that is imported only when it runs.
    """

    config: type[StageConfig]
    function: Callable[..., Any] | None = None
    module: str = ""
    origin: Origin | None = None
    reference: Reference | None = None

    @property
    def outside(self) -> str:
        """Where the code of another package or of the user lies; empty for a stage of this project."""
        if self.reference is not None:
            return self.reference.text
        return str(self.origin) if self.origin is not None and self.origin.distribution else ""

    def __call__(self, config: StageConfig, source: Any, context: Any) -> Any:
        """Run it on the artifact `source`."""
        function = self.function
        if function is None:
            function = importlib.import_module(self.module).run
        return function(config, source, context)

    @property
    def code_digest(self) -> str:
        """Digest of the code that the result depends on, computed without importing the stage.

        Of a stage of this project: its module's imports, and theirs. Of another package: the same within that package,
        and its version. Of the user's file: its bytes. To both is added what they import of this floor.
        """
        common = ("stages.stage", *_DECLARED_BY)
        if self.reference is not None and self.reference.file is not None:
            return digest_of_file(self.reference.file, *common)
        if self.reference is not None:
            return digest_of_package(self.reference.module or "", *common) + self.reference.digest
        if self.origin is not None and self.origin.distribution:
            return digest_of_package(self.origin.module, *common) + self.origin.distribution
        return own_tree().digest(self.module.removeprefix(_FLOOR), *_DECLARED_BY)


def _form(origin: Origin, found: object) -> StageKind:
    """A stage as its entry gives it: of this project the configuration may stand for the module of the same name."""
    if not origin.distribution and isinstance(found, type) and issubclass(found, StageConfig):
        return StageKind(config=found, module=f"{_FLOOR}stages.{origin.name}", origin=origin)
    kind = checked(found)
    return replace(kind, module=origin.module, origin=origin)


def checked(found: object) -> StageKind:
    """Return the object where it is a stage.

    Raises:
        TypeError: it is something else, or its configuration is.
    """
    if not isinstance(found, StageKind):
        raise TypeError(f"it is {described(found)}, not a function under @stage(MyConfig)")
    owner = found.config
    if not (isinstance(owner, type) and issubclass(owner, StageConfig) and is_dataclass(owner)):
        raise TypeError(f"its configuration is {described(owner)}, not a frozen dataclass derived from StageConfig")
    if lacking := [name for name in ("takes", "makes") if not hasattr(owner, name)]:
        raise TypeError(f"its configuration {owner.__name__} does not state {' and '.join(lacking)}, the formats")
    return found


STAGES: Registry[StageKind] = Registry(
    "stage",
    GROUP,
    {
        "distill": f"{_CONFIGS}.teaching:DistillConfig",
        "prune": f"{_CONFIGS}.pruning:PruneConfig",
        "export": f"{_CONFIGS}.exporting:ExportConfig",
        "quantize": f"{_CONFIGS}.quantizing:QuantizeConfig",
        "mixed": f"{_CONFIGS}.quantizing:MixedConfig",
        "qat": f"{_CONFIGS}.teaching:QatConfig",
        "compile": f"{_CONFIGS}.exporting:CompileConfig",
        "cast": f"{_CONFIGS}.exporting:CastConfig",
        "cohorts": f"{_CONFIGS}.teaching:CohortsConfig",
        "ensemble": f"{_CONFIGS}.selecting:EnsembleConfig",
        "features": f"{_CONFIGS}.selecting:FeaturesConfig",
        "package": f"{_CONFIGS}.exporting:PackageConfig",
    },
    _form,
)


def kind_of(name: str, base: Path) -> StageKind:
    """Return the stage of a kind: a known name, or a reference ``file.py:name`` relative to `base`.

    Raises:
        ConfigError, MissingError, SourceError: there is no such stage, or it is not one; names the place.
    """
    if ":" not in name:
        return STAGES.get(name)
    reference = Reference.parse(name, base)
    try:
        return replace(checked(reference.load()), reference=reference)
    except TypeError as error:
        raise ConfigError(
            f"{reference.name} is no stage: {error}",
            where=name,
            next_step="write @stage(MyConfig) above a function run(config, source, context) -> Made",
        ) from error


def default_contract(kind: str) -> Mapping[str, Tolerance]:
    """The contract of stages of that kind that state none; empty where rounding gives it, or the kind is unknown."""
    return STAGES.get(kind).config.default_contract() if kind in STAGES else {}


def _config(kind: str, base: Path) -> type[StageConfig] | None:
    return kind_of(kind, base).config if ":" in kind or kind in STAGES else None


BY_KIND = ByKind(of=_config, known=lambda: STAGES.names)
