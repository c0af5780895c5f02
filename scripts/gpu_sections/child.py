"""One section in a process of its own: ``python -m scripts.gpu_sections.child NAME FILE DEVICE SECONDS``.

Writes ``{"status", "reason", "found"}`` to FILE. A part that is missing is a status and no crash.
"""

import json
import sys
from dataclasses import asdict
from importlib import import_module
from pathlib import Path

from scripts.gpu_sections.place import MissingPartError, Place
from scripts.gpu_sections.sections import BY_NAME


def main(name: str, file: Path, device: str, seconds: float) -> int:
    """Run the section and write what it found; 0 also where something is missing."""
    try:
        found = import_module(BY_NAME[name].path).run(Place(device=device, seconds=seconds))
    except (MissingPartError, ModuleNotFoundError) as error:
        told = {"status": "missing", "reason": f"missing: {error}", "found": {}}
    else:
        told = {"status": "done", "reason": "", "found": asdict(found)}
    file.write_text(json.dumps(told, allow_nan=False))
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1], Path(sys.argv[2]), sys.argv[3], float(sys.argv[4])))
