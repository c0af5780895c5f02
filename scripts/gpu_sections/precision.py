"""Precision: the text net in fp32, TF32, fp16 and bf16, and products in int8, fp8 and 2:4, by time and by error."""

import copy
from functools import partial
from typing import Any

from scripts.gpu_sections.ceilings import precision
from scripts.gpu_sections.place import MissingPartError, Place, Times, refused, timed, torch_here
from scripts.gpu_sections.record import Claim, Found, at_least

FP8_GAIN = 1.5
ERRORS = {"fp32": 1e-4, "tf32": 0.02, "fp16": 0.02, "bf16": 0.2}  # of the outputs' spread


def run(place: Place) -> Found:
    """Nets against float64, products against bf16."""
    torch = torch_here()
    try:
        from scripts.gpu_sections import nets
    except ImportError as error:
        raise MissingPartError(str(error)) from error
    rows, claims = _nets(torch, nets, place)
    products, gain = _products(torch, place)
    return Found(
        rows=(*rows, *products),
        claims=(
            *claims,
            at_least("fp8 product, times as fast as bf16", gain, FP8_GAIN, "no fp8 product on this device"),
        ),
    )


def _nets(torch: Any, nets: Any, place: Place) -> tuple[list[dict[str, Any]], list[Claim]]:
    rows, claims = [], []
    for make in (nets.image_net, nets.text_net):
        name, module, inputs = make(place)
        torch.manual_seed(1)
        given = inputs(place.size(8, 2))
        with torch.inference_mode():
            reference = module.double()(*(_floats(each, torch.float64) for each in given)).numpy()
        for kind in ("fp32", "tf32", "fp16", "bf16"):
            found, why = refused(partial(_net, torch, module, given, kind, place))
            if why:
                rows.append({"what": name, "precision": kind, "unavailable": why})
                continue
            times, answer = found
            error = nets.distance(answer, reference)
            rows.append(times.row(what=name, precision=kind, error=error))
            claims.append(
                Claim(
                    claim=f"{name} in {kind}, error of float64's spread",
                    bar=f"<= {ERRORS[kind]:g}",
                    value=f"{error:.2g}",
                    met=error <= ERRORS[kind],
                )
            )
    return rows, claims


def _floats(tensor: Any, dtype: Any) -> Any:
    return tensor.to(dtype) if tensor.is_floating_point() else tensor


def _net(torch: Any, module: Any, given: Any, kind: str, place: Place) -> tuple[Times, Any]:
    dtype = {"fp16": torch.float16, "bf16": torch.bfloat16}.get(kind, torch.float32)
    placed = copy.deepcopy(module).to(place.device, dtype)  # each from the same weights
    tensors = [_floats(each, dtype).to(place.device) for each in given]
    with torch.inference_mode(), precision(torch, "tf32" if kind == "tf32" else "ieee"):
        answer = placed(*tensors).double().cpu().numpy()
        return timed(lambda turn: placed(*tensors), place), answer


def _products(torch: Any, place: Place) -> tuple[list[dict[str, Any]], float | None]:
    """Square products; how many times as fast fp8 is as bf16, None where it is refused."""
    side = place.size(8192, 64)
    torch.manual_seed(2)
    left, right = (torch.randn(side, side, device=place.device) / side**0.25 for _ in range(2))
    exact = (left.double() @ right.double()).cpu() if side <= 2048 else None
    rows: list[dict[str, Any]] = []
    seconds: dict[str, float] = {}
    for kind, make in {"bf16": _bf16, "int8": _int8, "fp8": _fp8, "2:4": _sparse}.items():
        found, why = refused(partial(_product, torch, place, make, left, right))
        if why:
            rows.append({"what": "product", "precision": kind, "side": side, "unavailable": why})
            continue
        times, answer = found
        seconds[kind] = times.device
        error = None if exact is None or answer is None else float((answer - exact).abs().max() / exact.std())
        rows.append(times.row(what="product", precision=kind, side=side, error=error))
    return rows, seconds["bf16"] / seconds["fp8"] if {"bf16", "fp8"} <= seconds.keys() else None


def _product(torch: Any, place: Place, make: Any, left: Any, right: Any) -> tuple[Times, Any]:
    act, scale = make(torch, left, right)
    answer = None if scale is None else act(0).double().cpu() * scale
    return timed(act, place), answer


def _bf16(torch: Any, left: Any, right: Any) -> tuple[Any, Any]:
    one, other = left.bfloat16(), right.bfloat16()
    return lambda turn: one @ other, 1.0


def _int8(torch: Any, left: Any, right: Any) -> tuple[Any, Any]:
    steps = [float(each.abs().max()) / 127 for each in (left, right)]
    one, other = ((each / step).round().to(torch.int8) for each, step in zip((left, right), steps, strict=True))
    other = other.t().contiguous().t()
    return lambda turn: torch._int_mm(one, other), steps[0] * steps[1]


def _fp8(torch: Any, left: Any, right: Any) -> tuple[Any, Any]:
    kind = torch.float8_e4m3fn
    scales = [each.abs().max() / torch.finfo(kind).max for each in (left, right)]
    one, other = ((each / scale).to(kind) for each, scale in zip((left, right), scales, strict=True))
    other = other.t().contiguous().t()
    scale_a, scale_b = (scale.float() for scale in scales)
    return (
        lambda turn: torch._scaled_mm(one, other, scale_a=scale_a, scale_b=scale_b, out_dtype=torch.bfloat16),
        1.0,
    )


def _sparse(torch: Any, left: Any, right: Any) -> tuple[Any, Any]:
    """Two of four of the left side kept; its error against the dense product says nothing, so none is given."""
    keep = torch.zeros_like(left).reshape(-1, 4)
    keep.scatter_(1, left.reshape(-1, 4).abs().topk(2, dim=1).indices, 1.0)
    pruned = (left * keep.reshape(left.shape)).bfloat16()
    packed = torch.sparse.to_sparse_semi_structured(pruned)
    other = right.bfloat16()
    return lambda turn: torch.mm(packed, other), None
