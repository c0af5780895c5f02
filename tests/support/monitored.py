"""A model whose traffic is monitored: a stream with season, its plan, tables of its hours, a home with its baseline."""

from collections.abc import Mapping
from pathlib import Path

import duckdb
import numpy as np
import pytest
from typer.testing import CliRunner, Result

from scripts.benchmarks.monitor_streams import HOUR, MONDAY, Stream
from seatrial.serve.cli import app

ROWS = 120
STREAM = Stream(features=3, rows=ROWS, mode="season", seed=21)
PLAN = 'schema = 1\nmodel = "shop"\n[features.f0]\nkind = "number"\n[features.f1]\nkind = "number"\n'
PLAN += '[features.f2]\nkind = "number"\n'


def table(
    path: Path,
    stream: Stream,
    first: int,
    last: int,
    *,
    names: Mapping[str, str] | None = None,
    base: float = MONDAY,
    seconds: float = HOUR,
) -> Path:
    """Write hours `first` to before `last` as a table; the last row is that of the hour after, which ends it.

    Hours count from `base`, and take so many `seconds`.
    """
    parts = [stream.at(hour) for hour in range(first, last)]
    columns = {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}
    within = np.linspace(0, 0.999 * seconds, ROWS)
    columns["time"] = np.concatenate([base + hour * seconds + within for hour in range(first, last)])
    columns["time"][-1] = base + last * seconds
    columns = {(names or {}).get(name, name): column for name, column in columns.items()}
    kind = {".parquet": "(format parquet)", ".jsonl": "(format json)", ".csv": "(header)"}[path.suffix]
    with duckdb.connect() as connection:
        connection.register("rows", columns)
        connection.execute(f"copy rows to '{path}' {kind}")
    return path


def learned_home(folder: Path) -> Path:
    """Learn the baseline of `PLAN` from 500 hours before `MONDAY`; returns the home that has it."""
    reference = table(folder / "reference.parquet", STREAM, -500, 0)
    (folder / "shop.toml").write_text(PLAN)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("SEATRIAL_HOME", str(folder / "home"))
        assert run("learn", folder / "shop.toml", reference).exit_code == 0
    return folder / "home"


def run(*words: object) -> Result:
    """Call the command in this process."""
    return CliRunner().invoke(app, [str(each) for each in words])
