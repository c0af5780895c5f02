"""ONNX Runtime on a GPU through its TensorRT provider, which builds engines while it opens a model.

Experimental (`optimize.experimental.GPU`): it has never run on a GPU. The provider is built with TensorRT 10, the stage
``compile`` also takes 11; what it built lies in folders of SEATRIAL_HOME, one for each model, version and GPU. Without
profiles of its own the provider builds again whenever a shape leaves the range seen so far, so ranges are always given.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import ClassVar

from ..artifact import Format, TensorSpec, canonical, digest_bytes, digest_file
from ..environment import environment, home
from ..errors import ConfigError
from ..experimental import GPU, Experimental
from ..recipe.configs import Profile, Shapes
from ..record import as_json
from .device import Device, device_of
from .engine import Engine, Missing, ModelFiles, Opened
from .on_ort_cuda import options as cuda_options

TENSORRT, CUDA = "TensorrtExecutionProvider", "CUDAExecutionProvider"
BATCHES, LENGTHS = (1, 32, 128), (1, 128, 512)
"""Least, preferred and greatest size of a batch and of another free axis, where no profile says."""


class OrtTensorrt(Engine):
    """ONNX Runtime with TensorRT, and CUDA for what TensorRT leaves."""

    name: ClassVar[str] = "onnxruntime-tensorrt"
    formats: ClassVar[tuple[Format, ...]] = ("onnx",)
    device: ClassVar[str] = "cuda"
    provider: ClassVar[str] = TENSORRT
    install: ClassVar[str] = "pip install 'seatrial[cuda,tensorrt-provider]'"
    part: ClassVar[Experimental | None] = GPU

    def missing(self, device: Device) -> Missing | None:
        """Return what it lacks: the wheel's provider, TensorRT's and CUDA's libraries, the driver, the device."""
        from .on_ort_providers import provider_missing

        return provider_missing(TENSORRT, device)

    def load(self) -> None:
        """Import ONNX Runtime, and load the libraries that its provider needs."""
        from .on_ort_providers import preload

        preload(TENSORRT)

    def open(self, model: ModelFiles, *, device: str, threads: int) -> Opened:
        """Open ``model.onnx``, building what no earlier opening left in the caches: seconds to minutes.

        Raises:
            ConfigError: the profile does not cover the model's inputs.
        """
        from .on_ort import OrtSession

        place, path = device_of(device), model.file("model.onnx")
        profile = complete(model.inputs or OrtSession(path, optimize=False).inputs, model.profile)
        session = OrtSession(
            path,
            threads=threads,
            providers=((TENSORRT, options(place, profile, caches(path, profile))), (CUDA, cuda_options(place))),
            device=place,
            optimize=not model.as_written,
        )
        return Opened(session=session, provider=session.provider, device=str(place), on_cpu=session.on_cpu)


def options(device: Device, profile: Profile, folder: Path) -> dict[str, str]:
    """Return the provider's options: caches of engines and timings in `folder`, and the profile spelled out."""
    found = {
        "device_id": str(device.index),
        "trt_engine_cache_enable": "1",
        "trt_engine_cache_path": str(folder / "engines"),
        "trt_timing_cache_enable": "1",
        "trt_timing_cache_path": str(folder / "timings"),
    }
    for name in ("min", "opt", "max") if profile else ():
        shapes = (f"{tensor}:{'x'.join(map(str, getattr(each, name)))}" for tensor, each in profile.items())
        found[f"trt_profile_{name}_shapes"] = ",".join(shapes)
    return found


def caches(path: Path, profile: Profile) -> Path:
    """Return the folder of what is built from this file for these ranges on this machine, made where it is not there.

    An engine that lies under the right name is loaded unquestioned, so whatever decides about it is in the name.
    """
    asked = {"model": digest_file(path), "profile": as_json(profile), "machine": environment().fingerprint}
    folder = home() / "cache" / "tensorrt" / digest_bytes(canonical(asked)).removeprefix("sha256:")[:32]
    for name in ("engines", "timings"):
        (folder / name).mkdir(parents=True, exist_ok=True)
    return folder


def complete(inputs: Sequence[TensorSpec], profile: Mapping[str, Shapes]) -> dict[str, Shapes]:
    """Return a range for each input with a free axis: the profile's, or one from `BATCHES` and `LENGTHS`.

    The provider takes profiles for all dynamic inputs or none.

    Raises:
        ConfigError: the profile leaves out an input, or names one that is not there.
    """
    free = [spec for spec in inputs if any(not isinstance(dim, int) for dim in spec.shape)]
    if not profile:
        return {spec.name: _usual(spec) for spec in free}
    if wrong := {spec.name for spec in free} ^ set(profile):
        raise ConfigError(
            f"the profile and the model differ in {', '.join(sorted(wrong))}",
            where="profile",
            next_step=f"give min, opt and max for {', '.join(spec.name for spec in free) or 'no input'}",
        )
    return dict(profile)


def _usual(spec: TensorSpec) -> Shapes:
    free = (BATCHES, *[LENGTHS] * len(spec.shape))
    shapes = [
        tuple(dim if isinstance(dim, int) else sizes[place] for dim, sizes in zip(spec.shape, free, strict=False))
        for place in range(3)
    ]
    return Shapes(min=shapes[0], opt=shapes[1], max=shapes[2])
