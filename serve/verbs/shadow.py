"""The shadow verbs: what the mirrored answers say about a candidate."""

from pathlib import Path
from typing import Annotated

import typer

from seatrial.optimize import config
from seatrial.optimize.terminal import Json, emit, err, led, out, progress

from ..traffic.shadow import show as showing
from ..traffic.shadow.agreement import ANY, AgreementLimits, LimitsFile

app = typer.Typer(no_args_is_help=True, help="Compare a candidate's answers to mirrored requests with the live ones.")


@app.callback()
def group() -> None:
    """Compare a candidate's answers to mirrored requests with the live ones."""


@app.command()
def report(
    folder: Annotated[Path, typer.Argument(help="The folder of a capture, or one of its logs.")],
    top1: Annotated[
        float, typer.Option(help="Least fraction of the same class, for outputs with classes. 0: informational.")
    ] = 0.99,
    cosine: Annotated[float, typer.Option(help="Least mean cosine. -1: informational.")] = -1.0,
    max_error: Annotated[float | None, typer.Option(help="Greatest absolute error of any answer.")] = None,
    drift: Annotated[float | None, typer.Option(help="Greatest mean change of confidence, either way.")] = None,
    alpha: Annotated[float, typer.Option(help="Probability that a candidate within its limits ever fails.")] = 0.01,
    limits: Annotated[
        Path | None, typer.Option(help="Limits per output (TOML: schema, outputs.NAME), instead of those above.")
    ] = None,
    compared: Annotated[float, typer.Option(min=0, max=1, help="Least fraction compared for a PASS.")] = 0.9,
    stable: Annotated[int | None, typer.Option(min=1, help="Only answers of this live version.")] = None,
    candidate: Annotated[int | None, typer.Option(min=1, help="Only answers of this candidate.")] = None,
    html: Annotated[Path | None, typer.Option(help="Write a page with plots here.")] = None,
    json_: Json = False,
) -> None:
    """Join both arms' captured answers by request id, and judge whether the candidate agrees with the live version.

    A missing output, another shape or type, or NaN where the live version has numbers fails at once. The other limits
    are on means, with intervals that are valid at every look: run it again while traffic flows, and stop at PASS or
    FAIL. Exit code 3: more requests are needed; the table shows how many.
    """
    from ..traffic.envoy import on_capture

    if limits is not None:
        given = config.load(limits, LimitsFile)
    else:
        every = AgreementLimits(
            top1_at_least=top1 or None,
            cosine_at_least=None if cosine == -1.0 else cosine,
            max_error_at_most=max_error,
            drift_at_most=drift,
            alpha=alpha,
        )
        given = LimitsFile(schema=1, outputs={ANY: every}, compared_at_least=compared)
    with progress() as tell:
        tell("joining", 0.0, str(folder))
        where = folder.parent if folder.is_file() else folder
        joined, unreadable = on_capture.read(where, stable=stable, candidate=candidate)
        tell("judging", 0.5, f"{len(joined.found)} comparisons")
        found = joined.agreement(given.outputs, compared_at_least=given.compared_at_least)
        if html is not None:
            showing.write_html(html, found, joined.found, title=f"Shadow comparison, {where}")
        tell("judging", 1.0, "")
    if json_:
        emit(found.to_json() | {"unreadable_lines": unreadable})
    else:
        showing.print_agreement(found, out)
        if unreadable:
            err.print(led("yellow", f"{unreadable} lines of the logs could not be read"))
        if html is not None:
            out.print(f"page: {html}", soft_wrap=True, highlight=False)
    raise typer.Exit(found.exit_code)
