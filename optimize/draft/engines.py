"""Engines of this machine that a drafted search may name: the registry is asked whether each opens here."""

from pathlib import Path

from ..errors import SeatrialError
from ..sessions.choice import OWN
from ..sessions.engine import ENGINES, require

_BF16 = ("amx_bf16", "avx512_bf16")
_CPU_INFO = Path("/proc/cpuinfo")


def others() -> tuple[str, ...]:
    """Return the names of engines that open ONNX files here beside the default one.

    One that computes in bfloat16 counts only where the processor does: without, it is many times slower.
    """
    found = []
    for name in ENGINES.names:
        try:
            engine = ENGINES.get(name)
            if "onnx" not in engine.formats or (engine.rounds and not _has_bfloat16()):
                continue
            require(engine)
        except SeatrialError:  # it lacks something here, or another package's engine is broken
            continue
        found.append(engine.name)
    return tuple(name for name in dict.fromkeys(found) if name != OWN.engine_for("onnx").name)


def _has_bfloat16() -> bool:
    try:
        lines = _CPU_INFO.read_text().splitlines()
    except OSError:
        return False
    flags = next((line for line in lines if line.startswith("flags")), "")
    return bool(set(_BF16) & set(flags.split()))
