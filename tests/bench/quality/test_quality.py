"""Quality: answers asked over HTTP come back whole and checked, and the ready-made metrics score them."""

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from seatrial.bench.errors import AnswerError
from seatrial.bench.quality import served
from seatrial.bench.targets import Endpoint
from seatrial.optimize.artifact import TensorSpec

INPUTS = (TensorSpec(name="x", dtype="float32", shape=("batch", 4)),)
OUTPUTS = (TensorSpec(name="scores", dtype="float32", shape=("batch", 3)),)
Answer = Callable[[np.ndarray[Any, Any]], np.ndarray[Any, Any]]
Served = Callable[[Answer], AbstractContextManager[Endpoint]]
X = np.random.default_rng(0).standard_normal((40, 4)).astype(np.float32)


@pytest.fixture
def model(kserve: Callable[[Answer], AbstractContextManager[int]]) -> Served:
    @contextmanager
    def serving(answer: Answer) -> Iterator[Endpoint]:
        with kserve(answer) as port:
            yield Endpoint(url=f"127.0.0.1:{port}", model="m", version="1", inputs=INPUTS, outputs=OUTPUTS)

    return serving


def good(x: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
    return np.ascontiguousarray(x[:, :3])


@pytest.mark.parametrize(("count", "batch"), [(1, 32), (7, 3), (32, 32), (33, 32), (5, 1)])
def test_answers_come_back_whole_and_in_order(model: Served, count: int, batch: int) -> None:
    with model(good) as endpoint:
        outputs = served.answers(endpoint, {"x": X[:count]}, batch)
    assert np.array_equal(outputs["scores"], X[:count, :3])


def test_a_model_with_a_fixed_batch_is_asked_in_its_own_size(model: Served) -> None:
    sizes = []

    def answer(x: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
        sizes.append(len(x))
        return good(x)

    with model(answer) as endpoint:
        fixed = replace(
            endpoint, inputs=(replace(INPUTS[0], shape=(4, 4)),), outputs=(replace(OUTPUTS[0], shape=(4, 3)),)
        )
        outputs = served.answers(fixed, {"x": X[:10]}, 32)
    assert sizes == [4, 4, 4]
    assert np.array_equal(outputs["scores"], X[:10, :3])


def not_finite(x: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
    answer = good(x).copy()
    answer[0, 1] = np.inf
    return answer


def refusing(x: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
    raise RuntimeError("out of memory")


@pytest.mark.parametrize(
    ("answer", "says"),
    [
        (not_finite, "NaN or infinite"),
        (lambda x: np.ascontiguousarray(x[:, :2]), "the metadata promises"),
        (lambda x: good(x)[:-1], "15, 3"),
        (lambda x: good(x)[..., None], "the metadata promises"),
        (refusing, "HTTP 500.*out of memory"),
    ],
)
def test_answers_that_break_the_promise_are_errors(model: Served, answer: Answer, says: str) -> None:
    with model(answer) as endpoint, pytest.raises(AnswerError, match=says):
        served.answers(endpoint, {"x": X[:32]}, 16)


def test_an_output_of_another_dtype_or_name_is_an_error(model: Served) -> None:
    for outputs in ((replace(OUTPUTS[0], dtype="float64"),), (replace(OUTPUTS[0], name="logits"),)):
        with model(good) as endpoint, pytest.raises(AnswerError):
            served.answers(replace(endpoint, outputs=outputs), {"x": X[:4]}, 4)


def test_a_server_that_is_gone_is_an_error(model: Served) -> None:
    with model(good) as endpoint:
        pass
    with pytest.raises(AnswerError, match="does not answer"):
        served.answers(endpoint, {"x": X[:4]}, 4)
