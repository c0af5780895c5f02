"""Every row of the attack, in one command; the rows themselves stand in ``attack_*.py``."""

import argparse
import sys
from functools import partial
from importlib import import_module
from pathlib import Path
from typing import Any

from . import attack_edge, attack_programs, attack_rollouts
from .rows import Rows
from .rows import main as run_rows

_MORE = ("attack_soak", "attack_stores", "attack_kills", "attack_records")


def rows(options: attack_edge.Options) -> Rows:
    """Return every row, those of other files where they are there."""
    found: dict[str, Any] = {"honest": partial(attack_edge.beside_honest, options=options)}
    found |= attack_rollouts.rows(options)
    found |= attack_programs.rows(options)
    for name in _MORE:
        if Path(__file__).with_name(f"{name}.py").exists():
            found |= getattr(import_module(f"scripts.benchmarks.{name}"), "ROWS", {})  # one has a command of its own
    return found


def main() -> int:
    """Run the rows that the command line names."""
    parser = argparse.ArgumentParser(add_help=False)
    parser.add_argument("--seconds", type=float, default=600.0, help="seconds of the row `honest`")
    parser.add_argument("--requests", type=int, default=0, help="attacks of the row `honest`; default 2,000 in 600 s")
    parser.add_argument("--rollouts", type=int, default=20, help="rollouts of each kind")
    parser.add_argument("--seed", type=int, default=0, help="0 draws a fresh one")
    parser.add_argument("--keep", type=Path, help="folder for the attacks that got through")
    own, sys.argv[1:] = parser.parse_known_args()
    options = attack_edge.Options(**vars(own))
    return run_rows(
        "Attack a running server, and measure the effect on honest callers.", rows(options), parents=(parser,)
    )


if __name__ == "__main__":
    raise SystemExit(main())
