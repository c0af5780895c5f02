"""The process that `memory` measures: ``python -m seatrial.optimize.timing.memory_probe STORE DIGEST FOLDER ENGINE``.

Prints ``{"bytes": N}``, or exits 1 where this system keeps no high-water mark that can be set back.
"""

import gc
import json
import sys
from pathlib import Path

from ..sessions.engine import engine_of
from ..sessions.session import open_session
from ..store import Store
from .memory import BATCH_FILE

_RUNS = 3  # an engine's arena has its size after the second


def main(root: str, digest: str, folder: str, engine: str) -> int:
    """Open and run one artifact between two looks at the resident set."""
    from safetensors.numpy import load_file

    store = Store(Path(root))
    artifact = store.get(digest)
    inputs = load_file(Path(folder) / BATCH_FILE)
    engine_of(artifact.format, engine).load()
    gc.collect()
    try:
        Path("/proc/self/clear_refs").write_text("5")  # the high-water mark starts again from what is resident now
        before = _resident("VmRSS")
        session = open_session(artifact, store, threads=1, engine=engine)
        for _ in range(_RUNS):
            session.run(inputs)
        peak = _resident("VmHWM")
    except (OSError, LookupError) as error:
        print(f"no high-water mark: {error}", file=sys.stderr)
        return 1
    print(json.dumps({"bytes": max(0, peak - before)}))
    return 0


def _resident(name: str) -> int:
    """Bytes that the kernel reports of this process under that name."""
    lines = dict(line.split(":", 1) for line in Path("/proc/self/status").read_text().splitlines() if ":" in line)
    return int(lines[name].split()[0]) * 1024


if __name__ == "__main__":
    _, ROOT, DIGEST, FOLDER, ENGINE = sys.argv
    sys.exit(main(ROOT, DIGEST, FOLDER, ENGINE))
