"""Upper bound of one core: ONNX Runtime alone, one batch after another, in a separate process.

``python -m scripts.benchmarks.batch_loop MODEL.onnx NAME BATCH SECONDS CORE`` prints one JSON line.
"""

import json
import os
import subprocess
import sys
import time
from pathlib import Path

from scripts.benchmarks.serving_models import samples
from seatrial.optimize.errors import SeatrialError


def run(model: Path, name: str, *, batch: int, seconds: float, core: int) -> tuple[float, float]:
    """Samples a second, and microseconds of processor time a sample.

    Raises:
        SeatrialError: the process failed.
    """
    command = [sys.executable, "-m", "scripts.benchmarks.batch_loop", str(model), name, str(batch), str(seconds)]
    done = subprocess.run(
        [*command, str(core)], capture_output=True, text=True, cwd=Path(__file__).parents[2], timeout=60 + seconds
    )
    if done.returncode:
        raise SeatrialError(f"the batch loop failed: {done.stderr.strip()[-300:]}")
    found = json.loads(done.stdout)
    return found["samples"] / found["seconds"], 1e6 * found["cpu_seconds"] / found["samples"]


def _loop(model: str, name: str, batch: int, seconds: float, core: int) -> dict[str, float]:
    import onnxruntime

    os.sched_setaffinity(0, {core})
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    session = onnxruntime.InferenceSession(model, options, providers=["CPUExecutionProvider"])
    feed, count = {"x": samples(name, batch)}, 0
    session.run(None, feed)
    began, cpu = time.perf_counter(), time.process_time()
    while (elapsed := time.perf_counter() - began) < seconds:
        session.run(None, feed)
        count += batch
    return {"samples": count, "seconds": elapsed, "cpu_seconds": time.process_time() - cpu}


if __name__ == "__main__":
    _, model, name, batch, seconds, core = sys.argv
    print(json.dumps(_loop(model, name, int(batch), float(seconds), int(core))))
