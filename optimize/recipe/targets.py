"""Hardware contracts: what each target needs from a quantized graph, and whether this machine keeps an artifact's.

Only a table and two questions about it; nothing here touches a graph. Why the rows are as they are:

- ONNX Runtime's x86 kernels fuse U8 activations with S8 weights; without VNNI their 16-bit accumulation can saturate,
  so weights keep 7 bits (``reduce_range``). A matrix product's output stays float there: the fused kernel writes float
  anyway, and rounding it once more costs accuracy and buys nothing.
- ARM kernels want S8 on both sides.
- TensorRT takes zero points of 0 only, quantizes the inputs of weighted layers, keeps biases in float and wants a Q/DQ
  pair of its own for each consumer. Its row and ``cuda``'s follow NVIDIA's documentation; neither has run here.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

from packaging.specifiers import SpecifierSet
from packaging.version import Version

from ..environment import Environment
from ..errors import ConfigError, ContractError

Target = Literal["x86-vnni", "x86", "arm64", "cuda", "tensorrt"]
Method = Literal["static", "dynamic", "weight-only"]
Activations = Literal["uint8", "int8", "uint16"]
_PRODUCTS = ("MatMul", "Gemm")
_TENSORRT = ("tensorrt-cu13", "tensorrt-cu12", "tensorrt")  # distributions of TensorRT, by CUDA version
_KERNELS: Mapping[str, tuple[str, ...]] = {  # operators in a type, and the engines that have kernels for them
    "bfloat16": ("openvino", "openvino-bf16", "onnxruntime-cuda", "onnxruntime-tensorrt"),
}
_WEIGHTED = ("Conv", "ConvTranspose", "MatMul", "Gemm")


@dataclass(frozen=True, slots=True, kw_only=True)
class Contract:
    """One target: integer types, symmetry, what stays float, and the hardware that it needs.

    `also_allowed` are activation types that an override may ask for besides `activations`; `operators` what is
    quantized where the recipe names nothing (empty: whatever the quantizer can); `float_outputs` operators whose
    outputs are not quantized; `own_pairs` means a Q/DQ pair for each consumer of a tensor, `residuals` one before an
    Add that a convolution is fused with; `opset` is the lowest ONNX opset whose Q/DQ the target reads; `methods` are
    those it has kernels for, `fp8` whether static ones multiply in E4M3 too.
    """

    activations: Activations
    activation_symmetric: bool
    also_allowed: tuple[Activations, ...] = ()
    reduce_range: bool = False
    operators: tuple[str, ...] = ()
    float_outputs: tuple[str, ...] = _PRODUCTS
    quantize_bias: bool = True
    own_pairs: bool = False
    residuals: bool = False
    opset: int = 13
    methods: tuple[Method, ...] = ("static", "dynamic", "weight-only")
    architecture: tuple[str, ...] = ()
    flags_any: tuple[str, ...] = ()
    gpu: bool = False
    fp8: bool = False

    def requires(self) -> dict[str, Any]:
        """Return the requirements of an artifact for this target on the machine that runs it (`check` reads them)."""
        if self.gpu:
            return {"gpu": "nvidia"}
        return {"architecture": list(self.architecture), "cpu_flags_any": list(self.flags_any)}


TARGETS: Mapping[str, Contract] = {
    "x86-vnni": Contract(
        activations="uint8",
        activation_symmetric=False,
        also_allowed=("uint16",),
        architecture=("x86_64",),
        flags_any=("avx512_vnni", "avx_vnni", "amx_int8"),
    ),
    "x86": Contract(
        activations="uint8",
        activation_symmetric=False,
        also_allowed=("uint16",),
        reduce_range=True,
        architecture=("x86_64",),
        flags_any=("avx2", "avx512f"),
    ),
    "arm64": Contract(
        activations="int8",
        activation_symmetric=True,
        also_allowed=("uint8", "uint16"),
        architecture=("aarch64", "arm64"),
        flags_any=("asimddp", "i8mm"),
    ),
    "cuda": Contract(
        activations="int8",
        activation_symmetric=True,
        also_allowed=("uint8", "uint16"),
        operators=_WEIGHTED,
        float_outputs=_WEIGHTED,
        methods=("static", "weight-only"),
        gpu=True,
    ),
    "tensorrt": Contract(
        activations="int8",
        activation_symmetric=True,
        operators=_WEIGHTED,
        float_outputs=_WEIGHTED,
        quantize_bias=False,
        own_pairs=True,
        residuals=True,
        methods=("static",),
        gpu=True,
        fp8=True,
    ),
}


def resolve(target: str, environment: Environment) -> str:
    """The target's name; ``auto`` becomes the first processor target whose contract this machine keeps.

    A GPU is never picked by itself: which machine serves is the user's decision, and every machine has a processor.

    Raises:
        ConfigError: no such target, or ``auto`` on a machine that keeps none.
    """
    if target in TARGETS:
        return target
    if target != "auto":
        raise ConfigError(f"unknown target {target!r}", next_step=f"use auto, {', '.join(TARGETS)}")
    for name, contract in TARGETS.items():
        if not contract.gpu and not broken(contract.requires(), environment):
            return name
    raise ConfigError(
        f"no int8 target fits this processor ({environment.architecture}, flags {environment.cpu_flags})",
        next_step=f"name the target on which it will be served: {', '.join(TARGETS)}",
    )


def broken(requires: Mapping[str, Any], environment: Environment, engine: str = "") -> str:
    """Return why this machine breaks the contract, or an empty string; `engine` is the one that is to open it.

    Without an engine it is the format's own: ONNX Runtime on the CPU.
    """
    kernels = requires.get("kernels")
    if kernels and engine not in _KERNELS.get(kernels, ()):
        able = ", ".join(_KERNELS.get(kernels, ())) or "no engine of this version"
        return f"its {kernels} operators have kernels in {able}, and none in {engine or 'onnxruntime'} on the CPU"
    architectures = requires.get("architecture")
    if architectures and environment.architecture not in architectures:
        return f"it was built for {' or '.join(architectures)}, this machine is {environment.architecture}"
    flags = requires.get("cpu_flags_any")
    if flags and not set(flags) & set(environment.cpu_flags):
        here = ", ".join(environment.cpu_flags) or "none"
        return f"it needs a processor with one of {', '.join(flags)}; this one has {here}"
    if requires.get("gpu") == "nvidia" and not environment.gpus:
        return "it needs an NVIDIA GPU; this machine has none"
    return _engine_broken(requires, environment)


def _engine_broken(requires: Mapping[str, Any], environment: Environment) -> str:
    """The same for what a TensorRT engine needs: a version (as a specifier), a GPU's name and compute capability.

    A name is compared whole: "A10" is no "A100". `compute_capability_any` lists what the engine was built for,
    `compute_capability_least` is the lowest that runs it.
    """
    if wanted := requires.get("tensorrt"):
        here = next((environment.libraries[name] for name in _TENSORRT if name in environment.libraries), None)
        if here is None or here not in SpecifierSet(wanted):
            return f"it needs TensorRT {wanted}, this machine has {here or 'none'}"
    names, capabilities = requires.get("gpu_any"), requires.get("compute_capability_any")
    least = requires.get("compute_capability_least")
    if not (names or capabilities or least) or any(
        _card_fits(name, capability, requires) for name, capability in _cards(environment)
    ):
        return ""
    built = " or ".join(names) if names else "a GPU"
    built += f" of compute capability {' or '.join(capabilities)}" if capabilities else ""
    built += f" of compute capability {least} or higher" if least else ""
    cards = [f"{name} (compute capability {capability or 'unknown'})" for name, capability in _cards(environment)]
    return f"it was built for {built}, this machine has {', '.join(cards) or 'no GPU'}"


def _cards(environment: Environment) -> list[tuple[str, str]]:
    """Name and compute capability (empty: unknown) of each GPU."""
    known = {each.uuid: each.compute_capability for each in environment.gpu_settings}
    rows = [[part.strip() for part in gpu.split(",")] for gpu in environment.gpus]
    return [(row[1] if len(row) > 1 else row[0], known.get(row[0], "")) for row in rows]


def _card_fits(name: str, capability: str, requires: Mapping[str, Any]) -> bool:
    """Return whether a card is one of those named; an unknown compute capability passes only where the name decides."""
    names, capabilities = requires.get("gpu_any"), requires.get("compute_capability_any")
    least = requires.get("compute_capability_least")
    if names and name not in names:
        return False
    if not capability:
        return bool(names)
    return (not capabilities or capability in capabilities) and (not least or Version(capability) >= Version(least))


def check(requires: Mapping[str, Any], environment: Environment, name: str, engine: str = "") -> None:
    """Refuse an artifact whose contract this machine, or the engine that is to open it, breaks.

    Raises:
        ContractError: with the reason.
    """
    if why := broken(requires, environment, engine):
        able = _KERNELS.get(requires.get("kernels", ""), ())
        step = f"name one of these engines (--engine {able[0]})" if able and engine not in able else ""
        raise ContractError(
            f"{name} cannot run here: {why}", next_step=step or "build it with the target of this machine"
        )
