import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from seatrial.optimize.draft.draft import draft, slug
from seatrial.optimize.draft.methods import PARITY, family, stages
from seatrial.optimize.draft.model import Input
from seatrial.optimize.errors import ConfigError


@pytest.mark.parametrize(
    ("operators", "kind"),
    [
        ({"Conv": 53, "Gemm": 1}, "cnn"),
        ({"Conv": 1, "MatMul": 72, "Attention": 12}, "transformer"),
        ({"Gather": 1, "MatMul": 72, "Attention": 24}, "transformer"),
        ({"Conv": 40, "MatMul": 60, "Attention": 18}, "cnn"),
        ({"Conv": 2, "Gemm": 1, "Attention": 1}, "cnn"),
        ({"Gemm": 9, "MatMul": 1, "Attention": 1}, "mlp"),
        ({"Gemm": 3}, "mlp"),
        ({}, "mlp"),
    ],
)
def test_the_family_is_read_off_the_operators(operators: dict[str, int], kind: str) -> None:
    assert family(operators) == kind


def test_stages_fit_family_and_source() -> None:
    assert [stage["kind"] for stage in stages("cnn", "factory", {"Conv": 2})] == ["export", "quantize"]
    assert stages("transformer", "onnx", {"MatMul": 4, "Attention": 1}) == [
        {"kind": "quantize", "method": "dynamic", "parity": PARITY}
    ]
    assert [stage["kind"] for stage in stages("mlp", "factory", {"Embedding": 1})] == ["export"]
    assert stages("mlp", "onnx", {"Softmax": 1}) == []  # served as it is


@pytest.mark.parametrize("text", ["image", "image=", "=3", "image=3xa", "image=0x2", "a=3:complex", "a=-1"])
def test_a_wrong_input_is_refused(text: str) -> None:
    if text == "image=":
        assert Input.parse(text).shape == ()
        return
    with pytest.raises(ConfigError):
        Input.parse(text)


@given(
    shape=st.lists(st.integers(1, 4), max_size=3),
    dtype=st.sampled_from(["float32", "float16", "int64", "int32", "uint8", "bool"]),
    name=st.sampled_from(["x", "attention_mask"]),
    rows=st.integers(1, 3),
)
def test_what_the_stub_will_make_is_what_was_tried(shape: list[int], dtype: str, name: str, rows: int) -> None:
    found = Input.parse(f"{name}={'x'.join(map(str, shape))}:{dtype}")
    tried = found.sample(np.random.default_rng(3), rows)
    written = eval(found.expression(), {"np": np, "random": np.random.default_rng(3), "rows": rows})
    assert tried.shape == (rows, *shape)
    assert tried.dtype == dtype
    np.testing.assert_array_equal(tried, written)


@given(st.text())
def test_every_name_becomes_a_legal_one(text: str) -> None:
    import re

    assert re.fullmatch(r"[a-z0-9][a-z0-9_-]*", slug(text))


def test_nothing_is_overwritten(tmp_path: object) -> None:
    from pathlib import Path

    folder = Path(str(tmp_path))
    (folder / "samples.py").write_text("mine")
    with pytest.raises(ConfigError, match="already exists"):
        draft("gone.onnx", folder)
    assert (folder / "samples.py").read_text() == "mine"
    assert not (folder / "recipe.toml").exists()
