"""The console command's entry: signals are handled before anything heavy is imported. Verbs stand in `serve.cli`."""

import _signal  # type: ignore[import-not-found]  # a part of the interpreter, there without any import of files
import os
import sys

TYPE_CHECKING = False  # as in typing, which is not imported before the signals are handled
if TYPE_CHECKING:
    from typing import NoReturn

_SIGNALS = (_signal.SIGINT, _signal.SIGTERM, _signal.SIGHUP)


def main() -> int:
    """Run the command; the exit code of the verb, or 128 and the signal's number where one ended it."""
    for number in _SIGNALS:
        if _signal.getsignal(number) != _signal.SIG_IGN:
            _signal.signal(number, _leave)
    from seatrial.optimize import interrupts

    from .cli import app

    interrupts.install()
    try:
        app(prog_name="seatrial")
    except SystemExit as ended:
        if interrupts.received():  # also where it came beside the verb, while the command line was being read
            _end(interrupts.exit_code())
        return _code(ended)
    except KeyboardInterrupt:
        sys.stderr.write(f"interrupted: {interrupts.STOPPED}\n")
        _end(interrupts.exit_code())
    finally:
        interrupts.rest()
    return 0


def _leave(number: int, frame: object) -> None:
    """End at once: while modules are imported there is nothing to clean up, and an import may swallow an exception."""
    os.write(2, b"interrupted: stopped; nothing is half-written\n")
    os._exit(128 + number)


def _end(code: int) -> "NoReturn":
    """End with that code, which the interpreter's own way out may replace.

    Under ``python -m`` it ends by SIGINT where any KeyboardInterrupt left an ``exec`` of text, as those are in which
    classes are made while modules are imported. Threads that still work are not waited for: clean-up is over.
    """
    import atexit
    from contextlib import suppress

    atexit._run_exitfuncs()
    for stream in (sys.stdout, sys.stderr):
        with suppress(OSError, ValueError):
            stream.flush()
    os._exit(code)


def _code(ended: SystemExit) -> int:
    return ended.code if isinstance(ended.code, int) else int(ended.code is not None)


if __name__ == "__main__":
    main()
