"""Verbs of governance: approve a release, review it, and read the trail of what was done."""

from datetime import datetime
from math import isfinite
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from seatrial.optimize.environment import home, now
from seatrial.optimize.errors import ConfigError, MissingError
from seatrial.optimize.tables import table
from seatrial.optimize.terminal import Json, emit, led, out, store

from .options import DEFAULT_ROLES, Roles

if TYPE_CHECKING:
    from ..release.approvals import Approvals, Subject

trail = typer.Typer(no_args_is_help=True, help="The record of who did what to which model, which shows any change.")

Model = Annotated[str, typer.Argument(help="A model's or release's name.")]
Key = Annotated[Path | None, typer.Option(help="A private key (PEM) of a member of that role.")]
At = Annotated[str, typer.Option("--at", help="The time, ISO 8601 in UTC, or now.")]


def approve(
    release: Annotated[str, typer.Argument(help="NAME@VERSION; a bare name is the newest.")],
    role: Annotated[str, typer.Option("--as", help="The role to approve in; without one, show how it stands.")] = "",
    key: Key = None,
    reason: Annotated[str, typer.Option(help="The reason, kept in the trail.")] = "",
    withdraw: Annotated[bool, typer.Option("--withdraw", help="Take an earlier approval back.")] = False,
    roles: Roles = DEFAULT_ROLES,
    json_: Json = False,
) -> None:
    """Sign a release in a role of the file of roles, or show which approvals it has.

    Placing into a repository of a protected environment is refused until each of its roles has enough approvals. A
    member approves with an Ed25519 or ECDSA key of their own; no key counts for two roles. The file that is written is
    a bundle that OpenSSF Model Signing verifies too (ECDSA keys). Exit codes: 0 done, 1 shown, but short of approvals
    for a protected environment, 2 an unknown role or key, 5 an approval was changed or removed.
    """
    approvals, subject = _subject(release, roles)
    if not role:
        raise typer.Exit(_show_standings(approvals, subject, json_=json_))
    if key is None:
        raise ConfigError(
            "no key is named", where="--key", next_step="name the private key: --key FILE; openssl makes one"
        )
    approval, path = approvals.approve(subject, role=role, key=key, reason=reason, withdraw=withdraw)
    if json_:
        emit({"approval": approval, "file": str(path)})
        return
    done = "withdrawn" if withdraw else "approved"
    until = f", until {approval.expires[:10]}" if approval.expires else ""
    out.print(f"{approval.release} {done} by {approval.member} as {role}{until}: {path}", soft_wrap=True)


@trail.command()
def verify(
    key: Annotated[
        Path | None,
        typer.Option(help="The public key, from a place that writers of the trail cannot change."),
    ] = None,
    repair: Annotated[
        bool, typer.Option("--repair", help="Write an entry that a kill left in the head alone.")
    ] = False,
    json_: Json = False,
) -> None:
    """Check every byte of the trail: its chain, and its signed head. Exit codes: 0 sound, 5 damaged, with file and
    line.

    Without --key the key beside the trail is taken: that shows any change but one, in which trail, head and both keys
    were replaced together.
    """
    from ..release.trail_file import TrailFile

    found = TrailFile(home() / "trail").verify(public=key, repair=repair)
    if json_:
        emit(found)
    elif not found.damage:
        out.print(f"sound: {found.entries} entries, signed by {found.key[:19] or 'nobody yet'}")
    else:
        rows = [(each.where, each.what, each.next_step) for each in found.damage[:20]]
        out.print(table(("where", "what", "next step"), rows, left=("where", "what", "next step")))
        if len(found.damage) > 20:
            out.print(f"and {len(found.damage) - 20} more; --json has all")
    if found.damage:
        raise typer.Exit(5)


@trail.command()
def served(model: Model, at: At = "now", json_: Json = False) -> None:
    """Show which artifact answered a model's live requests at a time, at which share. Exit code 3: none is known."""
    from ..release.trail_file import TrailFile

    found = TrailFile(home() / "trail").served(model, _moment(at))
    if json_:
        emit({"served": found})
    elif found is not None:
        rows = [(str(each.version), f"{each.share:.4%}", each.digest or "unknown") for each in found.shares]
        title = f"{model} at {found.at}; in force since {found.since} (entry {found.entry})"
        out.print(table(("version", "share", "artifact"), rows, left=("artifact",), title=title))
        if found.changing:
            later = ", ".join(f"version {each.version} at {each.share:.4%}" for each in found.changing)
            out.print(led("yellow", "changing: ", f"routes were being changed at that moment, to {later}"))
    if found is None:
        if not json_:
            out.print(led("yellow", "unknown: ", f"the trail has no routes of {model} before that time"))
        raise typer.Exit(3)


@trail.command("list")
def list_(
    model: Annotated[str, typer.Argument(help="A model; without one, all of them.")] = "",
    last: Annotated[int, typer.Option(min=1, help="How many entries, the newest.")] = 50,
    json_: Json = False,
) -> None:
    """Show the newest entries, oldest first."""
    from ..release.trail_file import TrailFile

    found = [*TrailFile(home() / "trail").entries(model=model)][-last:]
    if json_:
        emit(found)
        return
    rows = [(str(each.seq), each.at[:19], each.event, each.model, each.subject[:26], each.actor) for each in found]
    head = ("entry", "at", "event", "model", "subject", "by")
    out.print(table(head, rows, left=head[1:]))


@trail.command()
def export(
    to: Annotated[Path, typer.Argument(help="A new folder.")],
    json_: Json = False,
) -> None:
    """Copy the trail, its signed head and its public key into a new folder, for an auditor; refused while damaged."""
    from ..release.trail_file import TrailFile

    found = TrailFile(home() / "trail").export(to)
    if json_:
        emit(found)
    else:
        out.print(f"{found.entries} entries, signed by {found.key[:19]}: {to}", soft_wrap=True)


def _subject(release: str, path: Path) -> "tuple[Approvals, Subject]":
    from ..release.approvals import Approvals, Subject
    from ..release.registry import Registry
    from ..release.roles import load_roles

    roles = load_roles(path)
    found = Registry(home() / "releases").get(release)
    artifact = store().get(found.digest)
    return Approvals(home(), roles, path.parent), Subject(release=found, artifact=artifact)


def _show_standings(approvals: "Approvals", subject: "Subject", *, json_: bool) -> int:
    """Print how the release stands in each environment; return the exit code."""
    found = {
        name: approvals.standings(subject, environment)
        for name, environment in approvals.roles.environments.items()
        if environment.protected
    }
    if not found:
        raise MissingError(
            "no environment is protected, so no release needs approval",
            where="environments",
            next_step="add [environments.NAME] with protected = true and roles to the file of roles",
        )
    short = any(not each.met for all_ in found.values() for each in all_)
    if json_:
        emit({"release": subject.release.label, "environments": found})
        return int(short)
    rows = [
        (
            name,
            each.role,
            f"{len(each.counted)} of {each.needs}",
            ", ".join(each.counted),
            "; ".join(each.others),
        )
        for name, all_ in found.items()
        for each in all_
    ]
    head = ("environment", "role", "approvals", "by", "not counted")
    out.print(table(head, rows, left=("environment", "role", "by", "not counted"), title=subject.release.label))
    return int(short)


def _moment(text: str) -> datetime:
    from ..release.trail_file import moment

    try:
        return moment(text)
    except ValueError as error:
        raise ConfigError(
            f"{text!r} is not a time", where="--at", next_step="write it as 2026-03-02T10:00:00+00:00, or now"
        ) from error


def review(
    release: Annotated[str, typer.Argument(help="NAME@VERSION; a bare name is the newest.")],
    kpi: Annotated[
        list[str] | None, typer.Option(help="NAME=VALUE: a realised figure to write down (may be repeated).")
    ] = None,
    low: Annotated[float | None, typer.Option(help="The lower end of its interval, where one figure is given.")] = None,
    high: Annotated[float | None, typer.Option(help="The upper end of its interval.")] = None,
    note: Annotated[str, typer.Option(help="A remark, kept with the figure.")] = "",
    json_: Json = False,
) -> None:
    """Compare what a release promised with what was realised, and write realised figures down.

    A figure is a KPI of the criteria or a metric of the verdict. Over five releases and more they show whether an
    offline metric follows a KPI; until then it may block a release, and never decides the KPI (docs/governance.md).
    """
    from ..release.registry import Registry
    from ..release.review import Realised, Reviews, compared

    found = Registry(home() / "releases").get(release)
    reviews = Reviews(home())
    given = [_figure(each) for each in kpi or ()]
    if len(given) != 1 and (low is not None or high is not None):
        raise ConfigError("an interval needs one figure", where="--low, --high", next_step="give one --kpi NAME=VALUE")
    for name, value in given:
        reviews.add(Realised(release=found.label, kpi=name, value=value, at=now(), low=low, high=high, note=note))
    rows = compared(found, reviews.of(found.name))
    if json_:
        emit({"release": found.label, "figures": rows})
        return
    shown = [
        (
            each.figure,
            _number(each.promised),
            _number(each.realised),
            _interval(each.low, each.high),
            each.unit,
            each.note,
        )
        for each in rows
    ]
    head = ("figure", "promised", "realised", "interval", "unit", "note")
    out.print(table(head, shown, left=("figure", "unit", "note"), title=found.label))


def _figure(text: str) -> tuple[str, float]:
    name, _, value = text.partition("=")
    try:
        figure = float(value)
        if not name or not isfinite(figure):
            raise ValueError
    except ValueError:
        raise ConfigError(f"{text!r} is no figure", where="--kpi", next_step="write NAME=VALUE") from None
    return name, figure


def _number(value: float | None) -> str:
    return "" if value is None else f"{value:.4g}"


def _interval(low: float | None, high: float | None) -> str:
    return "" if low is None or high is None else f"[{low:.4g}, {high:.4g}]"
