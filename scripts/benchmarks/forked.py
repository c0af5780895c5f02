"""Verbs of the command, each in a process forked from one that has everything imported: no second for every start."""

import importlib
import os
import select
import signal
import sys
import time
import traceback
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from seatrial.optimize.environment import environment

PRELOADED = (
    "seatrial.serve.cli",
    "seatrial.optimize.building.build",
    "seatrial.optimize.building.figures",
    "seatrial.optimize.store_repair",
    "seatrial.optimize.sessions.on_ort",
    "torch",
    "scipy.stats",
    "seatrial.serve.release.registry_check",
    "onnxruntime",
    "onnxruntime.quantization",
)
UNCAUGHT = 97
HANG = -1000


@dataclass(frozen=True, slots=True, kw_only=True)
class Ran:
    """Result of a verb: exit code and output; `code` is `HANG` where it was killed after its time limit."""

    code: int
    output: str

    @property
    def traced(self) -> bool:
        """Return whether it ended in a traceback."""
        return self.code == UNCAUGHT or "Traceback (most recent call last)" in self.output


def preload() -> None:
    """Import what verbs import, once."""
    for name in PRELOADED:
        importlib.import_module(name)
    environment()


def run(words: tuple[str, ...], home: Path, *, timeout: float = 60.0, kill_after: float | None = None) -> Ran:
    """Run one verb under that SEATRIAL_HOME; with `kill_after`, SIGKILL it after so many seconds."""

    def verb() -> None:
        from seatrial.serve.cli import app

        sys.argv = ["seatrial", *words]
        app(args=list(words), standalone_mode=True)

    return forked(verb, {"SEATRIAL_HOME": str(home), "COLUMNS": "2000"}, timeout=timeout, kill_after=kill_after)


def run_all(verbs: Sequence[tuple[str, ...]], home: Path, *, timeout: float = 60.0) -> list[Ran]:
    """Run verbs one after the other in one forked process; what did not come to its end in time is a hang."""
    mark = f"--{os.urandom(8).hex()}-- "

    def act() -> None:
        from seatrial.serve.cli import app

        for words in verbs:
            sys.argv, code = ["seatrial", *words], 0
            try:
                app(args=list(words), standalone_mode=True)
            except SystemExit as error:
                code = error.code if isinstance(error.code, int) else 0 if error.code is None else 1
            except BaseException:  # noqa: BLE001  whatever it is, it is what the user would see
                sys.stderr.write(traceback.format_exc())
                code = UNCAUGHT
            sys.stdout.flush()
            sys.stderr.write(f"{mark}{code}\n")
            sys.stderr.flush()

    whole = forked(act, {"SEATRIAL_HOME": str(home), "COLUMNS": "2000"}, timeout=timeout)
    found = []
    for chunk in whole.output.split(mark)[1:]:
        found.append(int(chunk.partition("\n")[0]))
    texts = [chunk.partition("\n")[2] if number else chunk for number, chunk in enumerate(whole.output.split(mark))]
    ran = [Ran(code=code, output=text) for code, text in zip(found, texts, strict=False)]
    return [*ran, *(Ran(code=HANG, output=whole.output[-500:]) for _ in verbs[len(ran) :])]


def forked(
    act: Callable[[], None], variables: Mapping[str, str], *, timeout: float = 60.0, kill_after: float | None = None
) -> Ran:
    """Do something in a forked process, and read what it prints."""
    reading, writing = os.pipe()
    sys.stdout.flush()
    process = os.fork()
    if process == 0:
        os.close(reading)
        _child(act, variables, writing)
    os.close(writing)
    try:
        output, late = _read(reading, process, min(timeout, kill_after or timeout))
    finally:
        os.close(reading)
    if late:
        with suppress(ProcessLookupError):
            os.killpg(process, signal.SIGKILL)
    _, status = os.waitpid(process, 0)
    code = HANG if late and kill_after is None else os.waitstatus_to_exitcode(status)
    return Ran(code=code, output=output.decode(errors="replace"))


def _read(reading: int, process: int, seconds: float) -> tuple[bytes, bool]:
    output, end = b"", time.monotonic() + seconds
    while (left := end - time.monotonic()) > 0:
        if select.select([reading], [], [], left)[0]:
            if not (data := os.read(reading, 1 << 16)):
                return output, False
            output += data
    return output, True


def _child(act: Callable[[], None], variables: Mapping[str, str], writing: int) -> None:
    code = 0
    try:
        os.setsid()
        os.dup2(writing, 1)
        os.dup2(writing, 2)
        os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
        os.environ.update(variables)
        act()
    except SystemExit as error:
        code = error.code if isinstance(error.code, int) else 0 if error.code is None else 1
    except BaseException:  # noqa: BLE001  whatever it is, it is what the user would see
        sys.stderr.write(traceback.format_exc())
        code = UNCAUGHT
    finally:
        with suppress(Exception):
            sys.stdout.flush()
            sys.stderr.flush()
        os._exit(code)
