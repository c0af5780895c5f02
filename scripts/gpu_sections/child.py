"""One section in a process of its own: ``python -m scripts.gpu_sections.child NAME FILE DEVICE SECONDS PARENT``.

Writes ``{"status", "reason", "found"}`` to FILE. A part that is missing is a status and no crash.
"""

import ctypes
import json
import math
import os
import signal
import sys
from dataclasses import asdict
from importlib import import_module
from pathlib import Path
from typing import Any

from scripts.gpu_sections.place import MissingPartError, Place
from scripts.gpu_sections.sections import BY_NAME

_DEATH_SIGNAL = 1  # PR_SET_PDEATHSIG, see prctl(2)


def main(name: str, file: Path, device: str, seconds: float, parent: int) -> int:
    """Run the section and write what it found; 0 also where something is missing."""
    ctypes.CDLL(None).prctl(_DEATH_SIGNAL, signal.SIGKILL)  # a run that is killed leaves no section behind
    if os.getppid() != parent:
        return 1
    try:
        found = import_module(BY_NAME[name].path).run(Place(device=device, seconds=seconds))
    except (MissingPartError, ModuleNotFoundError) as error:
        told = {"status": "missing", "reason": f"missing: {error}", "found": {}}
    else:
        told = {"status": "done", "reason": "", "found": finite(asdict(found))}
    file.write_text(json.dumps(told, allow_nan=False))
    return 0


def finite(value: Any) -> Any:
    """The value with text in the place of NaN and infinities, which JSON has not: one wrong figure loses no others."""
    if isinstance(value, dict):
        return {key: finite(each) for key, each in value.items()}
    if isinstance(value, list | tuple):
        return [finite(each) for each in value]
    return str(value) if isinstance(value, float) and not math.isfinite(value) else value


if __name__ == "__main__":
    sys.exit(main(sys.argv[1], Path(sys.argv[2]), sys.argv[3], float(sys.argv[4]), int(sys.argv[5])))
