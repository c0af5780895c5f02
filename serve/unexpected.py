"""Unexpected exceptions: an internal error of seatrial, kept in a file, with its own exit code."""

import os
import platform
import sys
import tempfile
import traceback
from contextlib import suppress
from datetime import UTC, datetime
from pathlib import Path

from seatrial.optimize.environment import home
from seatrial.optimize.errors import MachineError, SeatrialError

EXIT_CODE = 70  # EX_SOFTWARE of sysexits.h: an internal error, distinct from every verdict
DEBUG = "SEATRIAL_DEBUG"
_LONGEST = 300  # characters of the exception's own words that the message quotes


class UnexpectedError(SeatrialError):
    """An exception that seatrial did not raise on purpose; `where` is the file with the traceback."""

    exit_code = EXIT_CODE


def unexpected(error: Exception) -> SeatrialError:
    """Return the error to print for an exception of any kind, after its traceback was kept.

    A library that is missing and memory that ran out are the machine's; everything else is a fault of seatrial.
    """
    if isinstance(error, ModuleNotFoundError) and error.name and error.name.partition(".")[0] not in _OURS:
        return MachineError(
            f"this installation lacks the library {error.name}", next_step="run scripts/install in this environment"
        )
    if isinstance(error, MemoryError):
        return MachineError("out of memory", next_step="free memory or use a smaller input, then retry")
    said = traceback.format_exception_only(error)[-1].strip()  # also of an exception whose str() fails
    shown = said if len(said) <= _LONGEST else said[:_LONGEST] + "..."
    return UnexpectedError(
        f"an internal error of seatrial, not a verdict: {shown}",
        where=_kept(error),
        next_step=f"report it with that file (the project's issue tracker); {DEBUG}=1 prints the traceback",
    )


_OURS = ("optimize", "bench", "serve")


def _kept(error: Exception) -> str:
    """Write the traceback under the home, else into the folder for temporary files; return where."""
    lines = "".join(traceback.format_exception(error))
    if os.environ.get(DEBUG) not in (None, "", "0"):
        sys.stderr.write(lines.encode(errors="backslashreplace").decode())
    at = datetime.now(UTC)
    about = f"{at.isoformat()}\nseatrial {_version()}, Python {platform.python_version()}, {platform.platform()}\n"
    text = f"{about}arguments: {sys.argv[1:]!r}\n\n{lines}"
    folders = [Path(tempfile.gettempdir())]
    with suppress(SeatrialError, OSError):  # the working directory may be gone, too
        folders.insert(0, home() / "faults")
    for folder in folders:
        path = folder / f"seatrial-{at:%Y%m%d-%H%M%S}-{os.getpid()}.txt"
        try:
            folder.mkdir(parents=True, exist_ok=True)
            with os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as stream:
                stream.write(text.encode(errors="backslashreplace"))
        except OSError:
            continue
        return str(path)
    return ""


def _version() -> str:
    from importlib import metadata  # 20 ms, needless where nothing goes wrong

    try:
        return metadata.version("seatrial")
    except metadata.PackageNotFoundError:
        return "from a checkout"
