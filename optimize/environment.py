"""Description of this machine (processor flags, GPU, library versions, commit), and the location of SEATRIAL_HOME.

Reads only and changes no setting. Every measurement stores its environment, since figures depend on it.
"""

import os
import platform
import subprocess
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import cache
from pathlib import Path
from typing import Any

from .artifact import canonical, digest_bytes
from .errors import MachineError
from .record import Record

LIBRARIES = (
    "torch",
    "onnx",
    "onnxscript",
    "onnxruntime",
    "onnxruntime-gpu",
    "openvino",
    "numpy",
    "scipy",
    "tensorrt",
    "tensorrt-cu12",
    "tensorrt-cu13",
    "nvidia-cuda-runtime",
    "nvidia-cuda-runtime-cu12",
    "nvidia-cudnn-cu12",
    "nvidia-cudnn-cu13",
    "nvidia-cublas",
    "nvidia-cublas-cu12",
    "seatrial",
)
_GPU_FIELDS = ("gpu_settings", "cuda", "tf32")  # left out of the JSON where there is nothing to say
_INT8_FLAGS = ("avx512_vnni", "avx_vnni", "amx_int8", "avx512f", "avx2", "asimddp", "i8mm")


@dataclass(frozen=True, slots=True, kw_only=True)
class GpuSettings(Record):
    """One GPU beyond its name: compute capability ("9.0"), MIG mode, enforced power limit in watts.

    What the driver does not report is empty, or None.
    """

    uuid: str
    name: str
    compute_capability: str = ""
    mig: str = ""
    power_limit: float | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Environment(Record):
    """Properties of the machine that affect results. `libraries` maps distribution name to version.

    `gpus` are "UUID, name, driver" of each GPU, `cuda` the newest CUDA version that the driver supports, `tf32` the
    variable ``NVIDIA_TF32_OVERRIDE`` (empty: each library decides by itself).
    """

    python: str
    system: str
    architecture: str
    cpu: str
    cpu_flags: tuple[str, ...]
    cores: int
    memory_bytes: int
    gpus: tuple[str, ...]
    libraries: dict[str, str]
    commit: str
    gpu_settings: tuple[GpuSettings, ...] = ()
    cuda: str = ""
    tf32: str = ""

    def to_json(self) -> dict[str, Any]:
        """Return the record; what concerns GPUs alone is left out where it is empty."""
        written = Record.to_json(self)
        return {key: value for key, value in written.items() if value or key not in _GPU_FIELDS}

    @property
    def gpu_kinds(self) -> tuple[str, ...]:
        """Name and driver of each GPU, without the UUID that tells one specimen from its like."""
        return tuple(gpu.partition(",")[2].strip() or gpu for gpu in self.gpus)

    @property
    def fingerprint(self) -> str:
        """Digest of the properties that affect speed: figures are comparable only under the same fingerprint.

        Two GPUs of one kind, driver and settings share it, whichever specimen they are.
        """
        speed = {key: value for key, value in self.to_json().items() if key not in ("commit", "memory_bytes")}
        speed["gpus"] = list(self.gpu_kinds)
        for settings in speed.get("gpu_settings", ()):
            del settings["uuid"]
        return digest_bytes(canonical(speed))


def home() -> Path:
    """Return where seatrial keeps its store, runs and logs: ``SEATRIAL_HOME``, else ``.seatrial`` where it was called.

    Raises:
        MachineError: the path holds control characters, or bytes that are not UTF-8: no record could name it.
    """
    found = Path(os.environ.get("SEATRIAL_HOME") or ".seatrial").absolute()
    if not is_text(str(found)):
        raise MachineError(
            "the path of seatrial's home contains control characters or bytes that are not UTF-8",
            where=str(found),
            next_step="set SEATRIAL_HOME to another folder",
        )
    return found


def is_text(path: str) -> bool:
    """Return whether a path is UTF-8 without control characters, so that records and shells can hold it."""
    return not any(
        character < " " or "\x7f" <= character < "\xa0" or "\ud800" <= character < "\ue000" for character in path
    )


def now() -> str:
    """The time as ISO-8601 in UTC, to the second."""
    return datetime.now(UTC).isoformat(timespec="seconds")


@cache
def environment() -> Environment:
    """Describe this machine, once per process."""
    cpu, flags = _processor()
    gpus = _gpus()
    return Environment(
        python=platform.python_version(),
        system=platform.system(),
        architecture=platform.machine(),
        cpu=cpu,
        cpu_flags=flags,
        cores=len(os.sched_getaffinity(0)),
        memory_bytes=os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES"),
        gpus=gpus,
        libraries=library_versions(LIBRARIES),
        commit=_commit(),
        gpu_settings=_gpu_settings() if gpus else (),
        cuda=_cuda() if gpus else "",
        tf32=os.environ.get("NVIDIA_TF32_OVERRIDE", "") if gpus else "",
    )


def library_versions(names: tuple[str, ...]) -> dict[str, str]:
    """Installed versions by distribution name, read from metadata so that nothing heavy is imported."""
    from importlib import metadata  # brings in the email package, needless for --help

    found = {}
    for name in names:
        try:
            found[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            continue
    return found


def _processor() -> tuple[str, tuple[str, ...]]:
    """Model name and the flags that decide how int8 kernels behave, from ``/proc/cpuinfo``."""
    name, flags = platform.processor() or "unknown", set[str]()
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        lines = []
    for line in lines:
        key, _, value = line.partition(":")
        if key.strip() == "model name":
            name = value.strip()
        if key.strip() in ("flags", "Features"):
            flags.update(value.split())
    return name, tuple(flag for flag in _INT8_FLAGS if flag in flags)


def _gpus() -> tuple[str, ...]:
    """UUID and name of every NVIDIA GPU, or nothing where the driver's tool is absent."""
    return tuple(
        line.strip() for line in _ask("nvidia-smi", "--query-gpu=uuid,name,driver_version", "--format=csv,noheader")
    )


def _gpu_settings() -> tuple[GpuSettings, ...]:
    """Settings of every NVIDIA GPU; empty where the driver's tool is too old for the query."""
    query = "--query-gpu=uuid,name,compute_cap,mig.mode.current,enforced.power.limit"
    rows = [
        [part.strip() for part in line.split(",")]
        for line in _ask("nvidia-smi", query, "--format=csv,noheader,nounits")
    ]
    return tuple(
        GpuSettings(
            uuid=uuid,
            name=name,
            compute_capability=_reported(capability),
            mig=_reported(mig),
            power_limit=float(limit) if limit.replace(".", "", 1).isdecimal() else None,
        )
        for uuid, name, capability, mig, limit in (row for row in rows if len(row) == 5)
    )


def _reported(value: str) -> str:
    """The value, or nothing where the card does not report it (``[N/A]``, ``[Not Supported]``)."""
    return "" if value.startswith("[") else value


def _cuda() -> str:
    """The CUDA version of the driver, from the line ``CUDA Version : 13.0`` of its tool."""
    lines = [line.partition(":") for line in _ask("nvidia-smi", "--version")]
    return next((value.strip() for key, _, value in lines if key.strip().lower() == "cuda version"), "")


def _commit() -> str:
    """Return the commit of the repository that seatrial was called in, ``-dirty`` where its tree differs.

    The user's, not seatrial's: whose version is among `libraries`. Empty outside a repository.
    """
    lines = _ask("git", "describe", "--always", "--dirty", "--abbrev=12", "--exclude=*")
    return lines[0] if lines else ""


def _ask(*command: str) -> list[str]:
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=10, check=True)
    except (OSError, subprocess.SubprocessError):
        return []
    return [line for line in done.stdout.splitlines() if line.strip()]
