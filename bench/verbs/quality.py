"""The quality verb: the suite of checks outside a gate, on artifacts in this process or on served models."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from optimize import environment as machine
from optimize.cli import Json, emit, out, progress, store
from optimize.terminal import led

if TYPE_CHECKING:
    from optimize.artifact import Artifact
    from optimize.store import Store

    from ..quality.assess import Assessment
    from ..quality.checks import Check
    from ..targets import Endpoint

Target = Annotated[str, typer.Argument(help="An artifact, or a served model: http://127.0.0.1:8000/v2/models/NAME.")]


def quality(
    target: Target,
    recipe: Annotated[Path, typer.Option(help="The recipe whose evaluation samples and metric are used.")],
    against: Annotated[
        str | None, typer.Option(help="The artifact or served model that it is compared with, sample by sample.")
    ] = None,
    budget: Annotated[
        Path | None, typer.Option(help="Judge by this budget's checks; default: a look at everything, judging nothing.")
    ] = None,
    html: Annotated[Path | None, typer.Option(help="Write a page with plots here.")] = None,
    json_: Json = False,
) -> None:
    """Look at TARGET beyond its mean: calibration, weak segments, corrupted and attacked inputs, groups, drift.

    Without --budget every figure is told and none judged (exit 0). With it PASS (0), FAIL (1), INCONCLUSIVE (3) or
    INVALID (4), by the same rules as in a gate. Attacks need the source: an artifact whose recipe started from torch.
    """
    from ..quality import show

    found, checks, facts = _look(target, against, recipe, budget)
    title = target if against is None else f"{target} against {against}"
    if html is not None:
        show.write_html(html, title=title, assessment=found, checks=checks, facts=facts)
    if json_:
        emit(facts | found.to_json())
    else:
        out.print(led("bold", found.outcome or "told, not judged", f" {title}"))
        out.print(show.table(found))
        for name in ("samples", "attacks"):
            out.print(f"{name}: {facts[name]}", style="dim", highlight=False)
        if html is not None:
            out.print(f"page: {html}", soft_wrap=True)
    raise typer.Exit(found.exit_code)


def _look(
    target: str, against: str | None, recipe: Path, budget: Path | None
) -> tuple["Assessment", tuple["Check", ...], dict[str, str]]:
    """What was found, by which checks, and what a reader should know of how.

    Raises:
        ConfigError: the budget has no checks, or one that cannot be asked of these samples.
    """
    from optimize.data import Data
    from optimize.errors import ConfigError
    from optimize.quality import metric
    from optimize.recipe import load_recipe

    from ..budget import load_budget
    from ..quality import adversarial
    from ..quality.assess import answering, assess
    from ..quality.defaults import default_checks
    from ..quality.suite import attacks

    loaded, kept = load_recipe(recipe), store()
    limits = load_budget(budget) if budget is not None else None
    if limits is not None and not limits.checks:
        raise ConfigError("the budget has no checks", where=str(budget), next_step="add [[checks]], or leave it out")
    one, other = _target(target, kept), None if against is None else _target(against, kept)
    samples = Data(loaded, kept, machine.environment()).samples("evaluation")
    source = adversarial.source_of((one, other), kept)
    attackable = source is not None and source.format == "torch"
    checks = limits.checks if limits else default_checks(samples, against=other is not None, attack=attackable)
    alphas = {"alpha_pass": limits.alpha_pass, "alpha_fail": limits.alpha_fail} if limits else {}
    with progress() as report:
        suite = adversarial.prepared(
            checks, samples, metric(loaded), source, kept, lambda what, share: report("attack", share, what)
        )
        found = assess(
            suite,
            answering(one, kept),
            None if other is None else answering(other, kept),
            progress=lambda what, share: report("quality", share, what),
            **alphas,
        )
    facts = {
        "candidate": target,
        "base": against or "none",
        "samples": f"{len(samples)}, {samples.digest}",
        "budget": limits.digest if limits else "none: told, not judged",
        "attacks": "on the source's gradients" if attacks(checks) else "never run",
    }
    return found, checks, facts


def _target(text: str, kept: "Store") -> "Artifact | Endpoint":
    """What a target names: a URL is a served model, anything else an artifact of the store."""
    from ..targets import endpoint_of

    return endpoint_of(text) if "://" in text else kept.get(text)
