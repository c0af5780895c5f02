"""Engines with their options: what executes a model, in the native backends or in the Python backend.

Types and the rules that an engine breaks by itself; what it needs of a tensor is `serve.triton.compiler`'s
business. `onnx-cpu` and `onnx-cuda` exist in both backends, the TensorRT engines in the native backends, `openvino` and
`torch` in the Python backend (`python_engines`). Those for GPUs are experimental (`optimize.experimental.GPU`): checked
against Triton's protocol and its backends' source.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import PurePosixPath
from typing import Annotated, Literal

from pydantic import Field

from seatrial.optimize.recipe.configs import Profile

from .broken import Broken
from .python_engines import OpenVino, Outputs, Torch

Graph = Literal["all", "extended", "basic", "off"]


@dataclass(frozen=True, slots=True, kw_only=True)
class OnnxCpu:
    """ONNX Runtime on the CPU. `graph` is how far it rewrites the graph when loading."""

    kind: Literal["onnx-cpu"]
    graph: Graph = "all"


@dataclass(frozen=True, slots=True, kw_only=True)
class OnnxCuda:
    """ONNX Runtime with CUDA.

    `conv_search` "exhaustive" is ONNX Runtime's own default and times every algorithm at each new shape, seconds during
    live requests; "heuristic" asks cuDNN. `memory_bytes` bounds the arena of one instance (None: all of the GPU's).
    In the Python backend `cuda_graph` captures each batch size at its first run, for models without free axes, and
    `outputs` "device" leaves outputs on the GPU for the next step of an ensemble.
    """

    kind: Literal["onnx-cuda"]
    graph: Graph = "all"
    conv_search: Literal["exhaustive", "heuristic", "default"] = "heuristic"
    memory_bytes: int | None = None
    arena: Literal["next-power-of-two", "same-as-requested"] = "same-as-requested"
    copy_in_default_stream: bool = True
    cuda_graph: bool = False
    outputs: Outputs = "host"


@dataclass(frozen=True, slots=True, kw_only=True)
class OnnxTensorrt:
    """ONNX Runtime with its TensorRT provider, which builds engines while loading and keeps them in a cache.

    `cache` is an absolute folder on the server; below it each pair of artifact, `gpu` (compute capability, "9.0") and
    `tensorrt` (version, "10.3") gets a folder of its own, since an engine found in another's is loaded unquestioned.
    `profile` gives complete shapes with the batch axis: without one the engine is built again during live requests, for
    minutes, whenever a shape leaves the range seen so far. `precision` "int8" runs what is not quantized in `fallback`;
    "bf16" needs a server that takes it (lint says which release does).

    `cuda_graph` replays one captured graph, so it needs one fixed shape for every input. `timing_cache` keeps the
    builder's timings beside the engines, so that a rebuild is quick and picks the same kernels; `sparsity` lets it use
    2:4 sparse weights, `builder_level` is TensorRT's 0 to 5, and `share_context_memory` lets the engines of one model,
    which run one after the other, use one scratch memory.
    """

    kind: Literal["onnx-tensorrt"]
    graph: Graph = "all"
    precision: Literal["fp32", "fp16", "bf16", "int8"] = "fp32"
    fallback: Literal["fp32", "fp16"] = "fp32"
    workspace_bytes: int = 1 << 30
    cache: str
    gpu: str
    tensorrt: str
    profile: Profile
    calibration_table: str = ""
    cuda_graph: bool = False
    timing_cache: bool = True
    sparsity: bool = False
    builder_level: int = 3
    share_context_memory: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class TensorrtPlan:
    """A TensorRT engine. `profiles` are all of the engine's optimization profiles, in its own order.

    Each is listed for every instance: Triton uses only the first where none is. `by_gpu` maps a compute capability
    ("9.0") to the artifact's file for it; empty means one engine for all. `cuda_graphs` captures each batch size when
    loading: faster small batches for a slower load and more memory.
    """

    kind: Literal["tensorrt"]
    profiles: tuple[Profile, ...] = ()
    by_gpu: Mapping[str, str] = field(default_factory=dict)
    cuda_graphs: bool = False


AnyEngine = OnnxCpu | OnnxCuda | OnnxTensorrt | TensorrtPlan | OpenVino | Torch
Engine = Annotated[AnyEngine, Field(discriminator="kind")]
KINDS = {"python": ("onnx-cpu", "onnx-cuda", "openvino", "torch")}
KINDS["native"] = ("onnx-cpu", "onnx-cuda", "onnx-tensorrt", "tensorrt")


def broken_rules(engine: AnyEngine, instances: str, backend: str) -> Iterator[Broken]:
    """Every rule that the engine breaks by itself on instances of that kind, in that backend."""
    wanted = "cpu" if isinstance(engine, OnnxCpu | OpenVino) else "gpu"
    if instances != wanted and not isinstance(engine, Torch):
        yield Broken(
            field="instances.kind",
            rule=f"engine {engine.kind} runs on the {wanted.upper()}, not on instances of kind {instances!r}",
            fix=f'write kind = "{wanted}", or choose another engine',
        )
    if isinstance(engine, OnnxCuda) and engine.memory_bytes is not None and engine.memory_bytes < 1 << 20:
        yield Broken(
            field="engine.memory_bytes",
            rule=f"must be large enough for a model, got {engine.memory_bytes} bytes",
            fix="give bytes (4 GiB is 4294967296), or omit the field for no limit",
        )
    if isinstance(engine, OnnxCuda) and backend == "native":
        for field in ("cuda_graph", "outputs"):
            if getattr(engine, field) not in (False, "host"):
                yield Broken(
                    field=f"engine.{field}",
                    rule='only our model.py reads it, which backend = "native" does not have',
                    fix='remove it, or write backend = "python"',
                )
    if isinstance(engine, OnnxTensorrt):
        yield from _provider(engine)
        yield from _profile("engine.profile", engine.profile)
    if isinstance(engine, TensorrtPlan):
        for number, profile in enumerate(engine.profiles):
            yield from _profile(f"engine.profiles.{number}", profile)
        for gpu, file in engine.by_gpu.items():
            yield from _version("engine.by_gpu", gpu)
            if len(PurePosixPath(file).parts) != 1:
                yield Broken(
                    field="engine.by_gpu",
                    rule=f"{file!r} is not a file at the artifact's top level",
                    fix="name a file at the top level",
                )
    if engine.kind not in KINDS.get(backend, (engine.kind,)):
        other = "native" if backend == "python" else "python"
        yield Broken(
            field="engine.kind",
            rule=f'backend = "{backend}" has no engine {engine.kind}; it has {", ".join(KINDS[backend])}',
            fix=f'write backend = "{other}", or one of those engines',
        )


def _provider(engine: OnnxTensorrt) -> Iterator[Broken]:
    if engine.precision == "int8" and engine.fallback == "fp16":
        yield Broken(
            field="engine.fallback",
            rule=(
                "the provider has one precision_mode, so it cannot run unquantized layers in FP16 beside "
                "INT8; they would run in FP32"
            ),
            fix='compile an engine (stage "compile", engine kind "tensorrt"), or accept fallback = "fp32"',
        )
    if engine.calibration_table and engine.precision != "int8":
        yield Broken(
            field="engine.calibration_table",
            rule=f"a calibration table has no effect with precision {engine.precision}",
            fix='remove it, or write precision = "int8"',
        )
    path = PurePosixPath(engine.cache)
    if not path.is_absolute() or ".." in path.parts:
        yield Broken(
            field="engine.cache",
            rule=(
                f"must be an absolute path, got {engine.cache!r}: with a relative one, engines of different "
                "models could be confused"
            ),
            fix="give an absolute folder on the server that only the server may write",
        )
    if engine.workspace_bytes < 1 << 20:
        yield Broken(
            field="engine.workspace_bytes",
            rule=f"must be at least 1 MiB, got {engine.workspace_bytes}: a small workspace silently loses fast kernels",
            fix="give bytes: 1 GiB is 1073741824",
        )
    if not 0 <= engine.builder_level <= 5:
        yield Broken(
            field="engine.builder_level", rule=f"must be 0 to 5, got {engine.builder_level}", fix="use 3, the default"
        )
    varying = sorted(name for name, shapes in engine.profile.items() if not shapes.min == shapes.opt == shapes.max)
    if engine.cuda_graph and varying:
        yield Broken(
            field="engine.cuda_graph",
            rule=f"a CUDA graph is captured for one shape, but the profile lets {', '.join(varying)} vary",
            fix="give min = opt = max for every input, or write cuda_graph = false",
        )
    yield from _version("engine.gpu", engine.gpu)
    yield from _version("engine.tensorrt", engine.tensorrt)


def _version(field: str, text: str) -> Iterator[Broken]:
    parts = text.split(".")
    if len(parts) < 2 or not all(part.isdecimal() for part in parts):
        yield Broken(field=field, rule=f"must have the form 9.0, got {text!r}", fix="write numbers separated by points")


def _profile(field: str, profile: Profile) -> Iterator[Broken]:
    if not profile:
        yield Broken(field=field, rule="the profile has no inputs", fix="give min, opt and max for every input")
    for name, shapes in profile.items():
        triples = list(zip(shapes.min, shapes.opt, shapes.max, strict=False))
        alike = len(shapes.min) == len(shapes.opt) == len(shapes.max)
        if not alike or not triples or not all(1 <= low <= best <= high for low, best, high in triples):
            yield Broken(
                field=f"{field}.{name}",
                rule=(
                    f"min, opt and max must satisfy 1 <= min <= opt <= max, got {list(shapes.min)}, "
                    f"{list(shapes.opt)}, {list(shapes.max)}"
                ),
                fix="give three shapes of equal length, including the batch axis, in this order",
            )
