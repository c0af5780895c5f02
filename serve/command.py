"""The console command's entry: signals are handled before anything heavy is imported. Verbs stand in `serve.cli`."""

import _signal  # type: ignore[import-not-found]  # a part of the interpreter, there without any import of files
import os
import sys

_SIGNALS = (_signal.SIGINT, _signal.SIGTERM, _signal.SIGHUP)


def main() -> int:
    """Run the command; the exit code of the verb, or 128 and the signal's number where one ended it."""
    for number in _SIGNALS:
        if _signal.getsignal(number) != _signal.SIG_IGN:
            _signal.signal(number, _leave)
    from optimize import interrupts

    from .cli import app

    interrupts.install()
    try:
        app()
    except SystemExit as ended:
        if interrupts.received():  # also where it came beside the verb, while the command line was being read
            return interrupts.exit_code()
        return _code(ended)
    except KeyboardInterrupt:
        sys.stderr.write(f"interrupted: {interrupts.STOPPED}\n")
        return interrupts.exit_code()
    finally:
        interrupts.rest()
    return 0


def _leave(number: int, frame: object) -> None:
    """End at once: while modules are imported there is nothing to clean up, and an import may swallow an exception."""
    os.write(2, b"interrupted: stopped; nothing is half-written\n")
    os._exit(128 + number)


def _code(ended: SystemExit) -> int:
    return ended.code if isinstance(ended.code, int) else int(ended.code is not None)
