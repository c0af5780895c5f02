"""Environment: the GPUs with driver and settings, the libraries, and why there is none where there is none.

Reads through the driver's tool and the packages' metadata; imports torch only to ask what it finds.
"""

import os
import platform
import subprocess
import sys
from importlib import metadata
from typing import Any

from scripts.gpu_sections.place import Place, refused
from scripts.gpu_sections.record import Found

QUERY = (
    *("uuid", "name", "driver_version", "compute_cap", "mig.mode.current", "enforced.power.limit", "memory.total"),
    *("clocks.max.sm", "clocks.max.memory", "ecc.mode.current", "persistence_mode"),
)
LIBRARIES = (
    *("torch", "onnx", "onnxruntime", "onnxruntime-gpu", "openvino", "tensorrt", "tensorrt-cu12", "tensorrt-cu13"),
    *("numpy", "scipy", "scikit-learn", "pydantic", "torch-pruning", "nvidia-ml-py", "nvidia-cudnn-cu13"),
    *("nvidia-cudnn-cu12", "nvidia-cublas", "nvidia-cuda-runtime", "pytest", "hypothesis", "nvidia-pytriton"),
)


def run(place: Place) -> Found:
    """One row with everything; notes say why no GPU can be used."""
    libraries = {name: version for name in LIBRARIES if (version := _version(name))}
    gpus, reasons = _gpus()
    torch, why = refused(_torch)
    if why:
        reasons.append(f"torch cannot be imported: {why}")
    elif not torch["cuda_devices"]:
        built = f"for CUDA {torch['cuda']}" if torch["cuda"] else "for the CPU alone"
        reasons.append(f"torch {torch['version']}, built {built}, finds no CUDA device")
    row = {
        "python": platform.python_version(),
        "executable": sys.executable,
        "system": platform.platform(),
        "cores": len(os.sched_getaffinity(0)),
        "memory_bytes": os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES"),
        "gpus": gpus,
        "torch": torch or {},
        "libraries": libraries,
        "missing": [name for name in ("pydantic", "torch-pruning", "onnx", "pytest") if name not in libraries],
        "variables": {name: os.environ[name] for name in _VARIABLES if name in os.environ},
        "commit": _commit(),
    }
    return Found(rows=(row,), notes=tuple(reasons))


_VARIABLES = ("CUDA_VISIBLE_DEVICES", "NVIDIA_TF32_OVERRIDE", "NVIDIA_VISIBLE_DEVICES", "OMP_NUM_THREADS")


def _version(name: str) -> str:
    try:
        return metadata.version(name)
    except metadata.PackageNotFoundError:
        return ""


def _gpus() -> tuple[list[dict[str, str]], list[str]]:
    command = ["nvidia-smi", f"--query-gpu={','.join(QUERY)}", "--format=csv,noheader,nounits"]
    done, why = refused(lambda: subprocess.run(command, capture_output=True, text=True, timeout=20, check=False))
    if why:
        return [], [f"nvidia-smi cannot be run: {why}"]
    if done.returncode:
        return [], [f"nvidia-smi failed: {(done.stderr or done.stdout).strip()[:300]}"]
    rows = [[part.strip() for part in line.split(",")] for line in done.stdout.splitlines() if line.strip()]
    gpus = [dict(zip(QUERY, row, strict=False)) for row in rows]
    return gpus, [] if gpus else ["nvidia-smi lists no GPU"]


def _torch() -> dict[str, Any]:
    import torch

    count = torch.cuda.device_count() if torch.cuda.is_available() else 0
    cudnn: Any = torch.backends.cudnn.version() if count else None  # type: ignore[no-untyped-call]
    backends: Any = torch.backends
    return {
        "version": str(torch.__version__),
        "cuda": torch.version.cuda,
        "cudnn": cudnn,
        "cuda_devices": count,
        "devices": [torch.cuda.get_device_name(index) for index in range(count)],
        "tf32_matmul": str(getattr(backends.cuda.matmul, "fp32_precision", "")),
        "tf32_convolution": str(getattr(getattr(backends.cudnn, "conv", None), "fp32_precision", "")),
    }


def _commit() -> str:
    command = ["git", "describe", "--always", "--dirty", "--abbrev=12", "--exclude=*"]
    done, why = refused(lambda: subprocess.run(command, capture_output=True, text=True, timeout=20, check=True))
    return "" if why else str(done.stdout).strip()
