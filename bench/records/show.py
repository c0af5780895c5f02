"""Ledgers as a table and lines for a terminal. Computes nothing of its own."""

import math
from collections.abc import Sequence

from rich.table import Table

from seatrial.optimize.tables import table
from seatrial.optimize.units import short_digest

from ..budget import LedgerLimits
from .accepted import Entry


def ledger_table(entries: Sequence[Entry]) -> Table:
    """Accepted losses, oldest first."""
    rows = (
        (
            entry.at,
            entry.metric,
            f"{math.expm1(entry.loss):.2%}",
            f"{math.expm1(entry.lower):.2%} … {math.expm1(entry.upper):.2%}",
            short_digest(entry.candidate),
        )
        for entry in entries
    )
    return table(("accepted", "metric", "loss", "90 % interval", "candidate"), rows, left=("accepted",))


def ledger_lines(held: dict[str, float], limits: LedgerLimits) -> list[str]:
    """Return the level of a ledger by metric, as lines."""
    return [
        f"{metric}: {math.expm1(loss):.2%} of {limits.at_most[metric]:.2%} within {limits.days:g} days"
        for metric, loss in held.items()
    ]
