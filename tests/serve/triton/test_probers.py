"""Probers: one that hangs holds up nobody, threads are bounded, and nothing is made for a probe."""

import threading
import time

import psutil
import pytest

from seatrial.serve.errors import ExhaustedError
from seatrial.serve.triton.supervision.probers import Probers


@pytest.mark.slow
def test_what_hangs_holds_up_nobody_and_is_begun_once() -> None:
    hang, begun = threading.Event(), list[str]()

    def look(key: str) -> str:
        begun.append(key)
        if key == "hangs":
            hang.wait(30.0)
        return key.upper()

    probers = Probers(look)
    for number in range(5):
        probers.begin(["a", "hangs", "b"])
        found = probers.collect(30.0 if number else 2.0)  # the first one waits in vain for the one that hangs
        assert {key: outcome.found for key, outcome in found.items()} == {"a": "A", "b": "B"}
    assert begun.count("hangs") == 1
    hang.set()
    until = time.monotonic() + 60.0
    while not (found := probers.collect(0.0)) and time.monotonic() < until:
        time.sleep(0.01)
    assert found["hangs"].found == "HANGS"
    probers.close()


def test_a_look_does_not_wait_again_for_what_already_hung() -> None:
    hang = threading.Event()
    probers: Probers[str, bool] = Probers(lambda key: hang.wait(90.0))
    probers.begin(["x"])
    assert probers.collect(0.1) == {}
    began = time.monotonic()
    probers.begin(["x"])
    assert probers.collect(60.0) == {}
    assert time.monotonic() - began < 30.0
    hang.set()
    probers.close()


def test_threads_are_bounded_and_kept() -> None:
    names = set[str]()

    def look(key: int) -> int:
        names.add(str(threading.get_ident()))
        time.sleep(0.002)
        return key

    probers = Probers(look, most=4)
    process = psutil.Process()
    before = process.num_threads()
    for _ in range(30):
        probers.begin(range(20))
        assert len(probers.collect(60.0)) == 20
        assert process.num_threads() <= before + 4
    assert len(names) <= 4
    probers.close()
    until = time.monotonic() + 30.0
    while process.num_threads() > before and time.monotonic() < until:
        time.sleep(0.01)
    assert process.num_threads() <= before


def test_what_is_forgotten_while_under_way_is_never_collected() -> None:
    go, looks = threading.Event(), list[int]()

    def look(key: str) -> int:
        looks.append(1)
        number = len(looks)
        if number == 1:
            go.wait(60.0)
        return number

    probers = Probers(look)
    probers.begin(["x"])
    probers.collect(0.05)
    probers.forget(["x"])
    probers.begin(["x"])
    assert probers.collect(30.0)["x"].found == 2
    go.set()
    time.sleep(0.1)
    assert probers.collect(0.1) == {}
    probers.close()


@pytest.mark.parametrize("error", [OSError(24, "Too many open files"), KeyError("x"), MemoryError()])
def test_an_error_comes_back_as_one_and_the_thread_goes_on(error: Exception) -> None:
    failing = True

    def look(key: str) -> str:
        if failing:
            raise error
        return key

    probers = Probers(look, most=1)
    probers.begin(["x"])
    assert probers.collect(30.0)["x"].error is error
    failing = False
    probers.begin(["x"])
    assert probers.collect(30.0)["x"].found == "x"
    probers.close()


def test_closed_it_can_begin_again() -> None:
    probers = Probers(str.upper)
    for _ in range(3):
        probers.begin(["x"])
        assert probers.collect(30.0)["x"].found == "X"
        probers.close()


def test_without_a_single_thread_it_says_so_and_keeps_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    def refused(thread: threading.Thread) -> None:
        raise RuntimeError("can't start new thread")

    probers = Probers(str.upper)
    with monkeypatch.context() as patch:
        patch.setattr(threading.Thread, "start", refused)
        for _ in range(3):
            with pytest.raises(ExhaustedError, match="cannot start a thread"):
                probers.begin(["x", "y"])
    assert probers.under_way() == set()
    assert probers._jobs.empty()
    probers.begin(["x"])
    assert probers.collect(30.0)["x"].found == "X"
    probers.close()
