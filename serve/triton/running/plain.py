"""Paths that a server's own shell can take: Triton's python backend starts its stubs by ``bash -c`` and quotes nothing.

A blank in the path of a repository hangs the load, a ``;`` runs a command, and bytes that are not ASCII fail in the
stub's Python. Such a path is given to the server as an alias: a link of plain characters in a private folder.
"""

import os
import re
import stat
import tempfile
from collections.abc import Iterator
from pathlib import Path

from seatrial.optimize.artifact import digest_bytes
from seatrial.optimize.environment import is_text

from ...errors import ServerError

_PLAIN = re.compile(r"/[A-Za-z0-9_./+,@%:=-]*")
_LONGEST = 1024  # of a path; the stub's command line and the server's buffers have bounds of their own


def plain(path: Path) -> Path:
    """Return the path, or an alias of it where a shell would not take it as one word.

    Raises:
        ServerError: it needs an alias, and no folder for one can be made; or no record could hold it.
    """
    whole = path.absolute()
    if not is_text(str(whole)):
        raise ServerError(
            "the path has control characters or is not UTF-8, so nothing can be served from it",
            where=str(whole),
            next_step="rename that folder (SEATRIAL_HOME, --repository)",
        )
    if _PLAIN.fullmatch(str(whole)) and len(str(whole)) <= _LONGEST:
        return path
    for folder in _folders():
        try:
            return _alias(folder, whole)
        except OSError:
            continue
    raise ServerError(
        "Triton's Python backend accepts only ASCII paths without blanks and quotes",
        where=str(whole),
        next_step="use such a path (SEATRIAL_HOME, --repository), or allow this user to write into /tmp",
    )


def _folders() -> Iterator[Path]:
    """Private folders that may hold aliases, by preference."""
    for base in ("/tmp", "/var/tmp", "/dev/shm", os.environ.get("XDG_RUNTIME_DIR", ""), tempfile.gettempdir()):
        if _PLAIN.fullmatch(base):
            yield Path(base) / f"seatrial-{os.getuid()}"


def _alias(folder: Path, path: Path) -> Path:
    """Make the link, in a folder that no other user can write; remove broken ones."""
    folder.mkdir(mode=0o700, exist_ok=True)
    about = folder.lstat()
    if not stat.S_ISDIR(about.st_mode) or about.st_uid != os.getuid() or about.st_mode & 0o077:
        raise PermissionError(f"{folder} also belongs to other users")
    alias = folder / digest_bytes(os.fsencode(path))[7:27]
    if not (alias.is_symlink() and os.readlink(alias) == str(path)):
        staged = folder / f"{alias.name}.{os.getpid()}"
        staged.unlink(missing_ok=True)
        staged.symlink_to(path)
        staged.replace(alias)
    for other in folder.iterdir():
        if other != alias and other.is_symlink() and not other.exists():
            other.unlink(missing_ok=True)
    return alias
