"""The record of a run of scripts/gpu: what each section found, the claims with their bars, and the exit code.

Standard library alone: it must be written and read where nothing is installed. Measures nothing.
"""

import json
import os
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Literal

SCHEMA = 1
Status = Literal["done", "missing", "failed", "timeout", "not run"]
MET, MISSED, UNKNOWN, NO_GPU = 0, 1, 3, 4
FORMATS = ".4g"


@dataclass(frozen=True, slots=True, kw_only=True)
class Claim:
    """One bar: `met` is None where it could not be told, and `why` then says what was missing."""

    claim: str
    bar: str
    value: str = ""
    met: bool | None = None
    why: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Found:
    """Everything that a section found: rows of raw figures, claims, and notes."""

    rows: tuple[Mapping[str, Any], ...] = ()
    claims: tuple[Claim, ...] = ()
    notes: tuple[str, ...] = ()


def at_least(claim: str, value: float | None, bar: float, why: str = "not measured") -> Claim:
    """A claim that a value reaches a bar; without a value it could not be told."""
    told = "" if value is None else format(value, FORMATS)
    met = None if value is None else value >= bar
    return Claim(claim=claim, bar=f">= {bar:g}", value=told, met=met, why=why if value is None else "")


def at_most(claim: str, value: float | None, bar: float, why: str = "not measured") -> Claim:
    """A claim that a value stays within a bar; without a value it could not be told."""
    told = "" if value is None else format(value, FORMATS)
    met = None if value is None else value <= bar
    return Claim(claim=claim, bar=f"<= {bar:g}", value=told, met=met, why=why if value is None else "")


@dataclass(slots=True, kw_only=True)
class Run:
    """A run as far as it got. `device` is "gpu", or "cpu" for a rehearsal of the code paths that proves nothing."""

    device: Literal["gpu", "cpu"]
    at: str
    arguments: list[str]
    environment: dict[str, Any] = field(default_factory=dict)
    reasons: list[str] = field(default_factory=list)
    sections: dict[str, dict[str, Any]] = field(default_factory=dict)
    finished: bool = False
    exit_code: int | None = None

    def add(self, name: str, status: Status, seconds: float, found: Mapping[str, Any], reason: str = "") -> None:
        """Keep a section; on the processor no claim is met, whatever was measured."""
        claims = [dict(claim) for claim in found.get("claims", ())]
        if self.device == "cpu":
            claims = [claim | {"met": None, "why": "rehearsed on the CPU"} for claim in claims]
        told = {"rows": list(found.get("rows", ())), "claims": claims, "notes": list(found.get("notes", ()))}
        self.sections[name] = {"status": status, "seconds": round(seconds, 3), "reason": reason} | told

    def write(self, path: Path) -> None:
        """Replace the file in one step; a kill leaves the record before or this one."""
        staged = path.with_name(path.name + ".new")
        with staged.open("w") as file:
            json.dump({"schema": SCHEMA, "kind": "gpu"} | asdict(self), file, indent=1, allow_nan=False)
            file.write("\n")
            file.flush()
            os.fsync(file.fileno())
        staged.replace(path)


def verdict(device: str, sections: Iterable[Mapping[str, Any]]) -> int:
    """Return the exit code of sections on that device: missed before unknown before met. Never met on the CPU."""
    sections = list(sections)
    met = [claim["met"] for section in sections for claim in section["claims"]]
    if False in met:
        return MISSED
    whole = bool(met) and None not in met and all(section["status"] == "done" for section in sections)
    return MET if whole and device == "gpu" else UNKNOWN


def read(path: Path) -> dict[str, Any]:
    """Return a record.

    Raises:
        ValueError: it is not one, of another schema, or a rehearsal on the CPU.
    """
    value = json.loads(path.read_text())
    if not isinstance(value, dict) or value.get("kind") != "gpu" or value.get("schema") != SCHEMA:
        raise ValueError(f"{path} is not a record of scripts/gpu with schema {SCHEMA}")
    if value.get("device") != "gpu" or not value.get("environment", {}).get("gpus"):
        raise ValueError(f"{path} was not made on a GPU, so it shows nothing")
    return value
