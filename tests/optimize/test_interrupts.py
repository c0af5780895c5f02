"""Signals that ask for an end: the first raises, clean-up is completed, a third ends at once."""

import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from seatrial.optimize import interrupts
from tests.support.built import ROOT

WORK = """
import os, sys, time
from seatrial.optimize import interrupts
from seatrial.optimize.interrupts import held
interrupts.install()
def said(text): os.write(1, text.encode() + b"\\n")
try:
    said("ready")
    time.sleep(90)
except KeyboardInterrupt:
    said("unwinding")
    {cleanup}
    said("clean")
sys.exit(interrupts.exit_code())
"""
SLOW = """until = time.monotonic() + 30
    while interrupts._state.count < 2 and time.monotonic() < until: time.sleep(0.05)
    time.sleep(0.3)"""
APART = 0.3  # seconds; signals closer together are one wish


@contextmanager
def working(cleanup: str, *before: str) -> Iterator["subprocess.Popen[str]"]:
    command = [*before, sys.executable, "-c", WORK.replace("{cleanup}", cleanup)]
    pipe = subprocess.PIPE
    with subprocess.Popen(command, cwd=ROOT, stdin=subprocess.DEVNULL, stdout=pipe, stderr=pipe, text=True) as process:
        try:
            assert process.stdout is not None
            assert process.stdout.readline() == "ready\n"
            yield process
        finally:
            process.kill()


@pytest.mark.parametrize(
    ("number", "code"),
    [(signal.SIGINT, 130), (signal.SIGTERM, 143), (signal.SIGHUP, 129)],
    ids=lambda value: str(value),
)
def test_every_signal_unwinds_once_and_names_itself(number: signal.Signals, code: int) -> None:
    with working("pass") as process:
        process.send_signal(number)
        said, wrong = process.communicate(timeout=60)
    assert (process.returncode, said, wrong) == (code, "unwinding\nclean\n", "")


def test_an_interruption_that_a_library_dropped_takes_effect_at_the_next_step() -> None:
    dropped = """
import signal, sys
from seatrial.optimize import interrupts
from seatrial.optimize.terminal import progress
interrupts.install()
with progress() as report:
    report("step", 0.0, "")
    try:
        signal.raise_signal(signal.SIGTERM)
    except BaseException:
        pass
    try:
        report("step", 0.5, "")
    except KeyboardInterrupt:
        sys.exit(interrupts.exit_code())
"""
    done = subprocess.run([sys.executable, "-c", dropped], cwd=ROOT, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (143, "")


@pytest.mark.slow
def test_a_second_signal_lets_the_clean_up_finish() -> None:
    with working(SLOW) as process:
        process.send_signal(signal.SIGTERM)
        assert process.stdout is not None
        assert process.stdout.readline() == "unwinding\n"
        time.sleep(APART)
        process.send_signal(signal.SIGINT)
        said, wrong = process.communicate(timeout=60)
    assert (process.returncode, said) == (143, "clean\n")
    assert "a third signal" in wrong


@pytest.mark.slow
def test_a_third_signal_ends_it_at_once() -> None:
    with working("time.sleep(60)") as process:
        assert process.stdout is not None
        assert process.stderr is not None
        for heard in (process.stdout, process.stderr, None):  # each was taken before the next is sent
            process.send_signal(signal.SIGTERM)
            if heard is not None:
                assert heard.readline()
                time.sleep(APART)
        said, _ = process.communicate(timeout=30)
    assert process.returncode == -signal.SIGTERM
    assert "clean" not in said


def test_what_was_ignored_at_the_start_stays_ignored() -> None:
    with working("pass", "nohup") as process:
        process.send_signal(signal.SIGHUP)
        time.sleep(0.3)
        assert process.poll() is None
        process.send_signal(signal.SIGTERM)
        process.communicate(timeout=60)
    assert process.returncode == 143


@pytest.fixture
def handled() -> Iterator[None]:
    with interrupts.handled():
        yield


def test_a_block_that_holds_signals_back_is_completed(handled: None) -> None:
    done = []

    def clean_up() -> None:
        with interrupts.held():
            signal.raise_signal(signal.SIGTERM)
            with interrupts.held():
                done.append("inner")
            done.append("outer")

    with pytest.raises(KeyboardInterrupt):
        clean_up()
    assert done == ["inner", "outer"]
    assert interrupts.exit_code() == 143


def test_a_library_holds_back_its_caller_s_signals_too() -> None:
    done = []

    def clean_up() -> None:
        with interrupts.held():
            signal.raise_signal(signal.SIGINT)
            done.append("all")

    with pytest.raises(KeyboardInterrupt):
        clean_up()
    assert done == ["all"]
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler
    assert not interrupts.received()


def test_a_wish_that_was_met_is_no_interruption(handled: None) -> None:
    with interrupts.answering():
        signal.raise_signal(signal.SIGTERM)
    assert not interrupts.received()
    with pytest.raises(KeyboardInterrupt):
        signal.raise_signal(signal.SIGINT)


def test_a_verb_that_runs_until_told_sees_the_wish(handled: None) -> None:
    with interrupts.wished() as stopping:
        assert not stopping()
        signal.raise_signal(signal.SIGHUP)
        assert stopping()
    assert not interrupts.received()


def test_an_error_that_a_library_made_of_the_signal_is_the_interruption(handled: None) -> None:
    def load() -> None:
        try:
            signal.raise_signal(signal.SIGINT)
        except KeyboardInterrupt as error:
            raise ImportError("multiarray failed to import") from error

    with pytest.raises(KeyboardInterrupt), interrupts.reported():
        load()
    with pytest.raises(ImportError), interrupts.handled():
        raise ImportError("by itself")


def test_a_finalizer_loses_no_signal(handled: None) -> None:
    class Loud:
        def __del__(self) -> None:
            signal.raise_signal(signal.SIGTERM)  # what is raised in here would be printed and dropped

    def drop() -> None:
        Loud()
        for _ in range(100):
            time.sleep(0.02)

    with pytest.raises(KeyboardInterrupt):
        drop()


def test_what_the_signal_left_half_made_is_taken_down_without_a_word() -> None:
    half = "class Half:\n        def __del__(self): self.never_set\n    Half()"
    with working(half) as process:
        process.send_signal(signal.SIGTERM)
        said, wrong = process.communicate(timeout=60)
    assert (process.returncode, said, wrong) == (143, "unwinding\nclean\n", "")


def test_other_threads_are_left_alone() -> None:
    seen = []

    def work() -> None:
        with interrupts.handled(), interrupts.held():
            seen.append(signal.getsignal(signal.SIGTERM))

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    assert seen == [signal.SIG_DFL]
