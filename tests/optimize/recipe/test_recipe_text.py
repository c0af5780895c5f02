import tomllib
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from seatrial.optimize.recipe.recipe import load_recipe
from seatrial.optimize.recipe.text import document, from_json, to_toml
from seatrial.optimize.record import as_json
from tests.support.built import ROOT, TINY

TEXTS = st.text(st.characters(exclude_categories=["Cs"]))
SCALARS = st.booleans() | st.integers(-(2**53), 2**53) | st.floats(allow_nan=False, allow_infinity=False) | TEXTS
VALUES = st.recursive(
    SCALARS, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(TEXTS, inner, max_size=3), max_leaves=12
)


@given(st.dictionaries(TEXTS, VALUES, max_size=4))
@pytest.mark.slow
def test_what_is_written_is_what_is_read(value: dict[str, Any]) -> None:
    assert tomllib.loads(document(value)) == value


@pytest.mark.parametrize(
    "path", [TINY, *sorted((ROOT / "optimize" / "recipes").glob("*.toml"))], ids=lambda path: path.name
)
def test_a_recipe_keeps_its_digest_through_text_and_json(path: Path, tmp_path: Path) -> None:
    recipe = load_recipe(path)
    assert from_json(as_json(recipe), path) == recipe
    assert from_json(tomllib.loads(to_toml(recipe)), tmp_path / "r.toml").digest == recipe.digest
