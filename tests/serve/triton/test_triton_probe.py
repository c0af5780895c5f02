"""The golden request: built from what the server says, judged by form; values are somebody else's business."""

from typing import Any

import numpy as np

from seatrial.serve.triton.supervision.probe import golden, misfit, not_finite

CONFIG: dict[str, Any] = {
    "max_batch_size": 8,
    "input": [
        {"name": "pixels", "data_type": "TYPE_FP16", "dims": ["3", -1]},
        {"name": "text", "data_type": "TYPE_STRING", "dims": [1]},
        {"name": "extra", "data_type": "TYPE_INT64", "dims": [1], "optional": True},
    ],
    "output": [{"name": "y", "data_type": "TYPE_FP32", "dims": [2]}],
}


def test_free_dimensions_are_one_and_optional_inputs_left_out() -> None:
    asked = golden(CONFIG)
    assert asked is not None
    assert {name: (array.shape, array.dtype.name) for name, array in asked.inputs.items()} == {
        "pixels": ((1, 3, 1), "float16"),
        "text": ((1, 1), "object"),
    }


def test_the_models_own_warm_up_names_the_shapes() -> None:
    warm = {"model_warmup": [{"batch_size": 4, "inputs": {"pixels": {"dims": [3, 224]}}}]}
    asked = golden(CONFIG | warm)
    assert asked is not None
    assert asked.inputs["pixels"].shape == (1, 3, 224)


def test_a_model_without_a_batch_axis_gets_none() -> None:
    asked = golden(CONFIG | {"max_batch_size": 0})
    assert asked is not None
    assert asked.inputs["pixels"].shape == (3, 1)
    assert misfit(asked, {"y": np.zeros(2, np.float32)}) == ""


def test_a_response_cache_never_sees_the_same_request_twice() -> None:
    cached = CONFIG | {"response_cache": {"enable": True}}
    plain, again, first, second = golden(CONFIG), golden(CONFIG), golden(cached), golden(cached)
    assert plain is not None
    assert again is not None
    assert first is not None
    assert second is not None
    for name, array in plain.inputs.items():
        np.testing.assert_array_equal(array, again.inputs[name])
        assert (first.inputs[name].shape, first.inputs[name].dtype) == (array.shape, array.dtype)
        assert not np.array_equal(first.inputs[name], second.inputs[name])


def test_no_single_request_tries_a_stateful_or_decoupled_model() -> None:
    assert golden(CONFIG | {"sequence_batching": {}}) is None
    assert golden(CONFIG | {"model_transaction_policy": {"decoupled": True}}) is None


def test_an_answer_of_another_form_is_told() -> None:
    asked = golden(CONFIG)
    assert asked is not None
    assert misfit(asked, {"y": np.zeros((1, 2), np.float32)}) == ""
    assert misfit(asked, {}) == "output y is missing"
    assert "[1, 3], not" in misfit(asked, {"y": np.zeros((1, 3), np.float32)})
    assert "[2], not" in misfit(asked, {"y": np.zeros(2, np.float32)})
    assert "float64" in misfit(asked, {"y": np.zeros((1, 2), np.float64)})


def test_only_floats_can_be_infinite() -> None:
    answer = {"a": np.array([np.nan]), "b": np.array([1]), "c": np.array([np.inf], np.float32), "d": np.array([b"x"])}
    assert not_finite(answer) == ("a", "c")
