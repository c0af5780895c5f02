"""Latency: batches 1 to 256 eager, as a CUDA graph and compiled, after the same measurement twice; ONNX Runtime bound.

Inputs rotate over so many copies that they exceed three times the L2 cache, or the processor's last level.
"""

import tempfile
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

from scripts.gpu_sections.place import MissingPartError, Place, Times, refused, timed, torch_here
from scripts.gpu_sections.record import Claim, Found, at_least

BATCHES = (1, 8, 32, 128, 256)
AGREE = 0.01
COMPILED, GRAPH, ORT = 3.0, 2.0, 1.8
MOST_COPIES = 64
COMPILE = "compile bf16"
COMPILED_BATCHES = (32, 128)  # each takes up to a minute to compile


def run(place: Place) -> Found:
    """A/A first; then ResNet-50's and MiniLM's shape; ONNX Runtime on MiniLM; what is compiled comes last."""
    torch = torch_here()
    try:
        from scripts.gpu_sections import nets
    except ImportError as error:
        raise MissingPartError(str(error)) from error
    rows: list[dict[str, Any]] = []
    times: dict[tuple[str, str, int], Times] = {}
    with torch.inference_mode():
        rows.append(_same(torch, nets, place))
        for way in [way for way in WAYS if way != COMPILE]:
            _measure(torch, nets, place, way, BATCHES if not place.small else (2,), rows, times)
    bound, why = refused(lambda: _ort(torch, nets, place))
    rows.append(
        {"what": "MiniLM-L6", "way": "ONNX Runtime CUDA fp16, bound", "batch": 32} | (bound or {"unavailable": why})
    )
    with torch.inference_mode():
        _measure(torch, nets, place, COMPILE, COMPILED_BATCHES if not place.small else (2,), rows, times)
    return Found(rows=tuple(rows), claims=claims(rows[0], times, (bound or {}).get("wall_seconds")))


def _measure(
    torch: Any, nets: Any, place: Place, way: str, batches: tuple[int, ...], rows: list[Any], times: dict[Any, Times]
) -> None:
    """Add rows and times of one way for both nets."""
    for make in (nets.image_net, nets.text_net):
        name, module, inputs = make(place)
        for batch in batches:
            about = {"what": name, "way": way, "batch": batch}
            if place.left() < 10 and not place.small:
                rows.append(about | {"unavailable": "out of time"})
                continue
            found, why = refused(partial(_way, torch, place, module, inputs, batch, WAYS[way]))
            if why:
                rows.append(about | {"unavailable": why})
                continue
            rows.append(found[0].row(**about, **found[1]))
            times[name, way, batch] = found[0]


def _same(torch: Any, nets: Any, place: Place) -> dict[str, Any]:
    """The same measurement twice: the relative difference that is noise."""
    _, module, inputs = nets.text_net(place)
    found = [_way(torch, place, module, inputs, place.size(32, 2), WAYS["eager bf16"])[0] for _ in range(2)]
    apart = abs(found[0].device - found[1].device) / min(each.device for each in found)
    return {"what": "A/A", "way": "eager bf16", "batch": place.size(32, 2), "apart": apart}


def _way(torch: Any, place: Place, module: Any, inputs: Any, batch: int, prepare: Any) -> tuple[Times, dict[str, int]]:
    """Times, and over how many inputs they rotated, their bytes and the cache's."""
    torch.manual_seed(batch)
    size, held = sum(each.nbytes for each in inputs(batch)) // 2, cache(torch, place)  # bf16 has half of the bytes
    count = copies(size, held)
    given = [[each.to(place.device) for each in inputs(batch)] for _ in range(count)]
    act = prepare(torch, place, module, given)
    return timed(lambda turn: act(turn % count), place), {"copies": count, "rotated": count * size, "cache": held}


def cache(torch: Any, place: Place) -> int:
    """Bytes of the cache that inputs should not be found in."""
    if not place.small:
        return int(torch.cuda.get_device_properties(0).L2_cache_size)
    from seatrial.bench.measuring.rotation import last_level_cache

    return min(last_level_cache(), 1 << 20)


def copies(size: int, cache_bytes: int) -> int:
    """How many inputs of that size exceed three caches; at least two, and bounded."""
    return max(2, min(3 * cache_bytes // max(size, 1) + 1, MOST_COPIES))


def _eager(kind: str) -> Callable[..., Any]:
    def prepare(torch: Any, place: Place, module: Any, given: list[Any]) -> Callable[[int], Any]:
        placed, tensors = _cast(torch, place, module, given, kind)
        return lambda turn: placed(*tensors[turn])

    return prepare


def _graph(torch: Any, place: Place, module: Any, given: list[Any]) -> Callable[[int], Any]:
    """One CUDA graph for each copy, captured after warm-up runs on another stream."""
    placed, tensors = _cast(torch, place, module, given, "bf16")
    stream = torch.cuda.Stream()
    with torch.cuda.stream(stream):
        for _ in range(3):
            placed(*tensors[0])
    torch.cuda.current_stream().wait_stream(stream)
    graphs: list[Any] = []
    for each in tensors:
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph, pool=graphs[0].pool() if graphs else None):  # they are replayed one by one
            placed(*each)
        graphs.append(graph)
    return lambda turn: graphs[turn].replay()


def _compiled(torch: Any, place: Place, module: Any, given: list[Any]) -> Callable[[int], Any]:
    """torch.compile; on the CPU its tracer alone, since its code generator takes minutes there."""
    placed, tensors = _cast(torch, place, module, given, "bf16")
    compiled = torch.compile(placed, backend="eager" if place.small else "inductor", dynamic=False)
    return lambda turn: compiled(*tensors[turn])


def _cast(torch: Any, place: Place, module: Any, given: list[Any], kind: str) -> tuple[Any, list[Any]]:
    dtype = torch.bfloat16 if kind == "bf16" else torch.float32
    placed = module.to(place.device, dtype)
    return placed, [[each.to(dtype) if each.is_floating_point() else each for each in row] for row in given]


WAYS: dict[str, Callable[..., Any]] = {
    "eager fp32": _eager("fp32"),
    "eager bf16": _eager("bf16"),
    "graph bf16": _graph,
    COMPILE: _compiled,
}


def _ort(torch: Any, nets: Any, place: Place) -> dict[str, Any]:
    """MiniLM in fp16 in ONNX Runtime's CUDA provider, inputs and outputs bound on the device."""
    import onnxruntime as ort

    provider = "CPUExecutionProvider" if place.small else "CUDAExecutionProvider"
    _, module, inputs = nets.text_net(place)
    dtype = torch.float32 if place.small else torch.float16
    tensors = inputs(place.size(32, 2))
    with tempfile.TemporaryDirectory(prefix="seatrial-gpu-ort-") as folder:
        path = Path(folder, "model.onnx")
        module = module.to("cpu", dtype)
        names = ["input_ids", "attention_mask"]
        torch.onnx.export(module, tensors, str(path), input_names=names, output_names=["y"], dynamo=False)
        session = ort.InferenceSession(str(path), providers=[provider])
    if session.get_providers()[0] != provider:
        raise MissingPartError(f"asked for {provider}, got {session.get_providers()[0]}")
    kind = "cpu" if place.small else "cuda"
    binding = session.io_binding()
    for name, tensor in zip(names, tensors, strict=True):
        binding.bind_ortvalue_input(name, ort.OrtValue.ortvalue_from_numpy(tensor.numpy(), kind, 0))
    binding.bind_output("y", kind)

    def act(turn: int) -> None:
        session.run_with_iobinding(binding)
        binding.synchronize_outputs()

    return timed(act, place).row(provider=provider)


def claims(same: dict[str, Any], times: dict[tuple[str, str, int], Times], bound: float | None) -> tuple[Claim, ...]:
    """The table's bars; each unknown where one of its figures is missing."""

    def ratio(slow: tuple[str, str, int], *fast: tuple[str, str, int]) -> float | None:
        known = [times[each].device for each in fast if each in times]
        return times[slow].device / min(known) if slow in times and known else None

    resnet, minilm = "ResNet-50", "MiniLM-L6"
    ways = [(resnet, way, 128) for way in ("graph bf16", COMPILE)]
    eager = times.get((minilm, "eager fp32", 32))
    return (
        Claim(claim="A/A", bar=f"within {AGREE:.0%}", value=f"{same['apart']:.2%}", met=same["apart"] <= AGREE),
        at_least(
            "ResNet-50 batch 128, bf16 graph or compile, times as fast as eager fp32",
            ratio((resnet, "eager fp32", 128), *ways),
            COMPILED,
        ),
        at_least(
            "ResNet-50 batch 1, CUDA graph, times as fast as eager bf16",
            ratio((resnet, "eager bf16", 1), (resnet, "graph bf16", 1)),
            GRAPH,
        ),
        at_least(
            "MiniLM batch 32, ONNX Runtime CUDA fp16 bound, times as fast as torch fp32",
            eager.wall / bound if eager and bound else None,
            ORT,
        ),
    )
