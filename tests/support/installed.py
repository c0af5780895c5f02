"""Packages that are not seatrial's, laid down as an installer leaves them, and processes that see them."""

import json
import os
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path
from typing import Any

import pytest

from seatrial.bench.checks import CHECKS
from seatrial.bench.metrics import METRICS
from seatrial.bench.quality.metrics import TASK_METRICS
from seatrial.optimize.recipe.kinds import STAGES
from seatrial.optimize.registry import Registry
from seatrial.optimize.sessions.engine import ENGINES
from tests.house.test_floors import ROOT

OUTSIDE = Path(__file__).parent / "outside"
BUDGET = """
[design]
rate = 120.0
seconds = 9.0

[[limits]]
metric = "p90"
max_regression = 0.10

[[checks]]
kind = "margin"
at_least = 0.5

[[checks]]
kind = "metric"
metric = "balanced"
at_least = 0.3
"""
"""A budget that names a metric, a check and a task metric of the package, and of the one in CONTRIBUTING.md."""
REGISTRIES: tuple[Registry[Any], ...] = (STAGES, ENGINES, METRICS, CHECKS, TASK_METRICS)


def install(folder: Path, source: Path = OUTSIDE) -> Path:
    """Copy a project's package into `folder` and write the ``.dist-info`` that its pyproject.toml declares."""
    project = tomllib.loads((source / "pyproject.toml").read_text())["project"]
    shutil.copytree(source, folder, dirs_exist_ok=True, ignore=shutil.ignore_patterns("*.toml", "__pycache__"))
    points = "".join(
        f"[{group}]\n" + "".join(f"{name} = {value}\n" for name, value in entries.items())
        for group, entries in project["entry-points"].items()
    )
    return distribution(folder, project["name"], project["version"], points)


def distribution(folder: Path, name: str, version: str, points: str) -> Path:
    """Write what an installer records of a distribution with these entry points; return the folder."""
    info = folder / f"{name.replace('-', '_')}-{version}.dist-info"
    info.mkdir(parents=True)
    (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n")
    (info / "entry_points.txt").write_text(points)
    return folder


def seen(monkeypatch: pytest.MonkeyPatch, folder: Path) -> None:
    """Let this process see the packages installed in `folder`, in every registry, until the test ends."""
    for registry in REGISTRIES:  # read now: what this process sees without the folder
        assert not set(registry._outside) - set(registry.built_in)
    monkeypatch.syspath_prepend(str(folder))
    for registry in REGISTRIES:
        fresh = Registry(registry.what, registry.group, registry.built_in, registry._form)
        monkeypatch.setattr(registry, "_outside", fresh._outside)
        monkeypatch.setattr(registry, "_entries", {})


def command(*words: str, path: Path | None = None, expect: int = 0) -> subprocess.CompletedProcess[str]:
    """Run a verb in a process of its own that sees the packages installed in `path`; its exit code is checked."""
    found = os.pathsep.join([*([str(path)] if path else []), str(ROOT)])
    done = subprocess.run(
        [sys.executable, "-m", "seatrial", *words],
        env=os.environ | {"PYTHONPATH": found},
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert done.returncode == expect, f"{words}: {done.returncode}\n{done.stdout}\n{done.stderr}"
    assert "Traceback" not in done.stderr
    return done


def answer(*words: str, path: Path | None = None) -> Any:
    """Return the JSON document that a verb prints."""
    return json.loads(command(*words, "--json", path=path).stdout)
