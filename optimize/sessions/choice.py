"""The engine and device that a caller asks for, over the formats of one build: for those that the engine opens.

A recipe's artifacts are torch modules, ONNX files and TensorRT engines; no engine opens all. What it does not open runs
in its format's own engine, and every figure says which one it was.
"""

from collections.abc import Collection
from dataclasses import dataclass
from typing import Any

from ..artifact import Format
from ..errors import ConfigError
from .engine import ENGINES, Engine, engine_of, report_use, require


@dataclass(frozen=True, slots=True, kw_only=True)
class EngineChoice:
    """An engine by name and a device; empty: the format's own engine, and the engine's own device."""

    engine: str = ""
    device: str = ""

    def __bool__(self) -> bool:
        return bool(self.engine or self.device)

    def of(self, format_: Format) -> "EngineChoice":
        """Return the choice for artifacts of one format: itself where its engine opens them, else none.

        Raises:
            ConfigError: no such engine.
        """
        return self if not self.engine or format_ in ENGINES.get(self.engine, where="engine").formats else OWN

    def engine_for(self, format_: Format) -> Engine:
        """Return the engine that opens artifacts of that format."""
        return engine_of(format_, self.of(format_).engine)

    def key(self, *formats: Format) -> dict[str, Any]:
        """Return what the choice adds to the key of a stored figure of artifacts of these formats."""
        chosen = [self.of(format_) for format_ in formats]
        return {"engines": [[each.engine, each.device] for each in chosen]} if any(chosen) else {}

    def refuse_for_server(self, where: str) -> None:
        """Check that nothing is asked of a server, which opens its model itself.

        Raises:
            ConfigError: an engine or a device is named.
        """
        if self:
            raise ConfigError(
                "an engine or device was named for a served model, which runs in its server's",
                where=where,
                next_step="remove --engine and --device, or name an artifact",
            )

    def check(self, formats: Collection[Format]) -> None:
        """Check that the engine opens one of the formats, and that this machine has all that it needs.

        Reports the experimental parts that it belongs to.

        Raises:
            ConfigError: no such engine or device, or it opens none of the formats.
            ContractError: a library, a driver or the device is missing; says which.
        """
        if not self:
            return
        opened = [format_ for format_ in formats if self.of(format_)]
        if not opened:
            found = ENGINES.get(self.engine, where="engine")
            raise ConfigError(
                f"engine {self.engine!r} opens {' and '.join(found.formats)}, "
                f"and there are only {' and '.join(sorted(set(formats)))}",
                where="engine",
                next_step="leave it out, or name one that opens these",
            )
        for engine in {self.engine_for(format_).name: self.engine_for(format_) for format_ in opened}.values():
            report_use(engine, require(engine, self.device))


OWN = EngineChoice()
"""Each format's own engine on its own device."""
