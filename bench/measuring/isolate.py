"""One call in a fresh process of its own: pinned, limited in time, gone afterwards.

In-process measurements go through here, so that arenas, threads and warm caches of one subject do not touch the next.
Knows nothing of what is called. The process is ours and starts from nothing but the import path; what travels is
pickled, so the function and its arguments must be importable there.
"""

import ctypes
import os
import pickle
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext, suppress
from typing import IO, Any, TypeVar

from seatrial.optimize.errors import MachineError, SeatrialError
from seatrial.optimize.interrupts import held

from ..errors import CallError

Result = TypeVar("Result")

Watch = Callable[[int], AbstractContextManager[Any]]
"""Maps the process id to a probe that watches the process while it runs (a `MemoryProbe`)."""

Tick = Callable[[float], None]
"""Called about ten times a second with the seconds that the call has run."""

_TICK = 0.1  # seconds
_DEATH_SIGNAL = 1  # PR_SET_PDEATHSIG, see prctl(2)
_START = "from seatrial.bench.measuring.isolate import _child; _child()"


def isolated(
    function: Callable[..., Result],
    *arguments: Any,
    cores: Sequence[int] = (),
    timeout: float = 600.0,
    watch: Watch | None = None,
    tick: Tick | None = None,
) -> Result:
    """Call ``function(*arguments)`` in a new process pinned to `cores` (empty: wherever this one may run).

    `timeout` is in seconds, for everything. Whatever ends the call, the process and its children are gone on return.
    What the function prints goes to where errors go.

    Raises:
        SeatrialError: the one that the function raised.
        CallError: it raised something else, was killed, or overran its time; with the text of the error.
        MachineError: it cannot be pinned to these cores, or no process can be started.
    """
    missing = sorted(set(cores) - os.sched_getaffinity(0))
    if missing:
        raise MachineError(
            f"cores {missing} do not exist, so the call cannot be pinned to them",
            where=f"cores here: {sorted(os.sched_getaffinity(0))}",
            next_step="name cores of this machine",
        )
    call = pickle.dumps((tuple(cores), function, arguments))
    where = getattr(function, "__qualname__", str(function))
    with tempfile.TemporaryFile() as asked, tempfile.TemporaryFile() as said:
        asked.write(call)
        asked.seek(0)
        with held():
            process = _started(asked, said)
        try:
            with watch(process.pid) if watch else nullcontext():
                reply = _answer(process, timeout, tick, where)
        finally:
            with held():
                _end(process)
        result: Result = _result(reply, process.returncode, said, where)
        return result


def _started(asked: IO[bytes], said: IO[bytes]) -> "subprocess.Popen[bytes]":
    """The process, in a session of its own so that Ctrl-C at our terminal reaches it through us alone."""
    surroundings = os.environ | {"PYTHONPATH": os.pathsep.join(path or os.getcwd() for path in sys.path)}
    try:
        return subprocess.Popen(
            [sys.executable, "-c", _START, str(os.getpid())],
            stdin=asked,
            stdout=subprocess.PIPE,
            stderr=said,
            env=surroundings,
            start_new_session=True,
        )
    except OSError as error:
        raise MachineError(f"no process can be started: {error}", next_step="free memory or processes") from error


def _answer(process: "subprocess.Popen[bytes]", timeout: float, tick: Tick | None, where: str) -> bytes:
    """Return the output of the process, once it has ended."""
    began = time.monotonic()
    while True:
        try:
            return process.communicate(timeout=_TICK)[0]
        except subprocess.TimeoutExpired:
            ran = time.monotonic() - began
            if tick is not None:
                tick(ran)
            if ran > timeout:
                raise CallError(
                    f"the call did not end within {timeout:g} seconds and was terminated",
                    where=where,
                    next_step="allow more time, or measure less",
                ) from None


def _end(process: "subprocess.Popen[bytes]") -> None:
    """Nothing of the session stays, whatever the call started there."""
    with suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()
    if process.stdout is not None:
        process.stdout.close()


def _result(reply: bytes, code: int, said: IO[bytes], where: str) -> Any:
    """The call's value, or its error raised here.

    Raises: as `isolated`.
    """
    if not reply:
        said.seek(0)
        last = said.read()[-2000:].decode(errors="replace").strip().splitlines()[-1:]
        how = f"killed by {signal.Signals(-code).name}" if code < 0 else f"exit {code}"
        raise CallError(
            f"the process of the call ended without a result ({how}){': ' + last[0] if last else ''}",
            where=where,
            next_step="fix the called code" if code > 0 else "check whether memory ran out, and measure less at once",
        )
    kind, value = pickle.loads(reply)
    if kind == "error":
        raise value
    return value


def _child() -> None:
    """Run in the new process: read the call, make it, write its result.

    An error that is not one of ours ends the process as it ends any other; its last line is what the parent quotes.
    """
    ctypes.CDLL(None).prctl(_DEATH_SIGNAL, signal.SIGKILL)  # if the parent is killed, so is this
    if os.getppid() != int(sys.argv[1]):  # it was, before the kernel knew
        os._exit(1)
    reply = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)  # stdout carries the reply alone
    cores, function, arguments = pickle.load(sys.stdin.buffer)
    if cores:
        os.sched_setaffinity(0, cores)
    try:
        made = pickle.dumps(("value", function(*arguments)))
    except SeatrialError as error:
        made = pickle.dumps(("error", error))
    with reply:
        reply.write(made)
