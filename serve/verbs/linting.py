"""The verb that reads a model repository and says what is wrong with it."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from optimize.cli import Json, emit, out
from optimize.terminal import led

from ..deployment.releases import DEFAULT, RELEASES, known

if TYPE_CHECKING:
    from rich.table import Table

    from ..triton.lint import Finding


def lint(
    repository: Annotated[Path, typer.Argument(metavar="DIR", help="A Triton model repository, whoever wrote it.")],
    triton: Annotated[
        str,
        typer.Option(help=f"The server's release; fields it does not know are errors. Read: {', '.join(RELEASES)}."),
    ] = DEFAULT,
    json_: Json = False,
) -> None:
    """Check every config.pbtxt and every file of a model repository against Triton's rules, without a server.

    An error is what Triton refuses, or what gives wrong answers; a warning is what it accepts and then does otherwise
    than the file lets one believe. Exit codes: 0 no errors, 1 errors, 2 no such directory.
    """
    from optimize.errors import ConfigError

    from ..triton.lint import lint as linting
    from ..triton.repository.placement import models

    if known(triton) is None:
        raise ConfigError(
            f"Triton {triton!r} is older than every release known here, or no version",
            where="--triton",
            next_step=f"name the server's version, {RELEASES[0]} or later",
        )
    findings = linting(repository, release=triton)
    errors = sum(finding.severity == "error" for finding in findings)
    if json_:
        emit(
            {
                "repository": str(repository),
                "triton": triton,
                "errors": errors,
                "warnings": len(findings) - errors,
                "findings": [finding.to_json() for finding in findings],
            }
        )
    else:
        if findings:
            out.print(_table(findings))
        found = f"{errors} errors, {len(findings) - errors} warnings" if findings else "nothing found"
        out.print(f"configurations: {len(models(repository))}; {found}")
    if errors:
        raise typer.Exit(1)


def _table(findings: tuple["Finding", ...]) -> "Table":
    from rich.table import Table

    table = Table("", "file", "field", "rule", "mend", show_lines=True)
    colours = {"error": "red", "warning": "yellow"}
    for each in findings:
        place = f"{each.file}:{each.line}" if each.line else each.file
        severity = led(colours[each.severity], each.severity)
        table.add_row(severity, place, each.field, each.rule, each.mend)
    return table
