"""The report verb: what a run's raw values say, again and offline, in every form that people and CI systems read."""

import json
from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from seatrial.optimize.errors import ConfigError
from seatrial.optimize.store import write_atomically
from seatrial.optimize.terminal import Json, echo, emit, out

from ..report.kinds import tell

Run = Annotated[Path, typer.Argument(help="A run's folder, for instance .seatrial/runs/gate-...")]


class Inconclusive(StrEnum):
    """JUnit status of an undecided rule."""

    SKIP = "skip"
    FAIL = "fail"


def report(
    run: Run,
    html: Annotated[
        Path | None, typer.Option(help="Write the HTML report here; default: report.html in the run.")
    ] = None,
    markdown: Annotated[bool, typer.Option("--markdown", help="Print Markdown, for a pull request.")] = False,
    junit: Annotated[Path | None, typer.Option(help="Write JUnit XML here: one case per rule.")] = None,
    inconclusive: Annotated[
        Inconclusive, typer.Option(help="The JUnit status of an undecided rule.")
    ] = Inconclusive.SKIP,
    benchmark: Annotated[
        Path | None, typer.Option("--pytest-benchmark", help="Write a gate's slots as a pytest-benchmark file.")
    ] = None,
    json_: Json = False,
) -> None:
    """Recompute a run's results from its raw values and write its report. The exit code is that of the run.

    Works offline, on any machine, after the folder was moved; a gate's verdict is identical bit for bit.
    """
    told = tell(run)
    page = html or run / "report.html"
    told.html(page)
    written = [page]
    if junit is not None:
        write_atomically(junit, told.junit(inconclusive.value).encode())
        written.append(junit)
    if benchmark is not None:
        if told.pytest_benchmark is None:
            raise ConfigError(f"a run of kind {told.kind!r} has no rounds to write", where=str(run))
        write_atomically(benchmark, json.dumps(told.pytest_benchmark(), indent=1, allow_nan=False).encode())
        written.append(benchmark)
    if json_:
        emit(dict(told.document) | {"run": str(run), "report": str(page)})
    elif markdown:
        echo(told.markdown())
    else:
        told.show(out)
        out.print(f"report: {', '.join(map(str, written))}", soft_wrap=True, markup=False)
    raise typer.Exit(told.exit_code)
