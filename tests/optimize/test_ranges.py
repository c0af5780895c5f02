"""Ranges of fields: what is outside is refused by name, wherever the value comes from."""

import math
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated

import pytest

from seatrial.optimize import config
from seatrial.optimize.errors import ConfigError
from seatrial.optimize.ranges import Range, check_ranges


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """One field of each sort of range."""

    threads: Annotated[int, Range(at_least=1, at_most=64, fix="use 1")] = 1
    share: Annotated[float, Range(above=0, at_most=1, fix="use 0.05")] = 1.0
    wait: Annotated[float, Range(above=0, below=math.inf, fix="give seconds")] = 5.0
    least: Annotated[int | None, Range(at_least=0, fix="leave it out")] = None
    free: int = -1

    def __post_init__(self) -> None:
        check_ranges(self, "limits")


@pytest.mark.parametrize(
    ("field", "legal", "outside", "said"),
    [
        ("threads", (1, 64), (0, 65), "threads must be between 1 and 64"),
        ("share", (1e-9, 1), (0, -1, 1.1, math.nan), "share must be above 0 and at most 1"),
        ("wait", (1e-9, 1e300), (0, -1, math.inf, math.nan), "wait must be above 0 and finite"),
        ("least", (None, 0, 10**12), (-1,), "least must be at least 0"),
        ("free", (-1, 0), (), ""),
    ],
)
def test_a_number_outside_its_range_is_refused_by_name(
    field: str, legal: tuple[float, ...], outside: tuple[float, ...], said: str
) -> None:
    for number in legal:
        assert getattr(replace(Limits(), **{field: number}), field) == number  # type: ignore[arg-type]
    for number in outside:
        with pytest.raises(ConfigError) as caught:
            replace(Limits(), **{field: number})  # type: ignore[arg-type]
        assert caught.value.what == f"{said}, got {number}"
        assert (caught.value.where, bool(caught.value.next_step)) == ("limits", True)


def test_a_file_is_held_to_the_same_ranges(tmp_path: Path) -> None:
    path = tmp_path / "limits.toml"
    path.write_text("threads = 65\n")
    with pytest.raises(ConfigError, match="threads must be between 1 and 64, got 65") as caught:
        config.load(path, Limits)
    assert caught.value.where == f"{path}: limits"
    assert caught.value.next_step == "use 1"
    path.write_text("threads = 64\nleast = 3\n")
    assert config.load(path, Limits) == Limits(threads=64, least=3)
