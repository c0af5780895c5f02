"""The quality verb: the suite of checks outside a gate, on artifacts in this process or on served models."""

from pathlib import Path
from typing import Annotated

import typer

from seatrial.optimize import environment as machine
from seatrial.optimize.artifact import Artifact
from seatrial.optimize.building.built import choice_of
from seatrial.optimize.errors import ConfigError
from seatrial.optimize.quality import metric
from seatrial.optimize.recipe.data import Data
from seatrial.optimize.recipe.recipe import Recipe, load_recipe
from seatrial.optimize.sessions.choice import EngineChoice
from seatrial.optimize.terminal import Device, Engine, Json, emit, led, named, out, progress, store

from ..budget import load_budget
from ..checks import Check
from ..quality import adversarial, show
from ..quality.assess import Assessment, answering, assess
from ..quality.defaults import default_checks
from ..quality.suite import attacks
from ..targets import Endpoint, endpoint_of

Target = Annotated[str, typer.Argument(help="An artifact, or a served model: http://127.0.0.1:8000/v2/models/NAME.")]


def quality(
    target: Target,
    recipe: Annotated[Path, typer.Option(help="The recipe whose evaluation samples and metric are used.")],
    against: Annotated[
        str | None, typer.Option(help="The artifact or served model to compare with, sample by sample.")
    ] = None,
    budget: Annotated[
        Path | None, typer.Option(help="Judge by this budget's checks; default: an informational overview.")
    ] = None,
    html: Annotated[Path | None, typer.Option(help="Write a page with plots here.")] = None,
    engine: Engine = "",
    device: Device = "",
    json_: Json = False,
) -> None:
    """Examine TARGET beyond its mean: calibration, weak segments, corrupted and attacked inputs, groups, drift.

    Without --budget all results are informational (exit 0). With it: PASS (0), FAIL (1), INCONCLUSIVE (3) or INVALID
    (4), by the rules of a gate. Attacks need the source: an artifact whose recipe started from torch.
    """
    if all("://" in each for each in (target, against or target)):
        EngineChoice(engine=engine, device=device).refuse_for_server(target)
    loaded = load_recipe(recipe).measured_in(engine, device)
    found, checks, facts = _look(target, against, loaded, budget)
    title = target if against is None else f"{target} against {against}"
    if html is not None:
        show.write_html(html, title=title, assessment=found, checks=checks, facts=facts)
    if json_:
        emit(facts | found.to_json())
    else:
        out.print(led("bold", found.outcome or "informational", f" {title}"))
        out.print(show.table(found))
        for name in ("samples", "attacks", "candidate run in", "base run in"):
            out.print(f"{name}: {facts[name]}", style="dim", highlight=False)
        if html is not None:
            out.print(f"page: {html}", soft_wrap=True)
    raise typer.Exit(found.exit_code)


def _look(
    target: str, against: str | None, recipe: Recipe, budget: Path | None
) -> tuple[Assessment, tuple[Check, ...], dict[str, str]]:
    """Return the findings, their checks, and facts about the method.

    Raises:
        ConfigError: the budget has no checks, or one that cannot be asked of these samples.
    """
    kept, choice = store(), choice_of(recipe)
    limits = load_budget(budget) if budget is not None else None
    if limits is not None and not limits.checks:
        raise ConfigError("the budget has no checks", where=str(budget), next_step="add [[checks]], or omit the budget")
    one, other = _target(target), None if against is None else _target(against)
    if opened := [each.format for each in (one, other) if isinstance(each, Artifact)]:
        choice.check(opened)
    samples = Data(recipe, kept, machine.environment()).samples("evaluation")
    source = adversarial.source_of((one, other), kept)
    attackable = source is not None and source.format == "torch"
    checks = limits.checks if limits else default_checks(samples, against=other is not None, attack=attackable)
    alphas = {"alpha_pass": limits.alpha_pass, "alpha_fail": limits.alpha_fail} if limits else {}
    candidate, runs = answering(one, kept, choice=choice)
    base, base_runs = (None, None) if other is None else answering(other, kept, choice=choice)
    with progress() as report:
        suite = adversarial.prepared(
            checks, samples, metric(recipe), source, kept, lambda what, share: report("attack", share, what)
        )
        found = assess(
            suite,
            candidate,
            base,
            progress=lambda what, share: report("quality", share, what),
            **alphas,
        )
    facts = {
        "candidate": target,
        "base": against or "none",
        "samples": f"{len(samples)}, {samples.digest}",
        "budget": limits.digest if limits else "none (informational)",
        "attacks": "on the source's gradients" if attacks(checks) else "not executed",
        "candidate run in": str(runs) if runs is not None else "its server",
        "base run in": "none" if other is None else str(base_runs) if base_runs is not None else "its server",
    }
    return found, checks, facts


def _target(text: str) -> Artifact | Endpoint:
    """Return what a target names: a URL is a served model, anything else an artifact of the store or an ONNX file."""
    return endpoint_of(text) if "://" in text else named(text)
