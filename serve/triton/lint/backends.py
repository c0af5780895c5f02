"""Rules of the backend: the name of one, the platform that goes with it, its library."""

from collections.abc import Iterator
from typing import Any

from ...deployment import Broken

PLATFORMS = {
    "onnxruntime_onnx": "onnxruntime",
    "tensorrt_plan": "tensorrt",
    "tensorflow_graphdef": "tensorflow",
    "tensorflow_savedmodel": "tensorflow",
    "pytorch_libtorch": "pytorch",
}
"""The backend of each platform that Triton knows; every other backend accepts any platform."""
_KNOWN = (
    *dict.fromkeys(PLATFORMS.values()),
    *("python", "dali", "openvino", "fil", "vllm", "tensorrtllm", "hugectr", "fastertransformer", "stateful"),
    *("paddlepaddle", "armnn_tflite", "torch_aoti", "identity", "repeat", "square", "redis"),
)


def backend_of(config: Any) -> str:
    """The backend that a configuration names, by itself or by its platform; "" where it names none."""
    return str(config.backend or PLATFORMS.get(config.platform, ""))


def platform_of(config: Any) -> str:
    """The platform that Triton reads in a configuration: its own, or the one of a backend that has just one."""
    fits = [platform for platform, backend in PLATFORMS.items() if backend == config.backend]
    return str(config.platform or (fits[0] if len(fits) == 1 else ""))


def broken_rules(config: Any) -> Iterator[Broken]:
    """Every rule that the name of the backend breaks."""
    backend, platform = config.backend, config.platform
    if config.HasField("ensemble_scheduling") or platform == "ensemble":
        return  # the ensemble's own rules
    if not backend and not platform:
        yield Broken(
            field="backend",
            rule=("neither backend nor platform is given: the server guesses from file names, or refuses the model"),
            fix="name the backend",
            severity="warning",
        )
    elif not backend and platform not in PLATFORMS:
        yield Broken(field="platform", rule=f"no backend serves platform {platform!r}", fix="name the backend instead")
    elif backend in PLATFORMS.values() and platform and PLATFORMS.get(platform) != backend:
        belongs = f"belongs to the backend {PLATFORMS[platform]}" if platform in PLATFORMS else "is unknown"
        yield Broken(
            field="platform",
            rule=f"{platform} {belongs}, but the backend is {backend}; Triton refuses the model",
            fix="remove the platform",
        )
    elif platform in PLATFORMS and backend and PLATFORMS[platform] != backend:
        yield Broken(
            field="platform",
            rule=f"{platform} belongs to the backend {PLATFORMS[platform]}, and {backend} ignores it",
            fix="remove the platform",
            severity="warning",
        )
    if backend and backend not in _KNOWN:
        yield from _unknown(backend)


def _unknown(backend: str) -> Iterator[Broken]:
    plain = "".join(sign for sign in backend.lower() if sign.isalnum())
    meant = [known for known in _KNOWN if known.replace("_", "") == plain]
    if meant:
        yield Broken(
            field="backend",
            rule=(
                f"backend {backend!r} does not exist, did you mean {meant[0]!r}? Triton looks for "
                f"libtriton_{backend}.so and refuses the model"
            ),
            fix=f'write backend: "{meant[0]}"',
        )
    else:
        yield Broken(
            field="backend",
            rule=f"{backend!r} is not a public backend: the server needs its own libtriton_{backend}.so",
            fix=f"install it with the server, or name one of {', '.join(sorted(_KNOWN))}",
            severity="warning",
        )
