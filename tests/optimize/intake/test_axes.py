"""Axes: what runs at several sizes show, whatever a model declares."""

from collections.abc import Mapping

import numpy as np
import pytest

from seatrial.optimize.artifact import TensorSpec
from seatrial.optimize.errors import SourceError, StageError
from seatrial.optimize.intake.axes import Tensors, measured, mismatch
from seatrial.optimize.samples import Array


def spec(name: str, *shape: int | str, dtype: str = "float32") -> TensorSpec:
    return TensorSpec(name=name, dtype=dtype, shape=shape)


def floats(*shape: int) -> Array:
    return np.random.default_rng(0).normal(size=shape).astype(np.float32)


def outputs(found: Tensors) -> dict[str, tuple[int | str, ...]]:
    return {each.name: each.shape for each in found.outputs}


def test_an_output_follows_the_free_axis_that_it_hangs_on() -> None:
    def run(arrays: Mapping[str, Array]) -> Mapping[str, Array]:
        x = arrays["x"]
        return {
            "same": x[:, :, :2],
            "twice": np.concatenate([x, x], axis=1),
            "half": x[:, : x.shape[1] // 2],
            "fixed": x.mean(axis=1),
            "swapped": x.transpose(0, 2, 1),
        }

    found = measured([spec("x", "n", "t", 5)], run, {"x": floats(6, 8, 5)})
    assert found.inputs[0].shape == ("batch", "t", 5)
    assert outputs(found) == {
        "same": ("batch", "t", 2),
        "twice": ("batch", "twice.1", 5),
        "half": ("batch", "half.1", 5),
        "fixed": ("batch", 5),
        "swapped": ("batch", 5, "t"),
    }


def test_an_axis_whose_size_hangs_on_the_values_is_free() -> None:
    def run(arrays: Mapping[str, Array]) -> Mapping[str, Array]:
        most = int(arrays["x"].max())
        return {"y": np.zeros((len(arrays["x"]), most))}

    rows = np.arange(1, 7, dtype=np.int64)[:, None]
    assert outputs(measured([spec("x", "n", 1)], run, {"x": rows}))["y"] == ("batch", "y.1")


def test_axes_that_only_vary_together_are_one() -> None:
    def run(arrays: Mapping[str, Array]) -> Mapping[str, Array]:
        ids, mask = arrays["ids"], arrays["mask"]
        if ids.shape != mask.shape:
            raise StageError("shapes differ")
        return {"y": ids * mask}

    samples = {"ids": np.ones((4, 8), np.int64), "mask": np.ones((4, 8), np.int64)}
    found = measured([spec("ids", "ids.0", "ids.1"), spec("mask", "mask.0", "mask.1")], run, samples)
    assert [each.shape for each in found.inputs] == [("batch", "ids.1"), ("batch", "ids.1")]
    assert outputs(found) == {"y": ("batch", "ids.1")}


def test_an_axis_that_takes_no_other_size_is_fixed() -> None:
    def run(arrays: Mapping[str, Array]) -> Mapping[str, Array]:
        return {"y": arrays["x"].reshape(-1, 32)} if arrays["x"].shape[1] == 32 else _refuse()

    found = measured([spec("x", "n", "t")], run, {"x": floats(4, 32)})
    assert found.inputs[0].shape == ("batch", 32)
    assert found.fixed == ("t at 32",)


def _refuse() -> dict[str, Array]:
    raise StageError("no such size")


def test_a_name_that_stands_for_two_sizes_is_two_axes() -> None:
    found = measured([spec("x", "n", "?", "?")], lambda arrays: {"y": arrays["x"]}, {"x": floats(4, 6, 8)})
    assert found.inputs[0].shape == ("batch", "?", "x.2")


def test_whole_tensors_make_a_model_that_does_not_batch() -> None:
    def run(arrays: Mapping[str, Array]) -> Mapping[str, Array]:
        return {"y": arrays["x"] + arrays["r"][:, None, None], "state": 2 * arrays["state"]}

    inputs = [spec("x", "batch", "t"), spec("state", 2, "batch", 3), spec("r")]
    samples = {"x": floats(5, 1, 8), "state": floats(5, 2, 1, 3), "r": floats(5)}
    found = measured(inputs, run, samples)
    assert not found.batches
    assert outputs(found)["state"] == (2, found.inputs[1].shape[1], 3)
    assert outputs(found)["y"][1] == "t"


def test_a_first_axis_that_all_share_is_no_batch_where_samples_are_whole() -> None:
    found = measured([spec("x", "t")], lambda arrays: {"y": arrays["x"]}, {"x": floats(4, 9)})
    assert not found.batches
    assert found.inputs[0].shape == ("t",)


@pytest.mark.parametrize(
    ("inputs", "samples", "what"),
    [
        ([spec("x", "n", 4)], {"z": floats(4, 4)}, "the model takes"),
        ([spec("x", "n", 4)], {"x": floats(4)}, "do not fit the inputs"),
        (
            [spec("x", "n", 4), spec("s", 2, "n", 3)],
            {"x": floats(4, 4), "s": floats(2, 4, 3)},
            "not every input has the batch",
        ),
    ],
)
def test_samples_that_do_not_fit_are_refused(inputs: list[TensorSpec], samples: dict[str, Array], what: str) -> None:
    with pytest.raises(SourceError, match=what):
        measured(inputs, lambda arrays: dict(arrays), samples)


def test_an_output_without_a_row_for_each_sample_is_refused() -> None:
    with pytest.raises(SourceError, match="for 2 samples"):
        measured([spec("x", "n", 4)], lambda arrays: {"y": arrays["x"].reshape(-1, 2)}, {"x": floats(4, 4)})


@pytest.mark.parametrize(
    ("declared", "shape", "fits"),
    [
        (("batch", 8, 12), (2, 5, 12), False),
        (("batch", "length", 12), (2, 5, 12), True),
        (("batch", "length", 12), (2, 6, 12), False),
        (("batch", "y.1", 12), (2, 6, 12), True),
        (("batch", 12), (2, 5, 12), False),
    ],
)
def test_a_shape_is_held_against_its_declaration(
    declared: tuple[int | str, ...], shape: tuple[int, ...], fits: bool
) -> None:
    assert (mismatch(spec("y", *declared), shape, {"batch": 2, "length": 5}) == "") is fits
