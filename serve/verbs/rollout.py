"""The rollout verbs: start one, see where it stands, say a word to it, and have its decisions explained."""

import re
import time
from pathlib import Path
from typing import Annotated

import typer

from seatrial.optimize import environment as machine
from seatrial.optimize.errors import ConfigError
from seatrial.optimize.reading import damage
from seatrial.optimize.terminal import Json, emit, err, led, out, progress, store
from seatrial.optimize.user_code import Reference

from ..release.entering import enter
from ..shipped import shipped
from ..traffic import live
from ..traffic.rollout import explain as explaining
from ..traffic.rollout import show as showing
from ..traffic.rollout.controller import RolloutPorts
from ..traffic.rollout.controller import run as moving
from ..traffic.rollout.machine import TABLE, Event, Rollout
from ..traffic.rollout.plan import load_plan
from ..traffic.rollout.records import Records

app = typer.Typer(
    no_args_is_help=True,
    help="Bring a placed version into traffic by reversible steps: mirror, 1, 5, 25, 50, 100 %.",
)
Model = Annotated[str, typer.Argument(help="The model's name in Triton.")]
Reach = Annotated[
    str,
    typer.Option(
        "--world",
        help=(
            "Other ports than the running edge and server: FILE.py:NAME or MODULE:NAME. It is called "
            "with the rollout and returns a seatrial.serve.traffic.rollout.controller.RolloutPorts, for instance of a "
            "simulation, or of a cluster by seatrial.serve.kubernetes.world:cluster (experimental)."
        ),
    ),
]
At = Annotated[str, typer.Option("--edge", help="The edge's name; required if several are running.")]
EXIT = {"promoted": 0, "rolled_back": 1, "aborted": 1}


@app.command()
def start(
    model: Model,
    candidate: Annotated[int, typer.Option(help="The placed version to promote.")],
    plan: Annotated[Path, typer.Option(help="The plan (TOML).")] = Path("serve/rollouts/usual.toml"),
    stable: Annotated[
        int, typer.Option(help="The version that serves now; default: the stable version of the edge.")
    ] = 0,
    digest: Annotated[
        str, typer.Option(help="The digest to block after a rollback; default: that of the placed artifact.")
    ] = "",
    at: At = "",
    world: Reach = "",
    json_: Json = False,
) -> None:
    r"""Start a rollout and move it until promotion or rollback; after a kill it continues with seatrial rollout run.

    It needs a running edge and server: seatrial up, seatrial edge up, and beside them seatrial supervise and seatrial
    edge watch, which restart dead parts. A plan with \[shadow] needs an edge with \[capture].

    Exit codes: 0 promoted, 1 rolled back or aborted, 2 not possible this way, 4 no server.
    """
    loaded = load_plan(shipped(plan))
    if not world:
        place = live.find(at)
        stable = stable or place.stable(model)
        digest = digest or place.placement(model, candidate).digest
    if min(stable, candidate) < 1 or stable == candidate or not re.fullmatch("[!-~]{1,200}", digest):
        raise ConfigError(
            (
                f"stable and candidate must be two different versions with a digest, got {stable}, "
                f"{candidate}, {digest!r}"
            ),
            next_step="give two different versions of at least 1, and with --world a digest",
        )
    now = time.time()
    made = Rollout(
        model=model,
        stable=stable,
        candidate=candidate,
        digest=digest,
        plan=loaded,
        started=now,
        entered=now,
        resumed=now,
        reason="started",
    )
    reached = _world(world, made, at)  # before anything is written down
    records = _records(model)
    records.start(made)
    details = {"phase": "started", "stable": made.stable, "candidate": made.candidate}
    enter("rollout", model=model, subject=made.digest, details=details)
    _run(records, reached, json_)


@app.command()
def run(model: Model, at: At = "", world: Reach = "", json_: Json = False) -> None:
    """Continue the model's rollout from its records, after a kill, a reboot, or a command."""
    records = _records(model)
    _run(records, _world(world, records.load(), at), json_)


@app.command()
def status(model: Model, json_: Json = False) -> None:
    """Show the rollout: each step with its requests, the evidence about each metric, and what is missing."""
    records = _records(model)
    rollout, log = records.load(), records.log()
    with damage(records.folder):
        told = showing.status_json(rollout, log, acted_on=records.acted_on)
        table = showing.status_table(rollout, log)
    if json_:
        emit(told)
        return
    out.print(led("bold", model, f" {rollout.stable} -> {rollout.candidate}: {rollout.label}"))
    if rollout.reason:
        out.print(f"because: {rollout.reason}", markup=False, highlight=False)
    out.print(table)
    if told["findings"] and (evidence := log.entries[-1].observation.evidence) is not None:
        out.print(showing.findings_table(evidence))
    if told["waiting_for"]:
        out.print(f"waiting for: {told['waiting_for']}", markup=False, highlight=False)
    if not rollout.ended and not told["controller"]:
        out.print(led("yellow", "no controller is running", f": start seatrial rollout run {model}"))


@app.command()
def pause(model: Model, json_: Json = False) -> None:
    """Hold the rollout at its current fraction; faults and regressions still roll it back."""
    _say(model, Event.PAUSE, json_)


@app.command()
def resume(model: Model, json_: Json = False) -> None:
    """Continue a paused rollout; its longest stay starts again."""
    _say(model, Event.RESUME, json_)


@app.command()
def abort(model: Model, json_: Json = False) -> None:
    """Return to the stable version and end; the digest may be used again."""
    _say(model, Event.ABORT, json_)


@app.command()
def promote(model: Model, json_: Json = False) -> None:
    """Promote despite incomplete evidence; faults still block it."""
    _say(model, Event.PROMOTE, json_)


@app.command()
def rollback(model: Model, json_: Json = False) -> None:
    """Return to the stable version, also after a promotion, and block the digest."""
    _say(model, Event.ROLLBACK, json_)


@app.command()
def lift(
    model: Model,
    digest: Annotated[str, typer.Argument(help="The rolled-back digest that may be used again.")],
    json_: Json = False,
) -> None:
    """Allow a rolled-back digest again."""
    records = _records(model)
    records.lift(digest)
    if json_:
        emit({"lifted": digest, "blocked": records.blocked()})
    else:
        out.print(f"{digest} may be used again", highlight=False)


@app.command()
def explain(
    model: Model,
    every: Annotated[bool, typer.Option("--every", help="Also show the checks after which nothing happened.")] = False,
    json_: Json = False,
) -> None:
    """Repeat every logged decision from its logged inputs, and show what happened, why, and whether it agrees.

    Exit code 1 if a decision differs.
    """
    records = _records(model)
    log = records.log()
    with damage(records.folder):
        told = list(explaining.explain(log))
    shown = [each for each in told if every or each.moved or not each.agrees]
    agreeing = sum(each.agrees for each in told)
    if json_:
        emit({"decisions": shown, "replayed": len(told), "agree": agreeing})
    else:
        for line in showing.explained_lines(shown):
            out.print(line, markup=False, highlight=False, soft_wrap=True)
        out.print(f"{len(told)} decisions repeated from the log, {agreeing} agree")
    if agreeing < len(told):
        raise typer.Exit(1)


def _records(model: str) -> Records:
    return Records(machine.home() / "rollouts", model)


def _complain(text: str) -> None:
    err.print(text, markup=False, soft_wrap=True)


def _world(text: str, rollout: Rollout, edge: str) -> RolloutPorts:
    if not text:
        return live.world(live.find(edge), rollout, store(), complain=_complain)
    made = Reference.parse(text, Path.cwd()).call(rollout)
    if not isinstance(made, RolloutPorts):
        raise ConfigError(
            f"the function returned a {type(made).__name__}",
            where=text,
            next_step="return a seatrial.serve.traffic.rollout.controller.RolloutPorts",
        )
    return made


def _run(records: Records, world: RolloutPorts, json_: bool) -> None:
    with progress() as report:

        def look(rollout: Rollout) -> None:
            report("rollout", (rollout.step + 1) / (len(rollout.plan.steps) + 1), f"{rollout.label}: {rollout.reason}")

        ended = moving(records, world, look=look)
    details = {"phase": ended.phase.value, "stable": ended.stable, "candidate": ended.candidate, "reason": ended.reason}
    enter("rollout", model=records.model, subject=ended.digest, details=details)
    if json_:
        emit(showing.status_json(ended, records.log(), acted_on=False))
    else:
        out.print(f"{ended.label}: {ended.reason}", markup=False, highlight=False)
    raise typer.Exit(EXIT[ended.phase])


def _say(model: str, command: Event, json_: bool) -> None:
    records = _records(model)
    rollout = records.load()
    records.say(command)
    acted_on, possible = records.acted_on, command in TABLE[rollout.phase]
    if json_:
        emit({"said": command, "controller": acted_on, "label": rollout.label, "possible_now": possible})
        return
    out.print(f"{command}: recorded; the rollout is {rollout.label}", highlight=False)
    if not possible:
        out.print(led("yellow", f"{command} has no effect while it is {rollout.label}"))
    if not acted_on:
        out.print(led("yellow", "no controller is running", f": seatrial rollout run {model} will read it"))
