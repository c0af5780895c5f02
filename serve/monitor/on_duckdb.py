"""Tables of traffic, read by DuckDB: CSV, JSON lines or Parquet, in order of time, an interval at a time."""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from seatrial.optimize.errors import ConfigError, MissingError

from .captured.policy import TIME
from .on_captured import Rows, captured
from .plan import Plan
from .quantities import Columns
from .sketch import WRONG

READERS: Mapping[str, str] = {
    ".csv": "read_csv(?, union_by_name = true, all_varchar = true, header = true)",
    ".parquet": "read_parquet(?, union_by_name = true)",
    ".jsonl": "read_json(?, format = 'newline_delimited', union_by_name = true)",
    ".ndjson": "read_json(?, format = 'newline_delimited', union_by_name = true)",
}
_MOST_UNREADABLE = 0.01  # of the rows, whose time cannot be read


@dataclass(frozen=True, slots=True, kw_only=True)
class Traffic:
    """Rows that are at hand: `rows` of them with a time, from `first` to `last` in seconds of the Unix epoch.

    `skipped` rows had no readable time. `faults` names columns of the plan that are absent. `captured` are the rows of
    the edge's record, where these are read and no tables.
    """

    connection: Any
    rows: int
    skipped: int
    first: float
    last: float
    faults: tuple[str, ...]
    captured: Rows | None = None

    @property
    def notes(self) -> list[str]:
        """Return what was left out of captured rows, a line for each reason."""
        return [] if self.captured is None else self.captured.read.notes

    def refuse_lossy(self) -> None:
        """Refuse to learn from captured rows of which more than 1 % of the segments cannot be read.

        Raises:
            IntegrityError: it is so.
        """
        if self.captured is not None:
            self.captured.refuse_lossy()

    def sample(self, rows: int) -> Columns:
        """Draw that many rows of all, the same for the same rows."""
        share = max(1, -(-self.rows // rows))
        return self._fetched("place % ? = 0", share)

    def between(self, start: float, end: float) -> Columns:
        """Return the rows from `start` to before `end`, in seconds of the Unix epoch; arrays of shape [rows]."""
        return self._fetched("moment >= ? and moment < ?", start, end)

    def _fetched(self, which: str, *values: float) -> Columns:
        found = self.connection.execute(
            f"select * exclude (moment, place) from traffic where {which} order by place",
            list(values),
        ).fetchnumpy()
        return {name: plain(column) for name, column in found.items()}


@contextmanager
def opened(plan: Plan, files: Sequence[Path], *, answers: bool = False) -> Iterator[Traffic]:
    """Read tables of one kind, or where none is named the rows that the recorder captured of the plan's model.

    Of their columns only those that the plan names are kept, with `answers` also those of answers, labels and groups.

    Raises:
        MissingError: no such file.
        ConfigError: another kind of file, a file that cannot be read, no time column, more than 1 % of the rows without
            a time, or no rows.
    """
    with ExitStack() as stack:
        if files:
            yield stack.enter_context(_opened(plan, files, _reader(files), answers=answers))
        else:
            rows = stack.enter_context(captured(plan))
            table = _opened(replace(plan, time=TIME), [rows.path], READERS[".parquet"], answers=answers)
            yield replace(stack.enter_context(table), captured=rows)


@contextmanager
def _opened(plan: Plan, files: Sequence[Path], reader: str, *, answers: bool) -> Iterator[Traffic]:
    import duckdb

    with duckdb.connect() as connection:
        connection.execute("set threads = 2; set TimeZone = 'UTC'")
        try:
            source = connection.execute(f"select * from {reader} limit 0", [[str(each) for each in files]])
            names = [each[0] for each in source.description or ()]
            _check_time(plan, names, files)
            selected = _selected(plan, names, answers=answers)
            connection.execute(
                f"create temp table traffic as select *, row_number() over (order by moment) as place from "
                f"(select {_MOMENT.format(time=quoted(plan.time))} as moment, {selected} from {reader})",
                [[str(each) for each in files]],
            )
            rows, known, first, last = connection.execute(
                "select count(*), count(moment), min(moment), max(moment) from traffic"
            ).fetchall()[0]
        except duckdb.Error as error:
            raise ConfigError(
                f"cannot be read as a table: {str(error).splitlines()[0]}",
                where=", ".join(map(str, files)),
                next_step="write it as CSV with a header, JSON lines or Parquet",
            ) from error
        if not known or rows - known > _MOST_UNREADABLE * rows:
            raise ConfigError(
                f"{rows - known} of {rows} rows have no time that can be read",
                where=f"{files[0]}: {plan.time}",
                next_step="write times as ISO 8601 or as seconds since 1970",
            )
        absent = tuple(f"{name}: the column is absent" for name in plan.features if name not in names)
        yield Traffic(connection=connection, rows=known, skipped=rows - known, first=first, last=last, faults=absent)


_MOMENT = (
    "coalesce(try_cast(cast({time} as varchar) as double), epoch(try_cast(cast({time} as varchar) as timestamptz)))"
)


def _selected(plan: Plan, names: Sequence[str], *, answers: bool) -> str:
    """Return the columns of the plan that are there: numbers as they read, other text kept so that it can be named."""
    parts = []
    for name, feature in plan.features.items():
        if name not in names:
            continue
        column = quoted(name)
        text = f"cast({column} as varchar)"
        parts.append(f"try_cast({text} as double) as {column}" if feature.kind == "number" else f"{text} as {column}")
        if feature.kind == "number":
            wrong = f"{text} is not null and trim({text}) <> '' and try_cast({text} as double) is null"
            parts.append(f"({wrong}) as {quoted(WRONG + name)}")
    for name, kind in plan.also.items() if answers else ():
        if name in names:
            text = f"cast({quoted(name)} as varchar)"
            text = f"try_cast({text} as double)" if kind == "number" else text
            parts.append(f"{text} as {quoted(name)}")
    return ", ".join(parts) or "0 as nothing"


def _reader(files: Sequence[Path]) -> str:
    if missing := [str(each) for each in files if not each.is_file()]:
        raise MissingError("no such file", where=missing[0], next_step="check the path")
    kinds = {each.suffix.lower() for each in files}
    if len(kinds) != 1 or not kinds <= READERS.keys():
        raise ConfigError(
            f"tables of one kind are needed, {', '.join(READERS)}; got {', '.join(sorted(kinds)) or 'none'}",
            where=", ".join(map(str, files)),
            next_step="convert them, or call the verb once for each kind",
        )
    return READERS[kinds.pop()]


def _check_time(plan: Plan, names: Sequence[str], files: Sequence[Path]) -> None:
    if plan.time not in names:
        raise ConfigError(
            f"there is no column {plan.time!r}; there are {', '.join(names[:20])}",
            where=str(files[0]),
            next_step='name the column of the time in the plan: time = "..."',
        )


def quoted(name: str) -> str:
    """Return a name as SQL has it."""
    return '"' + name.replace('"', '""') + '"'


def plain(column: NDArray[Any]) -> NDArray[Any]:
    """Return a column with NaN or None where DuckDB masks it."""
    if not isinstance(column, np.ma.MaskedArray):
        return column
    gone = np.asarray(column.mask)
    if column.dtype.kind in "fb":
        return np.where(gone, np.nan if column.dtype.kind == "f" else False, column.data)
    found = np.asarray(column.data, dtype=object).copy()
    found[np.broadcast_to(gone, found.shape)] = None
    return found
