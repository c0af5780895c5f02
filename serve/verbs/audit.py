"""The verb that audits: a thin skin over `serve.security.audit`, and how findings look to people."""

import re
from pathlib import Path
from typing import Annotated

import typer

from seatrial.bench.verbs.samples import OwnTarget
from seatrial.optimize.tables import breach_table
from seatrial.optimize.terminal import Json, emit, out, progress, store

from ..security.audit import audit_folder, audit_server
from ..security.finding import Audit

_URL = re.compile(r"\w+://.*|[^/]+:\d+(/.*)?|localhost")


def audit(
    target: Annotated[str, typer.Argument(help="A model repository, manifests, proxy files, or a server's HTTP URL.")],
    grpc_url: Annotated[
        str, typer.Option(help="The server's gRPC endpoint; found automatically on this machine.")
    ] = "",
    metrics_url: Annotated[str, typer.Option(help="The server's metrics; found automatically on this machine.")] = "",
    own: OwnTarget = False,
    json_: Json = False,
) -> None:
    """Check a repository, manifests, proxies or a running server against the security checklist.

    Only reads and sends single requests: nothing is loaded, changed or sent in bulk. Exit 1 if anything of high
    severity is found. Unexamined parts are listed; for them the absence of findings means nothing.
    """
    kept = store()
    if not _URL.fullmatch(target):
        done = audit_folder(Path(target), kept)
    else:
        with progress() as report:
            report("audit", 0.1, f"asking {target}")
            done = audit_server(target, kept, grpc_url=grpc_url, metrics_url=metrics_url, own=own)
            report("audit", 1.0, "done")
    emit(done) if json_ else _print(done)
    raise typer.Exit(0 if done.passed else 1)


def _print(done: Audit) -> None:
    if done.findings:
        out.print(breach_table(done.findings))
    for line in done.looked:
        out.print(f"examined {line}", markup=False, highlight=False, soft_wrap=True)
    for line in done.unseen:
        out.print(f"not examined: {line}", markup=False, highlight=False, soft_wrap=True)
    counts = ", ".join(f"{count} {severity}" for severity, count in done.counts.items())
    out.print(f"{'passed' if done.passed else 'FAILED'}: {counts}")
