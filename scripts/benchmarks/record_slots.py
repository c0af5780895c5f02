"""Records an A/A session of the five-millisecond model on this machine's Triton, for the simulation's noise."""

import argparse
import tempfile
from pathlib import Path

from scripts.benchmarks.gate_real import bench
from scripts.benchmarks.gate_simulation import SLOTS, write
from seatrial.bench.gating import trials
from seatrial.optimize.environment import environment, now


def main() -> int:
    """Record, and write the file beside this script."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--pairs", type=int, default=24, help="pairs of the session, two slots each (default: 24)")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="seatrial-slots-") as folder, bench(Path(folder)) as each:
        trial = trials.aa(each.artifact, each.budget, each.means("aa"), pairs=arguments.pairs, resample=0)
        about = {"cpu": environment().cpu, "cores": environment().cores, "at": now(), "model": trial.model}
        count = write(trials.runs_of(trial), about)
    print(f"{count} slots: {SLOTS}")
    return 0 if count else 1


if __name__ == "__main__":
    raise SystemExit(main())
