"""Planted faults: how many of each kind are found, and how often a sound case is accused.

Each `fault_*.py` beside this file offers `FAULTS`, a tuple of `Fault`. Seeds are drawn fresh unless one is given.
"""

import argparse
import sys
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from importlib import import_module
from pathlib import Path
from secrets import randbits

import numpy as np

from scripts.benchmarks.rows import Row, Rows
from scripts.benchmarks.rows import main as run_rows

_FOUND = 0.99
_ACCUSED = 0.01


@dataclass(frozen=True, slots=True, kw_only=True)
class Fault:
    """One kind of fault: a way to plant it and a sound twin, each drawn from a generator.

    `planted` returns whether the product found the fault, `sound` whether it accused a case without one. What they
    call is the product's own code, never a copy of its rule.
    """

    name: str
    claim: str
    planted: Callable[[np.random.Generator], bool]
    sound: Callable[[np.random.Generator], bool]


def rows(cases: int, seed: int) -> Rows:
    """Return one row for each fault of every file beside this one."""
    modules = sorted(path.stem for path in Path(__file__).parent.glob("fault_*.py"))
    faults = [fault for module in modules for fault in import_module(f"scripts.benchmarks.{module}").FAULTS]
    return {fault.name: partial(_row, fault=fault, cases=cases, seed=seed) for fault in faults}


def _row(_: Path, fault: Fault, cases: int, seed: int) -> Row:
    seed = seed or randbits(31)
    streams = np.random.default_rng(seed).spawn(2 * cases)
    found = sum(fault.planted(stream) for stream in streams[:cases])
    accused = sum(fault.sound(stream) for stream in streams[cases:])
    return Row(
        name=fault.name,
        claim=fault.claim,
        value=f"{found} of {cases} planted found, {accused} of {cases} sound ones accused, seed {seed}",
        bar=f"at least {_FOUND:.0%} found, at most {_ACCUSED:.0%} accused",
        met=found >= _FOUND * cases and accused <= _ACCUSED * cases,
    )


def main() -> int:
    """Run the rows that the command line names."""
    parser = argparse.ArgumentParser(add_help=False)
    parser.add_argument("--cases", type=int, default=200, help="planted and sound cases of each kind")
    parser.add_argument("--seed", type=int, default=0, help="0 draws a fresh one")
    own, sys.argv[1:] = parser.parse_known_args()
    found = rows(own.cases, own.seed)
    return run_rows("Plant faults and count those that are found.", found, parents=(parser,))


if __name__ == "__main__":
    raise SystemExit(main())
