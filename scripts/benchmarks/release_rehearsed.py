"""Rehearsals on the real servers: when each fault is noticed and overcome, and whether all is as before."""

import json
import os
import subprocess
from pathlib import Path

from scripts.benchmarks.attack_kill_jobs import command
from scripts.benchmarks.attack_world import NAME, ROOT, up
from scripts.benchmarks.rows import Row
from seatrial.optimize.environment import home

SCENARIOS = ("model-killed", "model-stalled", "server-killed", "edge-killed")
ROUNDS = 3


def rehearsals(folder: Path) -> Row:
    """Rehearse each scenario with processes three times, by turns."""
    found: dict[str, list[dict[str, object]]] = {name: [] for name in SCENARIOS}
    with up(folder):
        environment = os.environ | {"SEATRIAL_HOME": str(home()), "PYTHONPATH": str(ROOT)}
        for _ in range(ROUNDS):
            for name in SCENARIOS:
                words = command(["rehearse", NAME, name, "--here", "--json"])
                done = subprocess.run(words, env=environment, capture_output=True, text=True, check=False)
                text = done.stdout or "{}"
                found[name].append(json.loads(text).get("rehearsal", {"passed": False, "evidence": done.stderr[-200:]}))
    parts = [
        f"{name}: noticed after {_times(each, 'detected')} s, overcome after {_times(each, 'recovered')} s"
        for name, each in found.items()
    ]
    passed = sum(bool(each.get("passed")) for all_ in found.values() for each in all_)
    number = ROUNDS * len(SCENARIOS)
    return Row(
        name="rehearsals",
        claim=f"{number} rehearsals on the real Triton and Envoy; the system as before, by digests of its state",
        value=f"{passed} of {number} passed; {'; '.join(parts)}",
        bar="each detected and recovered, state equal",
        met=passed == number,
    )


def _times(found: list[dict[str, object]], name: str) -> str:
    return ", ".join("never" if each.get(name) is None else f"{float(str(each[name])):.1f}" for each in found)
