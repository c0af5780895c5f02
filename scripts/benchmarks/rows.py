"""Rows of a benchmark: the claim, what was measured, the bar, and whether it was met. Measures nothing itself."""

import argparse
import json
import sys
import tempfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from seatrial.optimize.environment import environment, now
from seatrial.optimize.errors import SeatrialError


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """One claim: what was measured, the bar, and whether it was met."""

    name: str
    claim: str
    value: str
    bar: str
    met: bool


Rows = Mapping[str, Callable[[Path], Row]]
"""By name, what measures one row in an empty folder; a `SeatrialError` becomes a row that was not met."""


def main(description: str, rows: Rows, *, parents: Sequence[argparse.ArgumentParser] = ()) -> int:
    """Run the rows that the command line names, print each as it is done, and exit 0 where every bar was met.

    `parents` have options of the rows' own, shown in the help and read before by the code that made the rows.
    """
    parser = argparse.ArgumentParser(description=description, parents=list(parents))
    parser.add_argument("--json", action="store_true", help="print one JSON document")
    parser.add_argument("--only", choices=tuple(rows), action="append", help="measure this row only (may be repeated)")
    arguments = parser.parse_args()
    found = []
    if not arguments.json:
        here = environment()
        print(f"{now()}, {here.cpu}, {here.cores} cores, flags {', '.join(here.cpu_flags)}", flush=True)
    for name, measure in rows.items():
        if arguments.only and name not in arguments.only:
            continue
        row = _measured(name, measure)
        found.append(row)
        if not arguments.json:
            print(f"{'met ' if row.met else 'MISS'}  {row.claim}: {row.value} (bar {row.bar})", flush=True)
    if arguments.json:
        json.dump({"rows": [asdict(row) for row in found]}, sys.stdout, indent=1)
        print()
    return 0 if all(row.met for row in found) else 1


def _measured(name: str, measure: Callable[[Path], Row]) -> Row:
    with tempfile.TemporaryDirectory(prefix=f"seatrial-{name}-") as folder:
        try:
            return measure(Path(folder))
        except SeatrialError as error:
            return Row(name=name, claim=name, value=f"not measured: {error.what}", bar="measured", met=False)
