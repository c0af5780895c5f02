"""Engines that only the Python backend has, with their options: OpenVINO and PyTorch in our model.py.

Types and the rules that they break by themselves. What a library lacks on a machine is `serve.triton.engines`' matter.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from .broken import Broken, outside, repeated

if TYPE_CHECKING:
    from . import Deployment

Outputs = Literal["host", "device"]


@dataclass(frozen=True, slots=True, kw_only=True)
class OpenVino:
    """OpenVINO on the CPU.

    `precision` is what floats are computed in; int8 graphs run in int8 with either. `buckets` are batch sizes that get
    a compiled model of fixed shape each, and a batch is filled up to the next: faster for small models, and more
    memory. Empty: one model for every size.
    """

    kind: Literal["openvino"]
    precision: Literal["f32", "bf16"] = "f32"
    buckets: tuple[int, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Torch:
    """PyTorch with a program of `torch.export`, on instances of either kind.

    `outputs` "device" leaves outputs on the GPU for the next step of an ensemble.
    """

    kind: Literal["torch"]
    outputs: Outputs = "host"


def broken_rules(deployment: "Deployment") -> Iterator[Broken]:
    """Every rule that the deployment's engine breaks with the rest of the deployment."""
    engine = deployment.engine
    if isinstance(engine, OpenVino):
        yield from _buckets(engine.buckets, deployment.max_batch_size)
    if getattr(engine, "outputs", "host") == "device":
        if deployment.instances.kind != "gpu":
            yield Broken(
                field="engine.outputs",
                rule="instances on the CPU have no device to leave outputs on",
                fix='write outputs = "host", or kind = "gpu" in [instances]',
            )
        if deployment.cache is not None:
            yield Broken(
                field="engine.outputs",
                rule="the cache of answers keeps host arrays only",
                fix='write outputs = "host", or remove [cache]',
            )


def _buckets(buckets: tuple[int, ...], largest: int) -> Iterator[Broken]:
    field = "engine.buckets"
    yield from repeated(field, buckets)
    for size in buckets:
        yield from outside(field, size, 1, largest, "remove it, or raise max_batch_size", high_is="max_batch_size")
    if buckets and largest and max(buckets) < largest:
        yield Broken(
            field=field,
            rule=f"no bucket holds a batch of {largest}, which is max_batch_size",
            fix=f"add {largest}",
        )
