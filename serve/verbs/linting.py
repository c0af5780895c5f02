"""The verb that reads a model repository and says what is wrong with it."""

from pathlib import Path
from typing import Annotated

import typer

from seatrial.optimize.errors import ConfigError
from seatrial.optimize.tables import breach_table
from seatrial.optimize.terminal import Json, emit, out

from ..triton.lint import lint as linting
from ..triton.repository.placement import models
from ..triton_releases import DEFAULT, RELEASES, known


def lint(
    repository: Annotated[Path, typer.Argument(metavar="DIR", help="A Triton model repository of any origin.")],
    triton: Annotated[
        str,
        typer.Option(
            help=f"The server's release; fields that it does not know are errors. Known: {', '.join(RELEASES)}."
        ),
    ] = DEFAULT,
    json_: Json = False,
) -> None:
    """Check every config.pbtxt and every file of a model repository against Triton's rules, without a server.

    An error is refused by Triton, or gives wrong answers; a warning is accepted but has another effect than the file
    suggests. Some errors affect more than the model: its load hangs, or the server ends. Exit codes: 0 no errors,
    1 errors, 2 no such directory.
    """
    if known(triton) is None:
        raise ConfigError(
            f"{triton!r} is not a known Triton release; the oldest known one is {RELEASES[0]}",
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
                "findings": findings,
            }
        )
    else:
        if findings:
            out.print(breach_table(each.breach for each in findings))
        found = f"{errors} errors, {len(findings) - errors} warnings" if findings else "no findings"
        out.print(f"configurations: {len(models(repository))}; {found}")
    if errors:
        raise typer.Exit(1)
