"""The demo's claims as measured rows: one fresh `seatrial ship`, nothing cached, read from its own JSON."""

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from seatrial.optimize.environment import environment, now

ROOT = Path(__file__).parent.parent.parent
RECIPE = "optimize/recipes/scenes-int8.toml"


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """One claim: what was measured, the bar, and whether it was met."""

    name: str
    claim: str
    value: str
    bar: str
    met: bool


def rows(shipped: dict[str, Any], exit_code: int, minutes: float) -> list[Row]:
    """The claims, read from the run's JSON."""
    steps = {step["label"]: step for step in shipped["build"]["steps"]}
    last, source, verdict = steps["quantize"], steps["source"], shipped["verdict"]
    pace = last["reference"]
    loss = source["quality"] - last["quality"]
    return [
        Row(
            name="speed",
            claim="int8 candidate vs fp32, in process, batch 32, one thread",
            value=f"{1 / pace['ratio']:.1f}x [{1 / pace['high']:.1f}, {1 / pace['low']:.1f}]",
            bar=">= 6x",
            met=1 / pace["high"] >= 6,
        ),
        Row(
            name="quality",
            claim=f"accuracy lost, {last['samples']} held-out scenes, same run",
            value=f"{100 * loss:.2f} pp ({source['quality']:.4f} to {last['quality']:.4f})",
            bar="<= 1 pp",
            met=loss <= 0.01,
        ),
        Row(
            name="verdict",
            claim="the gate agrees, through the served models",
            value=_verdict(verdict),
            bar="PASS",
            met=verdict["outcome"] == "PASS" and exit_code == 0,
        ),
        Row(
            name="time",
            claim="the whole walk, nothing cached",
            value=f"{minutes:.1f} min",
            bar="< 10 min",
            met=minutes < 10,
        ),
    ]


def _verdict(verdict: dict[str, Any]) -> str:
    ratios = {finding["metric"]: finding["ratio"] for finding in verdict["findings"]}
    if verdict["outcome"] != "PASS":
        return f"{verdict['outcome']}: {'; '.join(verdict['reasons'][:2])}"
    return f"PASS, p50 ratio {ratios['p50']:.2f}, p99 ratio {ratios['p99']:.2f}"


def main() -> int:
    """Run, print, and exit 0 where every bar was met."""
    parser = argparse.ArgumentParser(description="Measure the claims of the demo.")
    parser.add_argument("--json", action="store_true", help="print one JSON document")
    parser.add_argument("--only", choices=("speed", "quality", "verdict", "time"), help="print this row only")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="seatrial-walk-") as folder:
        start = time.monotonic()
        done = subprocess.run(
            [ROOT / ".venv/bin/seatrial", "ship", RECIPE, "--repository", f"{folder}/models", "--json"],
            cwd=ROOT,
            env=os.environ | {"SEATRIAL_HOME": f"{folder}/home"},
            stdout=subprocess.PIPE,
            text=True,
            check=False,
        )
        minutes = (time.monotonic() - start) / 60
    if not done.stdout.strip():
        return done.returncode
    found = [
        row for row in rows(json.loads(done.stdout), done.returncode, minutes) if arguments.only in (None, row.name)
    ]
    if arguments.json:
        print(json.dumps({"rows": [asdict(row) for row in found]}, indent=1))
    else:
        here = environment()
        print(f"{now()}, {here.cpu}, {here.cores} cores, flags {', '.join(here.cpu_flags)}")
        for row in found:
            print(f"{'met ' if row.met else 'MISS'}  {row.claim}: {row.value} (bar {row.bar})")
    return 0 if all(row.met for row in found) else 1


if __name__ == "__main__":
    sys.exit(main())
