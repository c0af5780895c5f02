"""Globs that name nodes: what they fit, and how one that fits nothing is refused."""

import pytest

from seatrial.optimize.errors import ConfigError
from seatrial.optimize.globs import check, check_operators, fits, fits_any

NAMES = ("encoder/fc1", "encoder/fc2", "head[0]", "Softmax_12")


def test_a_glob_fits_by_pattern_and_a_name_with_brackets_fits_itself() -> None:
    assert fits("encoder/*", "encoder/fc1")
    assert fits("head[0]", "head[0]")
    assert fits("head[[]0]", "head[0]")
    assert not fits("encoder", "encoder/fc1")
    assert fits_any(("nothing", "*fc2"), NAMES)
    assert not fits_any((), NAMES)


def test_every_glob_that_fits_passes() -> None:
    check(("encoder/*", "head[0]"), NAMES, field="exclude", where="quantize")
    check((), NAMES, field="exclude", where="quantize")


@pytest.mark.parametrize(
    ("glob", "near"), [("encoder/fc3", "encoder/fc1"), ("haed*", "head[0]"), ("softmax*", "Softmax_12")]
)
def test_a_glob_that_fits_nothing_is_refused_with_names_that_come_near(glob: str, near: str) -> None:
    with pytest.raises(ConfigError, match="fits no node") as caught:
        check((glob,), NAMES, field="exclude", where="quantize", operators={"Softmax", "MatMul"})
    assert near in caught.value.next_step
    assert "exclude_operators: MatMul, Softmax" in caught.value.next_step
    assert repr(glob) in caught.value.what


def test_an_operator_that_is_not_there_is_refused_with_those_that_are() -> None:
    check_operators(["MatMul"], {"MatMul", "Add"}, field="operators", where="quantize")
    with pytest.raises(ConfigError, match="'Matmul'") as caught:
        check_operators(["Matmul"], {"MatMul", "Add"}, field="operators", where="quantize")
    assert "Add, MatMul" in caught.value.next_step
