"""Configuration of the native backends in a ModelConfig: ONNX Runtime's providers and TensorRT engines.

Writes fields and decides nothing; the rules have been checked. Parses with Triton's protocol; never loaded on a GPU.
"""

from pathlib import PurePosixPath
from typing import Any

from seatrial.optimize.artifact import Artifact
from seatrial.optimize.recipe.configs import Profile

from ...deployment import Deployment, OnnxCuda, OnnxTensorrt, TensorrtPlan
from .rules import model_file

PLATFORMS = {"onnx": ("onnxruntime", "onnxruntime_onnx"), "tensorrt": ("tensorrt", "tensorrt_plan")}
_GRAPH = {"extended": "1", "basic": "-1", "off": "2"}  # the backend's meaning, not that of the protocol's comment
_SEARCH = {"exhaustive": "0", "heuristic": "1", "default": "2"}
_ARENA = {"next-power-of-two": "0", "same-as-requested": "1"}


def fill(config: Any, deployment: Deployment, artifact: Artifact) -> None:
    """Write backend, files, accelerators and parameters of the native backend."""
    config.backend, config.platform = PLATFORMS[artifact.format]
    engine = deployment.engine
    if isinstance(engine, TensorrtPlan) and engine.by_gpu:
        for gpu, file in engine.by_gpu.items():
            config.cc_model_filenames[gpu] = file
    else:
        config.default_model_filename = model_file(artifact)
    if artifact.format == "onnx":
        _parameter(config, "intra_op_thread_count", str(deployment.threads))
        _parameter(config, "inter_op_thread_count", "1")
    graph = getattr(engine, "graph", "all")
    if graph in _GRAPH:
        config.optimization.graph.level = int(_GRAPH[graph])
    if isinstance(engine, OnnxCuda):
        _cuda(config, engine)
    if isinstance(engine, OnnxTensorrt):
        _provider(config, engine, artifact)
    if isinstance(engine, TensorrtPlan) and engine.cuda_graphs:
        config.optimization.cuda.graphs = True


def profile_names(deployment: Deployment) -> list[str]:
    """The engine's profiles as every instance must list them."""
    engine = deployment.engine
    return [str(index) for index in range(len(engine.profiles))] if isinstance(engine, TensorrtPlan) else []


def cache_folder(engine: OnnxTensorrt, artifact: Artifact) -> str:
    """Return the folder of engines of exactly this artifact, GPU and TensorRT version."""
    return str(PurePosixPath(engine.cache) / artifact.digest.partition(":")[2] / f"sm{engine.gpu}-trt{engine.tensorrt}")


def _cuda(config: Any, engine: OnnxCuda) -> None:
    """At the top level: the backend overwrites these four with defaults where the accelerator names them."""
    config.optimization.execution_accelerators.gpu_execution_accelerator.add(name="cuda")
    _parameter(config, "cudnn_conv_algo_search", _SEARCH[engine.conv_search])
    _parameter(config, "arena_extend_strategy", _ARENA[engine.arena])
    _parameter(config, "do_copy_in_default_stream", str(int(engine.copy_in_default_stream)))
    if engine.memory_bytes is not None:
        _parameter(config, "gpu_mem_limit", str(engine.memory_bytes))


def _provider(config: Any, engine: OnnxTensorrt, artifact: Artifact) -> None:
    provider = config.optimization.execution_accelerators.gpu_execution_accelerator.add(name="tensorrt")
    options = {
        "precision_mode": engine.precision.upper(),
        "max_workspace_size_bytes": str(engine.workspace_bytes),
        "trt_engine_cache_enable": "1",
        "trt_engine_cache_path": cache_folder(engine, artifact),
        "trt_timing_cache_enable": str(int(engine.timing_cache)),
        "trt_builder_optimization_level": str(engine.builder_level),
        "trt_profile_min_shapes": _shapes(engine.profile, "min"),
        "trt_profile_opt_shapes": _shapes(engine.profile, "opt"),
        "trt_profile_max_shapes": _shapes(engine.profile, "max"),
    }
    if engine.timing_cache:
        options["trt_timing_cache_path"] = options["trt_engine_cache_path"]
    switches = {
        "trt_cuda_graph_enable": engine.cuda_graph,
        "trt_sparsity_enable": engine.sparsity,
        "trt_context_memory_sharing_enable": engine.share_context_memory,
    }
    options |= {name: "1" for name, wanted in switches.items() if wanted}
    if engine.calibration_table:
        options["int8_calibration_table_name"] = engine.calibration_table
    for name, value in options.items():
        provider.parameters[name] = value


def _shapes(profile: Profile, end: str) -> str:
    """``images:1x3x224x224,mask:1x224``: complete shapes, the batch axis among them."""
    return ",".join(f"{name}:{'x'.join(str(size) for size in getattr(each, end))}" for name, each in profile.items())


def _parameter(config: Any, name: str, value: str) -> None:
    config.parameters[name].string_value = value
