"""Traffic and outcomes joined by DuckDB: requests by id, those without an outcome, and tables of training sets."""

from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from seatrial.optimize.errors import ConfigError, MachineError
from seatrial.optimize.plain import staging

from .on_duckdb import Traffic, plain, quoted
from .quantities import Columns, Floats

MOMENT = "moment"
"""Name of the column of times in what this returns, in seconds of the Unix epoch."""
_WRITERS: Mapping[str, str] = {
    ".csv": "(format csv, header, use_tmp_file false)",
    ".jsonl": "(format json, use_tmp_file false)",
    ".parquet": "(format parquet, use_tmp_file false)",
}


def parquet_rows(path: Path) -> list[dict[str, Any]]:
    """Return the rows of a Parquet file as objects.

    Raises:
        ConfigError: it cannot be read.
    """
    import duckdb

    try:
        with duckdb.connect() as connection:
            connection.execute("set threads = 2; set TimeZone = 'UTC'")
            found = connection.execute("select * from read_parquet(?)", [str(path)])
            names = [each[0] for each in found.description or ()]
            return [dict(zip(names, row, strict=True)) for row in found.fetchall()]
    except duckdb.Error as error:
        raise ConfigError(
            f"cannot be read as Parquet: {str(error).splitlines()[0]}", where=str(path), next_step="write it again"
        ) from error


def check_request(traffic: Traffic, column: str) -> None:
    """Raise ConfigError where the tables lack the column of request ids."""
    names = [each[0] for each in traffic.connection.execute("select * from traffic limit 0").description]
    if column not in names:
        raise ConfigError(
            f"the tables have no column {column!r}",
            where="outcomes.request",
            next_step="name the column of the request's id in the plan, or give the tables that have it",
        )


def moments(traffic: Traffic) -> Floats:
    """Return the times of all requests, in order, shape [rows]."""
    found = traffic.connection.execute("select moment from traffic where moment is not null order by place")
    return np.asarray(plain(found.fetchnumpy()[MOMENT]), dtype=np.float64)


def matched(traffic: Traffic, column: str, requests: Collection[str]) -> Columns:
    """Return the rows of these requests in order of time, of a request that comes twice the first; with `MOMENT`."""
    return _fetched(traffic, column, sorted(requests), "in")


def unmatched(traffic: Traffic, column: str, requests: Collection[str]) -> Columns:
    """Return the first row of every other request, in order of time; with `MOMENT`."""
    return _fetched(traffic, column, sorted(requests), "not in")


def _fetched(traffic: Traffic, column: str, requests: Sequence[str], which: str) -> Columns:
    connection, name = traffic.connection, quoted(column)
    connection.register("wanted", {"request": np.array(requests or [""], dtype=object)})
    try:
        found = connection.execute(
            f"select * exclude (place) from traffic where place in (select min(place) from traffic where {name} "
            f"{which} (select request from wanted) and {name} is not null and moment is not null group by {name}) "
            "order by place"
        ).fetchnumpy()
    finally:
        connection.unregister("wanted")
    return {each: plain(values) for each, values in found.items()}


def write_table(path: Path, columns: Columns) -> None:
    """Write columns as CSV, JSON lines or Parquet, by the ending; the file appears whole.

    Raises:
        ConfigError: another ending.
        MachineError: the system refused.
    """
    import duckdb

    kind = _WRITERS.get(path.suffix.lower())
    if kind is None:
        raise ConfigError(
            f"{path.suffix or 'no ending'} is not a kind of table that is written",
            where=str(path),
            next_step=f"name a file with one of {', '.join(_WRITERS)}",
        )
    try:
        with duckdb.connect() as connection, staging(path) as staged:
            connection.register("rows", dict(columns))
            named = ((quoted(name), column.dtype.kind == "f") for name, column in columns.items())
            shown = ", ".join(f"nullif({name}, 'nan'::double) as {name}" if real else name for name, real in named)
            place = str(staged).replace("'", "''")
            connection.execute(f"copy (select {shown} from rows) to '{place}' {kind}")
    except (OSError, duckdb.Error) as error:
        raise MachineError(
            f"the table cannot be written: {str(error).splitlines()[0]}",
            where=str(path),
            next_step="check the folder and its free space",
        ) from error
