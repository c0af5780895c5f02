"""The Python backend's cache: keys that tell apart whatever differs, bounds in bytes and age, off where it costs."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from seatrial.serve.triton.backend.python_cache import REST, WINDOW, Keys, Memory, Worth

KEYS = Keys("sha256:a")
Array = np.ndarray[Any, np.dtype[Any]]
Asked = tuple[tuple[tuple[str, Array], ...], tuple[str, ...], str]

dtypes = st.sampled_from([np.float32, np.float16, np.int32, np.int64, np.uint8, np.bool_])
numbers = dtypes.flatmap(
    lambda dtype: (
        arrays.arrays(dtype, arrays.array_shapes(max_dims=3, max_side=3), elements={"allow_nan": False})
        if np.dtype(dtype).kind == "f"
        else arrays.arrays(dtype, arrays.array_shapes(max_dims=3, max_side=3))
    )
)
texts = st.lists(st.binary(max_size=3), min_size=1, max_size=3).map(lambda parts: np.array(parts, dtype=object))
names = st.text(alphabet="ab1|:<", min_size=1, max_size=3)
requests = st.tuples(
    st.lists(st.tuples(names, numbers | texts), min_size=1, max_size=2).map(tuple),
    st.lists(names, max_size=2).map(tuple),
    st.sampled_from(["", "{}", '{"a":1}']),
)


def said(request: Asked) -> object:
    """All that tells one request from another, as plain values."""
    inputs, outputs, parameters = request
    told = [
        (name, a.dtype.str, a.shape, tuple(a.ravel().tolist()) if a.dtype.hasobject else a.tobytes())
        for name, a in inputs
    ]
    return told, outputs, parameters


@given(requests, requests)
@settings(max_examples=100, deadline=None)
@pytest.mark.slow
def test_keys_are_equal_exactly_where_requests_are(one: Asked, other: Asked) -> None:
    assert (KEYS.key(*one) == KEYS.key(*other)) == (said(one) == said(other))


@given(requests, st.data())
@settings(max_examples=60, deadline=None)
@pytest.mark.slow
def test_one_changed_part_changes_the_key(one: Asked, data: st.DataObject) -> None:
    """Near misses, which two requests drawn apart rarely are: the same bytes under another shape, type, name..."""
    (name, array), *rest = one[0]
    flat = array.reshape(-1)
    others: list[Asked] = [
        (((name + "x", array), *rest), one[1], one[2]),
        (((name, array[np.newaxis]), *rest), one[1], one[2]),
        (one[0], (*one[1], "y"), one[2]),
        (one[0], one[1], one[2] + " "),
    ]
    if not array.dtype.hasobject:
        view = flat.view(f"V{array.itemsize}")
        others.append((((name, view.reshape(array.shape)), *rest), one[1], one[2]))
    other = data.draw(st.sampled_from(others))
    assert KEYS.key(*one) != KEYS.key(*other)
    assert KEYS.key(*one) == KEYS.key(tuple((n, a.copy()) for n, a in one[0]), one[1], one[2])


def test_another_artifact_has_other_keys() -> None:
    inputs = [("x", np.zeros(3, np.float32))]
    assert Keys("sha256:a").key(inputs, ("y",), "") != Keys("sha256:b").key(inputs, ("y",), "")


def answer(value: float, size: int = 4) -> tuple[Array]:
    return (np.full((1, size), value, np.float32),)


def test_an_answer_is_kept_until_its_time_is_over() -> None:
    memory = Memory(10_000, ttl=5)
    memory.put(b"k", answer(1), now=100)
    held = memory.get(b"k", now=104.9)
    assert held is not None
    np.testing.assert_array_equal(held[0], answer(1)[0])
    assert memory.get(b"k", now=105) is None
    assert (len(memory), memory.bytes) == (0, 0)


def test_a_row_of_a_batch_is_kept_as_a_copy() -> None:
    batch = np.arange(8, dtype=np.float32).reshape(2, 4)
    memory = Memory(10_000, ttl=5)
    memory.put(b"k", (batch[1:],), now=0)
    batch[:] = 9
    held = memory.get(b"k", now=0)
    assert held is not None
    np.testing.assert_array_equal(held[0], [[4, 5, 6, 7]])


def test_the_least_recently_used_goes_first() -> None:
    memory = Memory(1300, ttl=50)  # three answers of 400 + 16 bytes
    for key in (b"a", b"b", b"c"):
        memory.put(key, answer(1), now=0)
    memory.get(b"a", now=1)
    memory.put(b"d", answer(1), now=2)
    assert [memory.get(key, now=3) is not None for key in (b"a", b"b", b"c", b"d")] == [True, False, True, True]


sizes = st.integers(1, 600)


@given(st.lists(st.tuples(st.integers(0, 5), sizes, st.integers(0, 4)), max_size=60))
@settings(max_examples=100, deadline=None)
@pytest.mark.slow
def test_it_never_holds_more_than_its_limit_and_counts_right(steps: Sequence[tuple[int, int, int]]) -> None:
    memory, now = Memory(2500, ttl=10), 0
    for key, size, later in steps:
        now += later
        if memory.get(key, now) is None:
            memory.put(key, answer(key, size), now)
            assert (memory.get(key, now) is not None) == (400 + 4 * size <= memory.limit)
        assert memory.bytes == sum(400 + entry[2][0].nbytes for entry in memory._held.values()) <= memory.limit


def test_what_is_too_large_is_not_kept_and_drives_nothing_out() -> None:
    memory = Memory(1000, ttl=5)
    memory.put(b"small", answer(1), now=0)
    memory.put(b"large", answer(1, 1000), now=0)
    assert memory.get(b"large", now=0) is None
    assert memory.get(b"small", now=0) is not None


def windows(worth: Worth, count: int, *, hits: int, spent: float, ran: float, batch: int = 20) -> list[bool]:
    """`count` windows of batches with that many hits in each; what each batch said about turning off."""
    computed = batch - hits
    return [
        worth.looked_up(hits, computed, spent, ran * computed if computed else 0.0)
        for _ in range(count * WINDOW // batch)
    ]


def test_off_after_a_window_without_hits_and_tried_again_later() -> None:
    worth = Worth()
    told = windows(worth, 1, hits=0, spent=20e-6, ran=1e-3)
    assert told == [False] * (len(told) - 1) + [True]
    assert not worth.on
    assert not worth.passed(REST * WINDOW - 1)
    assert worth.passed(1)
    assert worth.on


def test_on_while_hits_save_more_than_looking_up_costs() -> None:
    worth = Worth()
    assert not any(windows(worth, 3, hits=5, spent=20e-6, ran=1e-3))
    assert worth.saved == pytest.approx(5 * 1e-3 * 3 * WINDOW / 20)
    assert worth.hits == 5 * 3 * WINDOW // 20
    cheap = Worth()  # the same hits on a model that is cheaper than its key
    assert windows(cheap, 1, hits=5, spent=20 * 5e-6, ran=4e-6)[-1]


def test_a_window_of_hits_alone_is_worth_what_runs_cost_before() -> None:
    worth = Worth()
    windows(worth, 1, hits=10, spent=1e-6, ran=1e-3)
    assert not any(windows(worth, 5, hits=20, spent=20e-6, ran=0))
    assert worth.on
