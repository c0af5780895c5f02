"""Corruptions: deterministic, typed as before, ever further from the clean input, and only where they make sense."""

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from seatrial.bench.quality.corruption import BYTES, IMAGE, NUMERIC, STRENGTHS, Range, applicable, corrupted
from seatrial.optimize.errors import ConfigError

Array = np.ndarray[Any, np.dtype[Any]]
IMAGES = np.random.default_rng(0).random((8, 1, 32, 32)).astype(np.float32).cumsum(axis=3) / 32
ROWS = np.random.default_rng(1).normal(3, 2, (40, 6)).astype(np.float32)
IDS = np.random.default_rng(2).integers(5, 900, (30, 20))
IDS[:, 15:] = 0
TEXTS = np.array([b"a record of some bytes", b"another, longer record of bytes"] * 10)


def spoilt(inputs: dict[str, Array], kind: str, severity: int, seed: int = 0) -> dict[str, Array]:
    return corrupted(inputs, {name: Range.of(array) for name, array in inputs.items()}, kind, severity, seed)


@pytest.mark.parametrize("kind", [*IMAGE, *NUMERIC])
@pytest.mark.parametrize("dtype", ["float32", "uint8"])
def test_severity_grows_and_types_stay(kind: str, dtype: str) -> None:
    images = {"image": (255 * IMAGES).astype(np.uint8) if dtype == "uint8" else IMAGES}
    if kind == "rounding" and dtype == "uint8":
        images = {"image": ROWS}
    clean = images["image"].astype(float)
    distances = []
    for severity in range(1, 6):
        made = spoilt(images, kind, severity)["image"]
        assert made.dtype == images["image"].dtype
        assert made.shape == images["image"].shape
        assert np.isfinite(made).all()
        distances.append(float(np.abs(made - clean).mean()))
    assert distances[0] > 0
    assert distances == sorted(distances)


@given(st.sampled_from([*STRENGTHS]), st.integers(1, 5), st.integers(0, 1000))
@settings(max_examples=60, deadline=None)
def test_the_same_call_gives_the_same_bytes_and_leaves_its_input_alone(kind: str, severity: int, seed: int) -> None:
    inputs = {"image": IMAGES, "ids": IDS, "text": TEXTS}
    before = {name: array.copy() for name, array in inputs.items()}
    one, other = spoilt(inputs, kind, severity, seed), spoilt(inputs, kind, severity, seed)
    for name in inputs:
        assert np.array_equal(one[name], other[name])
        assert np.array_equal(inputs[name], before[name])


def test_images_stay_within_the_data_s_range() -> None:
    for kind in IMAGE:
        made = spoilt({"image": IMAGES}, kind, 5)["image"]
        assert IMAGES.min() - 1e-6 <= made.min() <= made.max() <= IMAGES.max() + 1e-6


def test_rounding_keeps_what_a_narrower_dtype_keeps() -> None:
    half = spoilt({"x": ROWS}, "rounding", 1)["x"]
    assert np.array_equal(half, ROWS.astype(np.float16).astype(np.float32))
    relative = np.abs(spoilt({"x": ROWS}, "rounding", 2)["x"] / ROWS - 1)
    assert relative.max() <= 2**-8  # bfloat16: seven bits behind the leading one


def test_missing_values_are_the_mean() -> None:
    made = spoilt({"x": ROWS}, "missing", 5)["x"]
    changed = made != ROWS
    assert 0.3 < changed.mean() < 0.5
    assert np.allclose(made[changed], ROWS.mean())


def test_tokens_are_cut_with_their_mask_and_garbled_without_it() -> None:
    inputs = {"ids": IDS, "mask": (IDS != 0).astype(np.int64)}
    cut = spoilt(inputs, "truncate", 3)
    assert ((cut["ids"] != 0).sum(axis=1) == 9).all()  # 60 % of fifteen
    assert np.array_equal(cut["mask"] != 0, cut["ids"] != 0)
    garbled = spoilt(inputs, "garble", 5)
    assert np.array_equal(garbled["mask"], inputs["mask"])
    assert np.array_equal(garbled["ids"] == 0, IDS == 0)
    assert set(np.unique(garbled["ids"])) <= set(np.unique(IDS))
    assert 0.1 < (garbled["ids"] != IDS)[:, :15].mean() < 0.3


def test_byte_records_are_cut_and_garbled() -> None:
    cut = spoilt({"text": TEXTS}, "truncate", 5)["text"]
    assert all(whole.startswith(short) and len(short) < len(whole) for whole, short in zip(TEXTS, cut, strict=True))
    garbled = spoilt({"text": TEXTS}, "garble", 5)["text"]
    assert [len(each) for each in garbled] == [len(each) for each in TEXTS]
    assert (garbled != TEXTS).any()


def test_what_applies_to_what() -> None:
    assert set(applicable({"image": IMAGES})) == {*IMAGE, *NUMERIC}
    assert set(applicable({"x": ROWS})) == set(NUMERIC)
    assert set(applicable({"ids": IDS})) == set(BYTES) == set(applicable({"text": TEXTS}))
    with pytest.raises(ConfigError, match="applies to none"):
        spoilt({"x": ROWS}, "blur", 1)
