"""Looks: the numbers of pairs at which a gate may stop, and how much of its error each of them may spend.

Pure. Looking again and again at the full error rate until something shows is how alarms are made (at 10 retries a 5 %
test alarms 19 % of the time); so every look gets a share of it and the shares add up to the whole, which by the union
bound holds whatever the looks have in common.
"""

from dataclasses import replace

from ..budget import Budget, Design


def looks_of(design: Design) -> tuple[int, ...]:
    """The looks of a run's design: numbers of pairs, the last one being all; one look without any."""
    return design.looks or (design.pairs,)


def spent(looks: tuple[int, ...], number: int, alpha: float) -> float:
    """Return the part of `alpha` for look `number` (from 0): linear in the pairs since the previous look.

    ``alpha * (tau_k**rho - tau_{k-1}**rho)`` with rho = 1 and tau the share of all pairs; a single look gets the whole.
    """
    before = looks[number - 1] if number else 0
    return alpha * (looks[number] / looks[-1] - before / looks[-1])


def at_look(budget: Budget, looks: tuple[int, ...], number: int) -> Budget:
    """The budget with the error rates that hold at that look."""
    return replace(
        budget,
        alpha_pass=spent(looks, number, budget.alpha_pass),
        alpha_fail=spent(looks, number, budget.alpha_fail),
    )
