from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Literal

import pytest
from pydantic import Field

from seatrial.optimize import config
from seatrial.optimize.errors import ConfigError, MissingError


@dataclass(frozen=True, slots=True, kw_only=True)
class Quantize:
    kind: Literal["quantize"]
    ranges: str = "minmax"
    parity: dict[str, float] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class Prune:
    kind: Literal["prune"]
    ratio: float

    def __post_init__(self) -> None:
        if self.ratio >= 1:
            raise ConfigError("ratio is a share", where="ratio", next_step="give less than 1")


@dataclass(frozen=True, slots=True, kw_only=True)
class Data:
    loader: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Recipe:
    name: str
    data: Data
    stages: tuple[Annotated[Quantize | Prune, Field(discriminator="kind")], ...] = ()


GOOD = 'name = "a"\n[data]\nloader = "x"\n[[stages]]\nkind = "prune"\nratio = 0.5\n[[stages]]\nkind = "quantize"\n'


def read(text: str) -> Recipe:
    return config.parse(text, Recipe, Path("r.toml"))


def test_a_good_file_becomes_a_frozen_value() -> None:
    recipe = read(GOOD)
    assert recipe.stages == (Prune(kind="prune", ratio=0.5), Quantize(kind="quantize"))


@pytest.mark.parametrize(
    ("text", "what", "where", "hint"),
    [
        (GOOD + 'rangs = "x"\n', "unknown key 'stages.1.rangs'", "r.toml:9", "did you mean 'ranges'?"),
        (GOOD.replace("loader", "loder"), "unknown key 'data.loder'", "r.toml:3", "legal keys: loader"),
        (GOOD.replace('"prune"', '"prun"'), "unknown kind 'prun' at 'stages.0'", "r.toml:4", "'quantize', 'prune'"),
        (
            GOOD.replace("0.5", '"0.5"'),
            "'stages.0.ratio': input should be a valid number",
            "r.toml:6",
            "correct the value there",
        ),
        (GOOD.replace("0.5", "1.5"), "ratio is a share", "r.toml", "less than 1"),
        (GOOD.replace('name = "a"\n', ""), "missing key 'name'", "r.toml", "add it"),
        ("name = ", "not a TOML file", "r.toml", "syntax"),
    ],
)
def test_a_bad_file_is_told_by_place_and_next_step(text: str, what: str, where: str, hint: str) -> None:
    with pytest.raises(ConfigError) as caught:
        read(text)
    assert caught.value.what.startswith(what)
    assert caught.value.where.startswith(where)
    assert hint in caught.value.next_step
    assert caught.value.exit_code == 2


def test_a_missing_file_names_its_neighbour(tmp_path: Path) -> None:
    (tmp_path / "recipe.toml").write_text(GOOD)
    with pytest.raises(MissingError, match=r"recipe\.toml"):
        config.load(tmp_path / "recipee.toml", Recipe)
