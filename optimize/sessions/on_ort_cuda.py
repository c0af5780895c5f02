"""ONNX Runtime on a GPU through its CUDA provider. Experimental (`optimize.experimental.GPU`): it has never run on one.

Float products stay float32: TF32, the provider's own choice, has 10 bits of mantissa, and a comparison with another
engine would not be one. cuDNN's heuristic picks convolutions, since timing every algorithm costs seconds at each shape.
"""

from typing import ClassVar

from ..artifact import Format
from ..experimental import GPU, Experimental
from .cuda import EXTRA
from .device import Device, device_of
from .engine import Engine, Missing, ModelFiles, Opened, Provider

CUDA = "CUDAExecutionProvider"


class OrtCuda(Engine):
    """ONNX Runtime with CUDA."""

    name: ClassVar[str] = "onnxruntime-cuda"
    formats: ClassVar[tuple[Format, ...]] = ("onnx",)
    device: ClassVar[str] = "cuda"
    provider: ClassVar[str] = CUDA
    install: ClassVar[str] = EXTRA
    part: ClassVar[Experimental | None] = GPU

    def missing(self, device: Device) -> Missing | None:
        """Return what it lacks: the wheel's provider, CUDA's libraries, the driver, the device."""
        from .on_ort_providers import provider_missing

        return provider_missing(CUDA, device)

    def graph_providers(self, device: Device) -> tuple[Provider, ...]:
        """Return CUDA's, with the options that `open` gives."""
        return ((CUDA, options(device)),)

    def load(self) -> None:
        """Import ONNX Runtime, and load the libraries that its provider needs."""
        from .on_ort_providers import preload

        preload(CUDA)

    def open(self, model: ModelFiles, *, device: str, threads: int) -> Opened:
        """Open ``model.onnx``; nodes without a kernel run on the CPU and are listed."""
        from .on_ort import OrtSession

        place = device_of(device)
        session = OrtSession(
            model.file("model.onnx"),
            threads=threads,
            providers=self.graph_providers(place),
            device=place,
            optimize=not model.as_written,
        )
        return Opened(session=session, provider=session.provider, device=str(place), on_cpu=session.on_cpu)


def options(device: Device) -> dict[str, str]:
    """Return the provider's options for one device."""
    return {
        "device_id": str(device.index),
        "use_tf32": "0",
        "cudnn_conv_algo_search": "HEURISTIC",
        "arena_extend_strategy": "kSameAsRequested",
    }
