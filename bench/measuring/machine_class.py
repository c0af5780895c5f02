"""Class of machine of a measurement: the properties that determine speed, without those of one specimen.

Library versions are not in it: what a new library does to a figure is what a trend is for. Reads an environment's JSON,
looks at nothing itself.
"""

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

from seatrial.optimize.artifact import canonical, digest_bytes


@dataclass(frozen=True, slots=True, kw_only=True)
class MachineClass:
    """Processor model, its deciding flags, usable cores, and graphics cards by name (neither UUID nor driver)."""

    cpu: str
    architecture: str
    flags: tuple[str, ...]
    cores: int
    gpus: tuple[str, ...]

    @classmethod
    def of(cls, environment: Mapping[str, Any]) -> "MachineClass":
        """The class of the machine that an `optimize.environment.Environment`, as JSON, describes."""
        gpus = [[part.strip() for part in str(gpu).split(",")] for gpu in environment.get("gpus", ())]
        return cls(
            cpu=str(environment.get("cpu") or "unknown"),
            architecture=str(environment.get("architecture") or ""),
            flags=tuple(sorted(environment.get("cpu_flags") or ())),
            cores=int(environment.get("cores") or 0),
            gpus=tuple(sorted(parts[1] if len(parts) > 1 else parts[0] for parts in gpus)),
        )

    @property
    def key(self) -> str:
        """Twelve digits that name the class, in paths and records."""
        return digest_bytes(canonical(asdict(self))).removeprefix("sha256:")[:12]

    def __str__(self) -> str:
        cards = "".join(f", {gpu}" for gpu in self.gpus)
        return f"{self.cpu}, {self.cores} cores{cards} ({self.key})"
