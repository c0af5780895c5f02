"""Ceilings: the copy bandwidth and the matrix products that every other figure is held against."""

from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any

from scripts.gpu_sections.place import Place, Times, refused, timed, torch_here
from scripts.gpu_sections.record import Claim, Found, at_least

PAPER = {"H200": {"bytes": 4.8e12, "bf16": 989e12}}
"""By a word of the GPU's name: memory bandwidth in bytes and dense bf16 operations per second, from the data sheet."""
COPY, PRODUCT = 0.88, 0.76  # of the paper's


def run(place: Place) -> Found:
    """Copy within the device, and square products in each type."""
    torch = torch_here()
    size = place.size(2 << 30, 4 << 20)
    copied = _copy(torch, place, size)
    bandwidth = 2 * size / copied.device  # read and written
    rows: list[dict[str, Any]] = [copied.row(what="copy", bytes=size, bytes_per_second=bandwidth)]
    side = place.size(8192, 96)
    rates: dict[str, float] = {}
    for name in ("fp32", "tf32", "fp16", "bf16"):
        found, why = refused(partial(product, torch, place, side, name))
        if why:
            rows.append({"what": f"product {name}", "unavailable": why})
            continue
        rates[name] = 2 * side**3 / found.device
        rows.append(found.row(what=f"product {name}", side=side, operations_per_second=rates[name]))
    name = torch.cuda.get_device_name() if not place.small else ""
    return Found(rows=tuple(rows), claims=claims(name, bandwidth, rates.get("bf16")))


def _copy(torch: Any, place: Place, size: int) -> Times:
    source = torch.ones(size, dtype=torch.uint8, device=place.device)
    target = torch.empty_like(source)
    return timed(lambda turn: target.copy_(source), place)


def product(torch: Any, place: Place, side: int, name: str) -> Times:
    """Time a square product in that type; TF32 is float32 with it allowed."""
    dtype = {"fp16": torch.float16, "bf16": torch.bfloat16}.get(name, torch.float32)
    left, right = (torch.randn(side, side, device=place.device).to(dtype) for _ in range(2))
    with precision(torch, "tf32" if name == "tf32" else "ieee"):
        return timed(lambda turn: left @ right, place)


@contextmanager
def precision(torch: Any, name: str) -> Iterator[None]:
    """Compute float32 products and convolutions as "ieee" or "tf32" inside a block."""
    before = torch.backends.fp32_precision
    torch.backends.fp32_precision = name
    try:
        yield
    finally:
        torch.backends.fp32_precision = before


def claims(name: str, bandwidth: float, bf16: float | None) -> tuple[Claim, ...]:
    """Both figures against the paper's for that GPU; unknown where no figure is recorded for it."""
    paper = next((figures for word, figures in PAPER.items() if word in name.split()), None)
    if paper is None:
        why = f"no data sheet figure is recorded for {name or 'this device'}"
        return (
            Claim(claim="copy, of the paper's bandwidth", bar=f">= {COPY}", why=why),
            Claim(claim="bf16 product, of the paper's rate", bar=f">= {PRODUCT}", why=why),
        )
    share = None if bf16 is None else bf16 / paper["bf16"]
    return (
        at_least("copy, of the paper's bandwidth", bandwidth / paper["bytes"], COPY),
        at_least("bf16 product, of the paper's rate", share, PRODUCT),
    )
