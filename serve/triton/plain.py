"""Files of a Triton repository, of possibly foreign origin: what `seatrial.optimize.plain` reads, and their rights.

A named pipe, a socket, a device, a directory or a link in place of a file is an `OSError`.
"""

import os
import stat
from pathlib import Path

from seatrial.optimize.plain import opened, read_plain

from .pbtxt import decoded

CONFIG_BYTES = 4 << 20
RECORD_BYTES = 4 << 20


def config_text(path: Path) -> str:
    """Return the text of a config.pbtxt, in whatever encoding its comments are.

    Raises:
        OSError: as `read_plain`.
    """
    return decoded(read_plain(path, CONFIG_BYTES))


def ends(path: Path) -> tuple[bytes, bytes]:
    """Return the first two bytes and the last one.

    Raises:
        OSError: as `opened`.
    """
    with opened(path) as stream:
        handle = stream.fileno()
        return os.pread(handle, 2, 0), os.pread(handle, 1, max(os.fstat(handle).st_size - 1, 0))


def close_to_others(path: Path) -> None:
    """Take from other users the right to write a file or folder, whatever this process's umask gave them."""
    mode = stat.S_IMODE(path.stat().st_mode)
    if mode & stat.S_IWOTH:
        path.chmod(mode & ~stat.S_IWOTH)
