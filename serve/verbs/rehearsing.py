"""The verb that rehearses: plant a fault, measure who notices and when it is overcome, and keep the record."""

import signal
import time
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, get_args

import typer

from seatrial.optimize.environment import home, now
from seatrial.optimize.errors import ConfigError, MissingError
from seatrial.optimize.names import checked
from seatrial.optimize.tables import table
from seatrial.optimize.terminal import Json, emit, led, out, progress, store

from ..rehearsal.record import SCENARIOS, Rehearsal, Scenario, keep, kept
from .options import DEFAULT_ROLES, Roles

if TYPE_CHECKING:
    from ..rehearsal.timing import Fault

_HERE = "run it in a rehearsal environment: rehearsal = true in the file of roles; or say that it may be here: --here"


def rehearse(
    model: Annotated[str, typer.Argument(help="A placed model, or a release (NAME@VERSION) for revoked-key.")],
    scenario: Annotated[str, typer.Argument(help="A scenario; without one, list them with what was rehearsed.")] = "",
    version: Annotated[int, typer.Option(help="The version whose processes fail; 0: the newest that serves.")] = 0,
    edge: Annotated[str, typer.Option(help="The edge; default: the only one.")] = "",
    plan: Annotated[Path | None, typer.Option(help="The monitoring plan, for scenarios of the data.")] = None,
    traffic: Annotated[list[Path] | None, typer.Option(help="A table of traffic (may be repeated).")] = None,
    feature: Annotated[str, typer.Option(help="The number that is poisoned; default: the plan's first.")] = "",
    longest: Annotated[float, typer.Option(min=1.0, max=3600.0, help="Seconds to wait at most.")] = 120.0,
    here: Annotated[
        bool, typer.Option("--here", help="Plant the fault although this is no rehearsal environment.")
    ] = False,
    roles: Roles = DEFAULT_ROLES,
    json_: Json = False,
) -> None:
    """Plant a fault on purpose, measure when it is noticed and overcome, take it back, and keep the record.

    Scenarios with processes kill or halt what really runs, so they are refused outside an environment with
    rehearsal = true, unless --here says otherwise; those of the data and of keys work on copies. Exit codes: 0 noticed
    and overcome in time and all as before, 1 not, 2 it could not begin and nothing was planted.
    """
    if not scenario:
        _list(model.partition("@")[0], json_=json_)
        return
    if scenario not in SCENARIOS:
        raise ConfigError(
            f"unknown scenario {scenario[:40]!r}", where="SCENARIO", next_step=f"choose one of: {', '.join(SCENARIOS)}"
        )
    chosen: Scenario = next(each for each in get_args(Scenario) if each == scenario)
    if chosen in ("poisoned-feature", "dead-pipeline"):
        found = _of_traffic(model, chosen, plan, traffic or [], feature)
    elif chosen == "revoked-key":
        found = _of_keys(model, roles)
    else:
        found = _of_processes(model, chosen, version, edge, longest=longest, here=here, roles=roles)
    path = keep(home(), found)
    _entered(found)
    if json_:
        emit({"rehearsal": found, "record": str(path)})
    else:
        _show(found, path)
    if not found.passed:
        raise typer.Exit(1)


def _of_processes(
    model: str, scenario: Scenario, version: int, edge: str, *, longest: float, here: bool, roles: Path
) -> Rehearsal:
    from ..rehearsal.timing import timed

    checked(model, "model name", where="MODEL")
    fault, subject = _fault(model, scenario, version, edge, here=here, roles=roles)
    at = now()
    with progress() as report:
        found = timed(
            fault,
            longest=longest,
            clock=time.monotonic,
            sleep=time.sleep,
            progress=lambda share, text: report(scenario, share, text),
        )
    description = SCENARIOS[scenario]
    return Rehearsal(
        scenario=scenario,
        model=model,
        subject=subject,
        at=at,
        detected=found.detected,
        recovered=found.recovered,
        limit=description.limit,
        unit=description.unit,
        evidence=found.evidence,
        same=found.same,
        undone=found.undone,
    )


def _fault(model: str, scenario: Scenario, version: int, edge: str, *, here: bool, roles: Path) -> "tuple[Fault, str]":
    """Return the fault of a scenario with processes, and what it is planted in.

    Raises:
        RehearsalError: this is no rehearsal environment.
    """
    from ..errors import RehearsalError, ServerError
    from ..rehearsal.servers import EdgeFault, ServerFault, StubsFault
    from ..release.roles import load_roles
    from ..traffic.live import find
    from ..triton.control import Control
    from ..triton.running import on_pytriton

    server = on_pytriton.status()
    if server is None:
        raise ServerError("no server is running", next_step="start one: seatrial up, and seatrial supervise beside it")
    known = load_roles(roles).environment_of(server.repository, roles.parent) if roles.exists() else None
    if not here and (known is None or not known[1].rehearsal):
        what = "is of no environment" if known is None else f"is of the environment {known[0]}"
        raise RehearsalError(f"the repository {what}", where=str(server.repository), next_step=_HERE)
    if scenario == "edge-killed":
        proxy = find(edge).proxy
        return EdgeFault(proxy, model), f"edge {proxy.edge.name}"
    with Control.to(server) as control:
        ready = control.ready_versions(model)
    if not ready or (version and version not in ready):
        raise MissingError(
            f"{model} {f'version {version} ' if version else ''}is not served",
            where=str(server.repository),
            next_step=f"versions that are: {sorted(ready)}" if ready else "serve it: seatrial switch MODEL VERSION",
        )
    chosen = version or max(ready)
    if scenario == "server-killed":
        return ServerFault(server, model, chosen), f"server at {server.url}"
    number = signal.SIGKILL if scenario == "model-killed" else signal.SIGSTOP
    return StubsFault(server, model, chosen, number), f"version {chosen}"


def _of_traffic(model: str, scenario: Scenario, plan: Path | None, files: list[Path], feature: str) -> Rehearsal:
    from ..monitor.plan import load_plan
    from ..rehearsal.traffic import dead, poisoned

    if plan is None:
        raise ConfigError("no plan is named", where="--plan", next_step="name the monitoring plan: --plan FILE")
    chosen = load_plan(plan)
    if chosen.model != model:
        raise ConfigError(
            f"the plan watches {chosen.model}", where=str(plan), next_step=f"rehearse {chosen.model}, or name its plan"
        )
    at = now()
    with progress() as report:
        report(scenario, 0.1, "judging a spoiled copy of the traffic")
        found = dead(chosen, files) if scenario == "dead-pipeline" else poisoned(chosen, files, feature)
        report(scenario, 1.0, "done")
    return Rehearsal(
        scenario=scenario,
        model=model,
        subject=f"a copy of {len(files)} tables" if files else "a copy of what was captured",
        at=at,
        detected=found.detected,
        recovered=found.recovered,
        limit=SCENARIOS[scenario].limit,
        unit=SCENARIOS[scenario].unit,
        evidence=found.evidence,
    )


def _of_keys(label: str, roles: Path) -> Rehearsal:
    from ..rehearsal.keys import revoked
    from ..release.registry import Registry
    from ..release.roles import load_roles

    release = Registry(home() / "releases").get(label)
    at = now()
    found = revoked(home(), load_roles(roles), roles.parent, release, store().get(release.digest), clock=time.monotonic)
    return Rehearsal(
        scenario="revoked-key",
        model=release.name,
        subject=release.label,
        at=at,
        detected=found.detected,
        recovered=found.recovered,
        limit=SCENARIOS["revoked-key"].limit,
        unit="seconds",
        evidence=found.evidence,
    )


def _entered(found: Rehearsal) -> None:
    from ..release.entering import enter

    details = {"scenario": found.scenario, "detected": found.detected, "recovered": found.recovered}
    enter("rehearsed", model=found.model, subject=found.subject, details=details | {"passed": found.passed})


def _show(found: Rehearsal, path: Path) -> None:
    rows = [
        ("noticed after", _time(found.detected, found.unit), f"at most {found.limit:g} {found.unit}"),
        ("overcome after", _time(found.recovered, found.unit), ""),
        ("all as before", "yes" if found.same else "no", ""),
    ]
    out.print(table(("", "found", "limit"), rows, left=("", "limit"), title=f"{found.model}: {found.scenario}"))
    if found.evidence:
        out.print(f"noticed: {found.evidence}", markup=False, soft_wrap=True, highlight=False)
    if found.undone:
        out.print(led("yellow", "taken back: ", "nothing had overcome the fault, so the rehearsal took it back"))
    out.print(f"record: {path}", soft_wrap=True)


def _time(value: float | None, unit: str) -> str:
    return "never" if value is None else f"{value:.1f} {unit}"


def _list(model: str, *, json_: bool) -> None:
    found = {each.scenario: each for each in kept(home(), model)}
    if json_:
        emit({"scenarios": SCENARIOS, "rehearsed": found})
        return
    rows = [
        (
            name,
            each.does,
            each.notices,
            (f"{found[name].at[:10]}: {'passed' if found[name].passed else 'failed'}" if name in found else "never"),
        )
        for name, each in SCENARIOS.items()
    ]
    head = ("scenario", "what it does", "who is to notice", "rehearsed")
    out.print(table(head, rows, left=head))
