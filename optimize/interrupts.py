"""Signals that ask for an end (SIGINT, SIGTERM, SIGHUP): one KeyboardInterrupt in the main thread, then clean-up.

The first signal raises `KeyboardInterrupt`, so that every ``with`` and ``finally`` ends what it started. A second one
changes nothing and says so; a third ends the process at once, and its guardian (`guarding`) ends what it started.
A clean-up under way when the first signal comes is completed before it takes effect (`held`).

Only the command installs this (`install`): a library leaves its caller's signals alone. A signal that is ignored when
the process starts, as under nohup, stays ignored.
"""

import _thread
import os
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Any

SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
STOPPED = "stopped; nothing is half-written"
_ONE_WISH_SECONDS = 0.1  # a terminal and a process manager may both pass on the same request
_AGAIN_SECONDS = 0.01
_PATIENCE = b"\nclean-up is under way; a third signal ends this at once\n"


class _State:
    def __init__(self) -> None:
        self.installed = self.pending = False
        self.number = 0  # of the signal that came first; 0 for none
        self.count = 0
        self.last = 0.0
        self.depth = 0  # of blocks that hold signals back
        self.before: dict[int, Any] = {}


_state = _State()


def install() -> None:
    """Handle the signals from now on."""
    _state.installed = True
    for number in SIGNALS:
        if signal.getsignal(number) != signal.SIG_IGN:
            _state.before[number] = signal.signal(number, _arrived)


@contextmanager
def handled() -> Iterator[None]:
    """Handle the signals for the length of a block, where that is not done already and can be: in the main thread."""
    global _state
    if _state.installed or not _in_main_thread():
        yield
        return
    install()
    try:
        yield
    finally:
        for number, handler in _state.before.items():
            signal.signal(number, handler)
        answered()
        _state = _State()


def rest() -> None:
    """Let a signal end the process without a word: the work is done, and the interpreter takes itself down."""
    for number in _state.before:
        signal.signal(number, signal.SIG_DFL)


def received() -> bool:
    """Tell whether a signal came that was not `answered`."""
    return _state.number != 0


def due() -> None:
    """Raise for a signal whose interruption a library caught and dropped; called between the steps of long work."""
    if received() and not _state.depth and _in_main_thread():
        raise KeyboardInterrupt


def answered() -> None:
    """Clear the received signal: its request was met, and the work continues."""
    sys.unraisablehook = sys.__unraisablehook__
    _state.number, _state.count, _state.pending = 0, 0, False


@contextmanager
def answering() -> Iterator[None]:
    """Let a signal end a block that lasts until one comes, and go on after it as if none had come."""
    try:
        yield
    except KeyboardInterrupt:
        answered()


def pass_on(number: int, *, raised: bool) -> None:
    """Take over a signal that another handler received, and raise unless that one did, where signals are handled."""
    if _state.installed and not _state.number:
        _state.number, _state.count, _state.last = number, 1, time.monotonic()
        if not raised:
            raise KeyboardInterrupt


def exit_code() -> int:
    """Return 128 and the number of the signal: 130 for SIGINT (also where none is known), 143 for SIGTERM."""
    return 128 + (_state.number or signal.SIGINT)


@contextmanager
def held() -> Iterator[None]:
    """Hold signals back while a block runs: for clean-up, and for a start that must be noted before it can be undone.

    One that came meanwhile takes effect at the end of the block. Outside of the main thread there is nothing to hold.
    """
    if not _in_main_thread():
        yield
    elif _state.installed:
        _state.depth += 1
        try:
            yield
        finally:
            _state.depth -= 1
            if _state.pending and not _state.depth:
                _state.pending = False
                raise KeyboardInterrupt
    else:
        with _collected() as came:
            yield
        if came:
            signal.raise_signal(came[0])


@contextmanager
def reported() -> Iterator[None]:
    """Replace an error that a block raises after a signal by the interruption: a library may have converted it."""
    try:
        yield
    except Exception as error:
        if not received():
            raise
        raise KeyboardInterrupt from error


@contextmanager
def wished() -> Iterator[Callable[[], bool]]:
    """Treat the signals as a request to stop, for a verb that runs until then; yields whether one arrived."""
    with _collected() as came:
        yield lambda: bool(came)


@contextmanager
def _collected() -> Iterator[list[signal.Signals]]:
    came: list[signal.Signals] = []
    before = {number: signal.getsignal(number) for number in SIGNALS}
    before = {number: handler for number, handler in before.items() if handler not in (signal.SIG_IGN, None)}
    try:
        for number in before:
            signal.signal(number, lambda received, frame: came.append(signal.Signals(received)))
        yield came
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _in_main_thread() -> bool:
    return threading.current_thread() is threading.main_thread()


def _arrived(number: int, frame: FrameType | None) -> None:
    now = time.monotonic()
    if _state.count and now - _state.last < _ONE_WISH_SECONDS:
        return
    _state.count, _state.last = _state.count + 1, now
    if _state.count == 1:
        _state.number = number
        _raise(frame)
    elif _state.count == 2:
        os.write(2, _PATIENCE)
    else:
        signal.signal(number, signal.SIG_DFL)
        os.kill(os.getpid(), number)


def _raise(frame: FrameType | None) -> None:
    """Raise at once, at the end of the block that holds signals back, or where an exception is not lost."""
    if _state.depth:
        _state.pending = True
        _hush()
    elif _lost(frame):
        _state.count, _state.last = 0, 0.0
        _thread.start_new_thread(_again, (_state.number,))
    else:
        _hush()
        raise KeyboardInterrupt


def _hush() -> None:
    """Suppress errors of finalizers: objects that the signal left incomplete are destroyed now."""
    sys.unraisablehook = lambda ignored: None


def _again(number: int) -> None:
    time.sleep(_AGAIN_SECONDS)
    signal.raise_signal(signal.Signals(number))


def _lost(frame: FrameType | None) -> bool:
    """Tell whether Python would print and drop an exception here: finalizers and callbacks of weak references."""
    while frame is not None:
        code = frame.f_code
        if code.co_name in ("__del__", "_remove") or code.co_qualname.endswith("_get_module_lock.<locals>.cb"):
            return True
        frame = frame.f_back
    return False
