"""Verbs around the alarms of a monitor: rules for Prometheus, changes that may explain an alarm, the page of a day."""

import time
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from seatrial.optimize.environment import home
from seatrial.optimize.errors import ConfigError, MachineError
from seatrial.optimize.interrupts import wished
from seatrial.optimize.names import checked
from seatrial.optimize.plain import write_atomically
from seatrial.optimize.tables import table
from seatrial.optimize.terminal import Json, echo, emit, err, led, out

from .options import DEFAULT_REPOSITORY, Repository

if TYPE_CHECKING:
    from ..monitor.alarms import Alarm, Watched
    from ..monitor.changes import Change
    from ..monitor.plan import Plan
    from ..monitor.suspects import Diagnosed

Model = Annotated[str, typer.Argument(metavar="MODEL", help="The model that a monitoring plan names.")]
changes = typer.Typer(
    no_args_is_help=True, help="Changes around a model that may explain an alarm: add one, or list all that are known."
)
_ADVICE: Mapping[str, str] = {
    "patch": "this looks like the pipeline that feeds the model: find what changed there, and patch it",
    "label": "the inputs moved: label a random sample to learn whether the model still holds",
    "rollback": "a deployment stands right before it: take it back",
    "retrain": "the model got worse, and no older version is known to be better: retrain",
    "wait": "nothing shows harm: wait",
    "unknown": "the evidence names no cause",
}


def rules(
    plan: Annotated[Path, typer.Argument(metavar="PLAN", help="A monitoring plan (TOML) with its section service.")],
    into: Annotated[Path, typer.Option("--out", help="The output folder, one for each model.")],
    force: Annotated[bool, typer.Option("--force", help="Overwrite files that were edited by hand.")] = False,
    json_: Json = False,
) -> None:
    """Write alert rules for Prometheus, routes for Alertmanager, a dashboard for Grafana, and a runbook for each alert.

    The same plan gives the same bytes. A file that was edited since is not overwritten without --force, and files of
    other names stay. Check them: promtool check rules, promtool test rules, amtool check-config.
    """
    from ..monitor.plan import load_plan
    from ..monitor.rules import files

    chosen = load_plan(plan)
    checked(chosen.model, "model name", where=str(plan))
    made, alerts = files.contents(chosen)
    files.write(made, into, model=chosen.model, force=force)
    if json_:
        listed = [{"alert": each.name, "tier": each.tier, "threshold": each.threshold} for each in alerts]
        emit({"model": chosen.model, "folder": str(into), "files": sorted(made), "alerts": listed})
        return
    out.print(table(("alert", "tier"), [(each.name, each.tier) for each in alerts], left=("alert", "tier")))
    out.print(f"wrote {len(made)} files to {into}", soft_wrap=True)
    if not chosen.service.owner:
        err.print(led("yellow", "note: ", "no owner is named; runbooks escalate to one (owner in the section service)"))


@changes.command()
def add(
    model: Model,
    text: Annotated[str, typer.Argument(metavar="TEXT", help="What changed, in one line; name features it touches.")],
    at: Annotated[str, typer.Option(help="When (ISO 8601; without an offset it is UTC). Default: now.")] = "now",
    kind: Annotated[str, typer.Option(help="deploy, feature-store, pipeline or other.")] = "other",
    json_: Json = False,
) -> None:
    """Note a change around a model; one that is known already is not added twice.

    Deployments by seatrial need no note: they are read from its own journals.
    """
    from ..monitor import changes as known
    from ..monitor.looking import folder_of

    checked(model, "model name", where="MODEL")
    chosen = next((each for each in known.KINDS if each == kind), None)
    if chosen is None:
        raise ConfigError(
            f"{kind!r} is not a kind of change", where="--kind", next_step=f"choose {', '.join(known.KINDS)}"
        )
    change = known.Change(at=seconds(at, "--at"), kind=chosen, text=text.strip())
    new = known.add(folder_of(model), change)
    if json_:
        emit({"model": model, "added": new, "change": change})
    else:
        out.print(f"{known.moment(change.at)}: {'added' if new else 'known already'}")


@changes.command("list")
def list_(model: Model, repository: Repository = DEFAULT_REPOSITORY, json_: Json = False) -> None:
    """List the changes around a model: those that were added, placements, the last switch, and steps of rollouts."""
    from ..monitor.changes import moment

    checked(model, "model name", where="MODEL")
    found, unread = known_changes(model, repository)
    if json_:
        emit({"model": model, "changes": found, "unread": unread})
        return
    rows = [(moment(each.at), each.kind, "seatrial" if each.ours else "added", each.text) for each in found]
    head = ("time", "kind", "from", "change")
    out.print(table(head, rows, left=head) if rows else f"no change of {model} is known")
    for each in unread:
        err.print(led("yellow", "could not be read: ", each), soft_wrap=True)


def daily(
    model: Model,
    date: Annotated[str, typer.Option(help="The day (UTC): 2026-03-02, today, yesterday. Default: the last.")] = "",
    into: Annotated[Path | None, typer.Option("--out", help="Write the page (Markdown) to this file.")] = None,
    repository: Repository = DEFAULT_REPOSITORY,
    json_: Json = False,
) -> None:
    """Write the page of a day: what happened to a model's traffic, evidence, changes, and what was not seen."""
    from ..monitor import daily as pages
    from ..monitor import history
    from ..monitor.alarms import Watched
    from ..monitor.looking import folder_of
    from ..monitor.shelf import Shelf

    checked(model, "model name", where="MODEL")
    shelf = Shelf(folder=folder_of(model))
    learned, kept = shelf.baseline()[0], shelf.state()
    watched, past = kept[1] if kept else Watched(), history.read(shelf.folder)
    try:
        day = pages.read_day(date) if date else pages.newest(watched, time.time())
    except ValueError as error:
        raise ConfigError(f"{date!r} is not a day", where="--date", next_step="write it as 2026-03-02") from error
    found, unread = known_changes(model, repository)
    days = pages.Known(model=model, interval=learned.baseline.interval, watched=watched, history=past, changes=found)
    made = pages.day_of(days, day, unread=unread)
    page = pages.markdown(made)
    if into is not None:
        try:
            write_atomically(into, page.encode())
        except OSError as error:
            raise MachineError(
                f"cannot write the page: {error.strerror or error}", where=str(into), next_step="name another file"
            ) from error
    if json_:
        emit(made)
    elif into is None:
        echo(page)
    else:
        out.print(f"wrote {into}", soft_wrap=True)


def attend(plan: Path, files: Sequence[Path], *, every: float, delay: float, port: int) -> None:
    """Watch until SIGTERM or Ctrl-C, with metrics on a loopback port (0: none); what happens goes to stderr."""
    from .. import metrics
    from ..monitor.attending import Attendant

    def tell(text: str) -> None:
        at = datetime.now(UTC).isoformat(timespec="seconds")
        err.print(f"{at}  {text}", markup=False, highlight=False, soft_wrap=True)

    attendant = Attendant(plan, files, every=every, delay=delay, tell=tell)
    with wished() as stopping:
        if port:
            registry = metrics.registry()
            registry.register(attendant.metrics)
            with metrics.Endpoint(registry, port) as endpoint:
                tell(f"watching every {every:g} s, metrics at {endpoint.url}; SIGTERM or Ctrl-C ends this")
                attendant.run(stopping)
        else:
            tell(f"watching every {every:g} s; SIGTERM or Ctrl-C ends this")
            attendant.run(stopping)
    tell("stopped; what was judged is on disk")


def known_changes(model: str, repository: Path) -> "tuple[list[Change], list[str]]":
    """Return all changes that are known of a model, and what could not be read."""
    from ..monitor.deploys import known_changes as known
    from ..monitor.looking import folder_of

    return known(folder_of(model), home=home(), repository=repository, model=model)


def explained(plan: "Plan", watched: "Watched", repository: Path) -> "Diagnosed | None":
    """Hold the changes that are known against the alarm that holds; None without one."""
    from ..monitor.suspects import diagnosed

    if watched.alarm is None:
        return None
    found, _ = known_changes(plan.model, repository)
    return diagnosed(watched.alarm, watched.alarms, found, interval=plan.interval)


def show_alarm(alarm: "Alarm", found: "Diagnosed") -> None:
    """Print an alarm with its features, reasons, the changes before it, and the advice."""
    from ..monitor.changes import moment

    lead = f"alarm ({alarm.tier}) "
    out.print(led("bold red", lead, f"since {moment(alarm.began)}, last evidence {moment(alarm.renewed)}"))
    out.print(f"  features: {', '.join(alarm.cause.features[:8]) or 'none'}", soft_wrap=True)
    for reason in alarm.cause.reasons:
        out.print(f"  {reason}", soft_wrap=True)
    if alarm.harmed is not None:
        out.print(f"  at most {alarm.harmed:.1%} of the rows are concerned")
    for suspect in found.suspects[:5]:
        out.print(
            f"  before it: {moment(suspect.change.at)}, {suspect.change.text} ({suspect.change.kind})", soft_wrap=True
        )
        for lead, reasons in (("for", suspect.supports), ("against", suspect.against)):
            for reason in reasons:
                out.print(f"    {lead}: {reason}", soft_wrap=True)
    out.print(f"  advice: {_ADVICE[found.advice]}" + (f" ({found.reason})" if found.reason else ""), soft_wrap=True)
    if found.command:
        out.print(f"  command: {found.command}", soft_wrap=True)


def seconds(text: str, where: str) -> float:
    """Return a time in seconds of the Unix epoch.

    Raises:
        ConfigError: it is not a time.
    """
    try:
        moment = datetime.now(UTC) if text == "now" else datetime.fromisoformat(text)
        return (moment if moment.tzinfo else moment.replace(tzinfo=UTC)).timestamp()
    except (ValueError, OverflowError) as error:
        raise ConfigError(
            f"{text!r} is not a time", where=where, next_step="write it as 2026-03-02T10:00:00+00:00, or now"
        ) from error
