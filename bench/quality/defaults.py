"""Default checks without a budget: those of every kind that the samples allow. Informational.

The margins are placeholders: only a budget's margins decide.
"""

from seatrial.optimize.samples import Samples

from ..checks import CHECKS, Check


def default_checks(samples: Samples, *, against: bool, attack: bool) -> tuple[Check, ...]:
    """Checks for these samples; `against` where there is a base, `attack` where there is a source to attack."""
    kinds = (CHECKS.get(name) for name in CHECKS.built_in)
    return tuple(check for kind in kinds for check in kind.unprompted(samples, against=against, attack=attack))
