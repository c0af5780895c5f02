"""Tables of requests, opened for the verbs that join them with outcomes."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from seatrial.optimize.errors import ConfigError

if TYPE_CHECKING:
    from ..monitor.on_duckdb import Traffic
    from ..monitor.plan import Plan
    from ..monitor.plan_answers import Outcomes


@contextmanager
def requests(
    model: str, plan: Path | None, traffic: Sequence[Path] | None
) -> "Iterator[tuple[Plan, Outcomes, Traffic]]":
    """Open the tables of a model's requests.

    Raises:
        ConfigError: no plan or no table is given, the plan is of another model or has no `[outcomes]`.
    """
    from ..monitor import on_duckdb
    from ..monitor.on_duckdb_outcomes import check_request
    from ..monitor.plan import load_plan

    if plan is None or not traffic:
        raise ConfigError(
            "the requests are needed",
            where="--plan" if plan is None else "--traffic",
            next_step="give --plan PLAN and --traffic FILE, a table with the request's id, time and features",
        )
    chosen = load_plan(plan)
    if chosen.model != model:
        raise ConfigError(
            f"the plan is of {chosen.model!r}, not of {model!r}", where=str(plan), next_step="give that of the model"
        )
    said = outcomes_of(chosen, plan)
    with on_duckdb.opened(chosen, traffic, answers=True) as rows:
        check_request(rows, said.request)
        yield chosen, said, rows


def outcomes_of(plan: "Plan", path: Path) -> "Outcomes":
    """Return what a plan says of outcomes.

    Raises:
        ConfigError: it says nothing.
    """
    if plan.outcomes is None:
        raise ConfigError(
            "the plan has no [outcomes]",
            where=str(path),
            next_step='add [outcomes] with request = "...", the column of the request\'s id',
        )
    return plan.outcomes
