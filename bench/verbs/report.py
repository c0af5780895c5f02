"""The report verb: what a run's raw values say, again and offline."""

from pathlib import Path
from typing import Annotated

import typer

from optimize.cli import Json, emit, out

Run = Annotated[Path, typer.Argument(help="The folder that a gate wrote, for instance .seatrial/runs/gate-...")]


def report(
    run: Run,
    html: Annotated[
        Path | None, typer.Option(help="Write the HTML report here; default: report.html in the run.")
    ] = None,
    markdown: Annotated[bool, typer.Option("--markdown", help="Print Markdown, for a pull request.")] = False,
    json_: Json = False,
) -> None:
    """Judge a gate's run again from its raw values, and write its report. Exit code as the gate's."""
    from .. import gate as gating
    from .. import report as reporting

    verdict = gating.rejudge(run)
    raw, verdict = gating.read_gate(run)
    page = html or run / "report.html"
    title = f"{raw.header.candidate['name']} against {raw.header.base['name']}"
    reporting.write_html(page, title=title, verdict=verdict, run=raw)
    if json_:
        emit(verdict.to_json() | {"run": str(run), "report": str(page)})
    elif markdown:
        typer.echo(reporting.to_markdown(verdict))
    else:
        reporting.print_verdict(verdict, out)
        out.print(f"report: {page}", soft_wrap=True)
    raise typer.Exit(verdict.exit_code)
