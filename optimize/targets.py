"""Hardware contracts: what each target needs from a quantized graph, and whether this machine keeps an artifact's.

Only a table and two questions about it; nothing here touches a graph. ONNX Runtime's x86 kernels fuse U8 activations
with S8 weights; without VNNI the 16-bit accumulation of those kernels can saturate, so weights keep 7 bits
(``reduce_range``). ARM kernels want S8 on both sides.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

from packaging.specifiers import SpecifierSet

from .environment import Environment
from .errors import ConfigError, ContractError

Target = Literal["x86-vnni", "x86", "arm64"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Contract:
    """One target: integer types of activations and weights, symmetry, and the processor flags that it needs."""

    architecture: tuple[str, ...]
    activations: Literal["uint8", "int8"]
    activation_symmetric: bool
    reduce_range: bool
    flags_any: tuple[str, ...]

    def requires(self) -> dict[str, Any]:
        """What an artifact made for this target demands of the machine that runs it (`check` reads it)."""
        return {"architecture": list(self.architecture), "cpu_flags_any": list(self.flags_any)}


TARGETS: Mapping[str, Contract] = {
    "x86-vnni": Contract(
        architecture=("x86_64",),
        activations="uint8",
        activation_symmetric=False,
        reduce_range=False,
        flags_any=("avx512_vnni", "avx_vnni", "amx_int8"),
    ),
    "x86": Contract(
        architecture=("x86_64",),
        activations="uint8",
        activation_symmetric=False,
        reduce_range=True,
        flags_any=("avx2", "avx512f"),
    ),
    "arm64": Contract(
        architecture=("aarch64", "arm64"),
        activations="int8",
        activation_symmetric=True,
        reduce_range=False,
        flags_any=("asimddp", "i8mm"),
    ),
}


def resolve(target: str, environment: Environment) -> str:
    """The target's name; ``auto`` becomes the first one whose contract this machine keeps.

    Raises:
        ConfigError: no such target, or ``auto`` on a machine that keeps none.
    """
    if target in TARGETS:
        return target
    if target != "auto":
        raise ConfigError(f"unknown target {target!r}", next_step=f"use auto, {', '.join(TARGETS)}")
    for name, contract in TARGETS.items():
        if not broken(contract.requires(), environment):
            return name
    raise ConfigError(
        f"no int8 target fits this processor ({environment.architecture}, flags {environment.cpu_flags})",
        next_step=f"name the target that it will be served on: {', '.join(TARGETS)}",
    )


def broken(requires: Mapping[str, Any], environment: Environment) -> str:
    """Why this machine breaks the contract, or an empty string."""
    architectures = requires.get("architecture")
    if architectures and environment.architecture not in architectures:
        return f"it was made for {' or '.join(architectures)}, this machine is {environment.architecture}"
    flags = requires.get("cpu_flags_any")
    if flags and not set(flags) & set(environment.cpu_flags):
        here = ", ".join(environment.cpu_flags) or "none"
        return f"it needs a processor with one of {', '.join(flags)}; this one has {here}"
    return _engine_broken(requires, environment)


def _engine_broken(requires: Mapping[str, Any], environment: Environment) -> str:
    """The same for what a TensorRT engine needs: a version (as a specifier) and the name of a GPU."""
    if wanted := requires.get("tensorrt"):
        here = environment.libraries.get("tensorrt-cu13") or environment.libraries.get("tensorrt")
        if here is None or here not in SpecifierSet(wanted):
            return f"it needs TensorRT {wanted}, this machine has {here or 'none'}"
    gpus = requires.get("gpu_any")
    if gpus and not any(gpu in found for gpu in gpus for found in environment.gpus):
        return f"it was built for {' or '.join(gpus)}, this machine has {', '.join(environment.gpus) or 'no GPU'}"
    return ""


def check(requires: Mapping[str, Any], environment: Environment, name: str) -> None:
    """Refuse an artifact whose contract this machine breaks.

    Raises:
        ContractError: with the reason.
    """
    if why := broken(requires, environment):
        raise ContractError(f"{name} cannot run here: {why}", next_step="build it with the target of this machine")
