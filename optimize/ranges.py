"""Ranges of numbers, stated in the annotation of a field and checked whenever its dataclass is made.

A field's type says ``Annotated[int, Range(at_least=1, fix="...")]`` and ``__post_init__`` calls `check_ranges`: so the
range holds for a file, for JSON and for a value made in code alike.
"""

import math
import typing
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from typing import Any

from .errors import ConfigError


@dataclass(frozen=True, slots=True, kw_only=True)
class Range:
    """The numbers that a field may hold, and the next step for one that is outside; None is no number and passes.

    `above` and `below` exclude the bound itself; ``below=math.inf`` asks for a finite number.
    """

    at_least: float = -math.inf
    above: float = -math.inf
    at_most: float = math.inf
    below: float = math.nan
    fix: str

    def __contains__(self, value: float) -> bool:
        return self.at_least <= value <= self.at_most and (
            (value > self.above or self.above == -math.inf) and (math.isnan(self.below) or value < self.below)
        )

    def __str__(self) -> str:
        if math.isfinite(self.at_least) and math.isfinite(self.at_most):
            return f"between {self.at_least} and {self.at_most}"
        parts = [
            f"at least {self.at_least}" if math.isfinite(self.at_least) else "",
            f"above {self.above}" if math.isfinite(self.above) else "",
            f"at most {self.at_most}" if math.isfinite(self.at_most) else "",
            "finite" if math.isinf(self.below) else f"below {self.below}" if math.isfinite(self.below) else "",
        ]
        return " and ".join(filter(None, parts))


def check_ranges(value: Any, where: str = "") -> None:
    """Refuse the first field of a dataclass whose number is outside the range that its annotation states.

    Raises:
        ConfigError: names the field, its range and the number; the place is `where`, or the field.
    """
    owner: Any = type(value)
    for name, wanted in _ranges(owner).items():
        number = getattr(value, name)
        if number is not None and number not in wanted:
            raise ConfigError(f"{name} must be {wanted}, got {number}", where=where or name, next_step=wanted.fix)


@cache
def _ranges(owner: Any) -> Mapping[str, Range]:
    hints = typing.get_type_hints(owner, include_extras=True)
    stated = ((name, each) for name, hint in hints.items() for each in getattr(hint, "__metadata__", ()))
    return {name: each for name, each in stated if isinstance(each, Range)}
