"""Providers of ONNX Runtime: what one needs of this machine, and whether a session got the one that was asked for.

ONNX Runtime opens a model with the CPU provider where another one cannot be loaded, and says so in a log at most.
"""

import io
from collections.abc import Sequence
from contextlib import redirect_stdout
from importlib import metadata
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import onnxruntime as ort

from ..errors import MachineError
from .cuda import DRIVER, EXTRA, driver_missing, needed, unloadable
from .device import Device
from .engine import Missing, Provider

CPU, CUDA, TENSORRT = "CPUExecutionProvider", "CUDAExecutionProvider", "TensorrtExecutionProvider"
TENSORRT_EXTRA = "pip install 'seatrial[cuda,tensorrt-provider]'"

_FILES = {CUDA: "libonnxruntime_providers_cuda.so", TENSORRT: "libonnxruntime_providers_tensorrt.so"}
_OPENED_LATER = {CUDA: ("libcudnn.so.9",)}  # by the provider itself, at the first operator that needs it
_EXTRAS = {CUDA: EXTRA, TENSORRT: TENSORRT_EXTRA}


def names_of(providers: Sequence[Provider]) -> tuple[str, ...]:
    """Return the names of providers, their options left out."""
    return tuple(provider if isinstance(provider, str) else provider[0] for provider in providers)


def provider_missing(provider: str, device: Device) -> Missing | None:
    """Return what a provider lacks on this machine (wheel, libraries, driver, device), all at once; None where nothing.

    Loads the libraries of the wheels on the way, as the provider needs them loaded before it.
    """
    if provider not in ort.get_available_providers():
        return Missing(
            what=f"the installed ONNX Runtime ({_wheels()}) has no {provider}",
            next_step=f"pip uninstall --yes onnxruntime onnxruntime-gpu && {_EXTRAS.get(provider, EXTRA)}",
        )
    preload(provider)
    found = []
    if lacking := _libraries_missing(provider):
        found.append(Missing(what=_without(provider, lacking), next_step=_EXTRAS[provider]))
    if (driver := driver_missing(device)) is not None:
        found.append(driver)
    if not found:
        return None
    return Missing(
        what="; ".join(each.what for each in found), next_step="; then ".join(each.next_step for each in found)
    )


def preload(provider: str) -> None:
    """Load the CUDA libraries that wheels bring: ONNX Runtime's own look does not find them, or not all.

    A torch that is built for CUDA brings its own on import; `onnxruntime.preload_dlls` finds those of the nvidia wheels
    beside it; TensorRT's lie in a package of theirs.
    """
    import torch  # noqa: F401  a build for CUDA loads its libraries here

    with redirect_stdout(io.StringIO()):  # it prints what it does not find
        ort.preload_dlls()
    if provider == TENSORRT:
        unloadable(str(path) for path in _tensorrt_libraries())


def hold(session: Any, providers: Sequence[Provider], device: Device) -> None:
    """Check that a session runs with the first of the providers, on the device.

    Raises:
        MachineError: it fell back to another one; says what is missing.
    """
    asked, got = names_of(providers)[0], [str(name) for name in session.get_providers()]
    if asked not in got:
        raise refusal(asked, device, f"runs {got[0]}") or MachineError(
            f"ONNX Runtime was to run {asked} and runs {got[0]}; its libraries are all here",
            where=f"ONNX Runtime {ort.__version__}",
            next_step="set ORT's log level to 0 and look for the provider's message",
        )
    options = session.get_provider_options().get(asked, {})
    if device.kind == "cuda" and (used := options.get("device_id", str(device.index))) != str(device.index):
        raise MachineError(f"{asked} was to run on {device} and runs on cuda:{used}", where="device")


def refusal(provider: str, device: Device, got: str = "cannot load it") -> MachineError | None:
    """Return the error that names what a provider lacks on this machine; None where it lacks nothing."""
    lacking = provider_missing(provider, device) if provider != CPU else None
    if lacking is None:
        return None
    return MachineError(
        f"ONNX Runtime was to run {provider} and {got}: {lacking.what}",
        where=f"ONNX Runtime {ort.__version__}",
        next_step=lacking.next_step,
    )


def left_to_cpu(session: Any) -> tuple[str, ...]:
    """Return the nodes of a session on another device that it left to the CPU, by name or by type where they have none.

    Needs the session option ``session.record_ep_graph_assignment_info``.
    """
    if session.get_providers()[0] == CPU:
        return ()
    parts = (part for part in session.get_provider_graph_assignment_info() if part.ep_name == CPU)
    return tuple(str(node.name or node.op_type) for part in parts for node in part.get_nodes())


def _libraries_missing(provider: str) -> tuple[str, ...]:
    path = Path(ort.__file__).parent / "capi" / _FILES[provider]
    names = (*needed(path), *_OPENED_LATER.get(provider, ())) if path.exists() else (path.name,)
    return unloadable(name for name in names if name != DRIVER)


def _without(provider: str, lacking: tuple[str, ...]) -> str:
    said = f"{provider} needs {', '.join(lacking)}, not found here"
    installed = _versions("tensorrt-cu13", "tensorrt-cu12", "tensorrt")
    if any(name.startswith("libnvinfer") for name in lacking) and installed:
        said += f" (installed: {installed}, which is another version of TensorRT than this provider was built with)"
    return said


def _tensorrt_libraries() -> list[Path]:
    spec = find_spec("tensorrt_libs")
    folders = [Path(folder) for folder in (spec.submodule_search_locations or ())] if spec is not None else []
    return sorted(path for folder in folders for path in folder.glob("libnv*.so.*"))


def _wheels() -> str:
    return _versions("onnxruntime", "onnxruntime-gpu") or f"version {ort.__version__}"


def _versions(*names: str) -> str:
    found = []
    for name in names:
        try:
            found.append(f"{name} {metadata.version(name)}")
        except metadata.PackageNotFoundError:
            continue
    return " and ".join(found)
