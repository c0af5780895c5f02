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

from .artifact import canonical, digest_bytes
from .errors import MachineError
from .record import Record

LIBRARIES = (
    "torch",
    "onnx",
    "onnxscript",
    "onnxruntime-gpu",
    "openvino",
    "numpy",
    "scipy",
    "tensorrt",
    "tensorrt-cu13",
    "seatrial",
)
_INT8_FLAGS = ("avx512_vnni", "avx_vnni", "amx_int8", "avx512f", "avx2", "asimddp", "i8mm")


@dataclass(frozen=True, slots=True, kw_only=True)
class Environment(Record):
    """Properties of the machine that affect results. `libraries` maps distribution name to version."""

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

    @property
    def fingerprint(self) -> str:
        """Digest of the properties that affect speed: figures are comparable only under the same fingerprint."""
        speed = {key: value for key, value in self.to_json().items() if key not in ("commit", "memory_bytes")}
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
    return Environment(
        python=platform.python_version(),
        system=platform.system(),
        architecture=platform.machine(),
        cpu=cpu,
        cpu_flags=flags,
        cores=len(os.sched_getaffinity(0)),
        memory_bytes=os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES"),
        gpus=_gpus(),
        libraries=library_versions(LIBRARIES),
        commit=_commit(),
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
