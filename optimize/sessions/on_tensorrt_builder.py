"""TensorRT 10.16 and 11.x: carries a build plan out, and reads an engine back.

Experimental, as `on_tensorrt` says. What differs between versions is asked with ``hasattr``, never by number.
"""

import importlib.util
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..artifact import digest_file
from ..errors import ContractError, IntegrityError, MachineError, StageError
from ..tensorrt.plan import ENGINE, LAYERS, TIMING, EnginePlan


@dataclass(frozen=True, slots=True, kw_only=True)
class Carried:
    """Result of building a plan: the files that were written, and the version that wrote them."""

    files: tuple[str, ...]
    version: str


def at_hand() -> bool:
    """Return True if TensorRT is installed; does not import it."""
    return importlib.util.find_spec("tensorrt") is not None


def library() -> Any:
    """TensorRT itself.

    Raises:
        MachineError: it is not installed, or its libraries or the driver are missing.
    """
    try:
        import tensorrt
    except (ImportError, OSError) as error:
        raise MachineError(
            f"TensorRT cannot be loaded: {error}", next_step="use a machine with an NVIDIA GPU and seatrial[tensorrt]"
        ) from error
    return tensorrt


def carry_out(plan: EnginePlan, onnx: Path, folder: Path, *, trt: Any = None) -> Carried:
    """Build the engine that the plan describes into `folder`: engine, timing cache and the inspector's layers.

    A timing cache that lies in `folder` already is started from.

    Raises:
        IntegrityError: the ONNX file is not the one that was planned for.
        StageError: the parser or the builder refused, with what they said.
        MachineError: this TensorRT does not know something that the plan asks for.
    """
    if (found := digest_file(onnx)) != plan.model:
        raise IntegrityError(
            f"the plan is for an ONNX file {plan.model[:19]}, this is {found[:19]}",
            where=str(onnx),
            next_step="build the plan from the ONNX file beside it",
        )
    trt = trt or library()
    logger = trt.Logger(trt.Logger.WARNING)
    builder = trt.Builder(logger)
    network = builder.create_network(_network_flags(trt, plan))
    parser = trt.OnnxParser(network, logger)
    if not parser.parse_from_file(str(onnx)):
        raise StageError(
            f"TensorRT's parser refused the graph: {complaints(parser)}",
            where=str(onnx),
            next_step="fix the node that the message names",
        )
    config = _configured(trt, builder, plan, folder / TIMING)
    serialized = builder.build_serialized_network(network, config)
    if serialized is None:
        raise StageError(
            "TensorRT's builder made no engine; its log above says why",
            where=str(onnx),
            next_step="fix the graph, or give the builder more workspace",
        )
    data = bytes(serialized)
    (folder / ENGINE).write_bytes(data)
    files = [ENGINE]
    timings = config.get_timing_cache() if plan.timing_cache else None
    if timings is not None:
        (folder / TIMING).write_bytes(bytes(timings.serialize()))
        files.append(TIMING)
    engine = deserialized(trt, logger, data, plan)
    inspector = engine.create_engine_inspector()
    (folder / LAYERS).write_text(inspector.get_engine_information(trt.LayerInformationFormat.JSON))
    return Carried(files=(*files, LAYERS), version=str(trt.__version__))


def _network_flags(trt: Any, plan: EnginePlan) -> int:
    """The creation flags that this version still has; where STRONGLY_TYPED is gone, it is the only way there is."""
    known = [name for name in plan.network if hasattr(trt.NetworkDefinitionCreationFlag, name)]
    return sum(1 << int(getattr(trt.NetworkDefinitionCreationFlag, name)) for name in known)


def _configured(trt: Any, builder: Any, plan: EnginePlan, timing: Path) -> Any:
    config = builder.create_builder_config()
    for name in plan.set:
        config.set_flag(_member(trt.BuilderFlag, name, "builder flag"))
    for name in plan.clear:
        config.clear_flag(_member(trt.BuilderFlag, name, "builder flag"))
    for name, size in plan.memory_pools.items():
        config.set_memory_pool_limit(_member(trt.MemoryPoolType, name, "memory pool"), size)
    config.builder_optimization_level = plan.builder_optimization_level
    config.hardware_compatibility_level = _member(
        trt.HardwareCompatibilityLevel, plan.hardware_compatibility_level, "hardware compatibility level"
    )
    config.profiling_verbosity = _member(trt.ProfilingVerbosity, plan.profiling_verbosity, "profiling verbosity")
    for ranges in plan.profiles:
        profile = builder.create_optimization_profile()
        for name, shapes in ranges.items():
            profile.set_shape(name, shapes.min, shapes.opt, shapes.max)
        config.add_optimization_profile(profile)
    if plan.timing_cache:
        _start_from(config, timing)
    return config


def _start_from(config: Any, timing: Path) -> None:
    """Attach the timings of an earlier build; an empty cache where there are none or another GPU or version made them.

    TensorRT refuses foreign timings by making no cache of them, or by not attaching it.
    """
    earlier = config.create_timing_cache(timing.read_bytes()) if timing.is_file() else None
    if earlier is None or not config.set_timing_cache(earlier, False):
        config.set_timing_cache(config.create_timing_cache(b""), False)


def _member(owner: Any, name: str, what: str) -> Any:
    if not hasattr(owner, name):
        raise MachineError(
            f"this TensorRT has no {what} {name}", next_step="remove it from the stage, or use another TensorRT version"
        )
    return getattr(owner, name)


def complaints(parser: Any) -> str:
    """Return what a parser says against a graph, with the nodes."""
    errors = [parser.get_error(index) for index in range(parser.num_errors)]
    return "; ".join(f"{error.node_name() or error.node_operator()}: {error.desc()}" for error in errors)


def deserialized(trt: Any, logger: Any, data: bytes, plan: EnginePlan) -> Any:
    """Return the engine of some bytes.

    Raises:
        ContractError: it was built for another version or GPU.
    """
    runtime = trt.Runtime(logger)
    runtime.engine_host_code_allowed = "VERSION_COMPATIBLE" in plan.set
    engine = runtime.deserialize_cuda_engine(data)
    if engine is None:
        raise ContractError(
            "TensorRT cannot read this engine here: it was built for another version or GPU",
            next_step="build the plan on this machine",
        )
    return engine


def refit(trt: Any, logger: Any, engine: Any, onnx: Path) -> None:
    """Put the weights of an ONNX file back into a stripped engine.

    Raises:
        StageError: TensorRT refuses.
    """
    refitter = trt.Refitter(engine, logger)
    parser = trt.OnnxParserRefitter(refitter, logger)
    if not parser.refit_from_file(str(onnx)) or not refitter.refit_cuda_engine():
        raise StageError(
            f"TensorRT cannot refit the weights: {complaints(parser)}",
            where=str(onnx),
            next_step="build the plan again on this machine",
        )
