"""The build plan of a TensorRT engine: all settings of the builder, as one document and as trtexec calls.

Pure; `sessions.on_tensorrt_builder` carries a plan out. The plan names flags and settings as TensorRT does and holds no
precision: types come from the graph. Command lines follow the documented options of trtexec. Experimental
(`optimize.experimental.TENSORRT`).
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from ..artifact import TensorSpec
from ..recipe.configs import CompileConfig, Profile
from ..record import Record

MODEL, PLAN, ENGINE, TIMING, LAYERS = "model.onnx", "plan.json", "model.plan", "timing.cache", "layers.json"
_LEVELS = {
    "none": ("NONE", "none"),
    "ampere+": ("AMPERE_PLUS", "ampere+"),
    "same-compute-capability": ("SAME_COMPUTE_CAPABILITY", "sameComputeCapability"),
}
_MIB = 1 << 20


@dataclass(frozen=True, slots=True, kw_only=True)
class EnginePlan(Record, schema=1, what="the build plan", next_step="build the artifact again", computed=("trtexec",)):
    """Build plan of an engine; flags are names of ``BuilderFlag``, memory pools are bytes by ``MemoryPoolType``.

    `set` and `clear` are flags whose default the plan changes; `network` are names of
    ``NetworkDefinitionCreationFlag`` that are given where the installed version knows them.
    """

    model: str
    network: tuple[str, ...]
    set: tuple[str, ...]
    clear: tuple[str, ...]
    profiles: tuple[Profile, ...]
    memory_pools: Mapping[str, int]
    builder_optimization_level: int
    hardware_compatibility_level: str
    profiling_verbosity: str
    timing_cache: bool

    @property
    def trtexec(self) -> dict[str, list[str]]:
        """Both command lines, by version of TensorRT."""
        return {line: trtexec(self, line) for line in ("10.16", "11")}


def plan_engine(config: CompileConfig, inputs: Sequence[TensorSpec], model: str) -> EnginePlan:
    """Return the build plan of `config` for a graph with these inputs whose file has the digest `model`.

    Raises:
        ConfigError: a symbolic axis for which the configuration gives no range.
    """
    flags = {
        "VERSION_COMPATIBLE": config.version_compatible,
        "REFIT": config.refit,
        "STRIP_PLAN": config.strip_plan,
        "REFIT_IDENTICAL": config.strip_plan and not config.refit,
        "WEIGHT_STREAMING": config.weight_streaming,
        "SPARSE_WEIGHTS": config.sparse_weights,
        "DISABLE_TIMING_CACHE": not config.timing_cache,
    }
    return EnginePlan(
        model=model,
        network=("STRONGLY_TYPED",),
        set=tuple(name for name, wanted in flags.items() if wanted),
        clear=() if config.tf32 else ("TF32",),
        profiles=config.accepted_shapes(inputs),
        memory_pools={} if config.workspace_mib is None else {"WORKSPACE": config.workspace_mib * _MIB},
        builder_optimization_level=config.builder_level,
        hardware_compatibility_level=_LEVELS[config.hardware_compatible][0],
        profiling_verbosity="DETAILED",
        timing_cache=config.timing_cache,
    )


def trtexec(plan: EnginePlan, line: str) -> list[str]:
    """Return the equivalent trtexec command, for ``"10.16"`` or ``"11"`` (always strongly typed)."""
    command = ["trtexec", f"--onnx={MODEL}", f"--saveEngine={ENGINE}", "--skipInference"]
    command += ["--stronglyTyped"] if line.startswith("10.") else []
    for number, profile in enumerate(plan.profiles):
        command += [f"--profile={number}"] if len(plan.profiles) > 1 else []
        command += [f"--{key}Shapes={_shapes(profile, key)}" for key in ("min", "opt", "max")]
    command += [f"--memPoolSize={name.lower()}:{size // _MIB}M" for name, size in plan.memory_pools.items()]
    command += [f"--builderOptimizationLevel={plan.builder_optimization_level}"]
    level = next(said for name, said in _LEVELS.values() if name == plan.hardware_compatibility_level)
    command += [f"--hardwareCompatibilityLevel={level}"]
    options = {
        "VERSION_COMPATIBLE": "--versionCompatible",
        "REFIT": "--refit",
        "STRIP_PLAN": "--stripWeights",
        "WEIGHT_STREAMING": "--allowWeightStreaming",
        "SPARSE_WEIGHTS": "--sparsity=enable",
    }
    command += [option for name, option in options.items() if name in plan.set]
    command += ["--noTF32"] if "TF32" in plan.clear else []
    command += [f"--timingCacheFile={TIMING}"] if plan.timing_cache else ["--noBuilderCache"]
    return [*command, f"--profilingVerbosity={plan.profiling_verbosity.lower()}", f"--exportLayerInfo={LAYERS}"]


def _shapes(profile: Profile, key: str) -> str:
    return ",".join(f"{name}:{'x'.join(map(str, getattr(shapes, key)))}" for name, shapes in profile.items())
