"""The real tritonserver out of the nvidia-pytriton wheel: where it is, and what it needs around it.

Finds and arranges; starts nothing. site-packages stays as pip left it: the python backend, its stub for this Python and
its utils are linked into a folder of our own. The stub runs Python isolated (it ignores PYTHONPATH and every other
PYTHON variable) and finds its environment by looking for `python3` on PATH, so PATH is what matters.
"""

import os
import shutil
import sys
import sysconfig
from collections.abc import Mapping, Sequence
from importlib.util import find_spec
from pathlib import Path

from seatrial.optimize.artifact import digest_bytes
from seatrial.optimize.scratch import name as scratch_name

from ...errors import ServerError

_BACKEND_FILES = ("libtriton_python.so", "triton_python_backend_utils.py")


def installed() -> Path:
    """The folder ``tritonserver`` inside the installed wheel, found without importing it.

    Raises:
        ServerError: the wheel is not installed, or came without the server.
    """
    spec = find_spec("pytriton")
    root = Path(spec.origin).parent / "tritonserver" if spec is not None and spec.origin else None
    if root is None or not binary(root).is_file():
        raise ServerError(
            "no Triton server is installed: the nvidia-pytriton wheel is missing, or lacks its binary",
            where=str(root or sys.prefix),
            next_step="install it: pip install 'seatrial[serve]' (Linux, glibc 2.35 or newer)",
        )
    return root


def binary(root: Path) -> Path:
    """The server's executable."""
    return root / "bin" / "tritonserver"


def caches(root: Path) -> Path:
    """The folder of its response caches; the server itself looks under /opt."""
    return root / "caches"


def backends(root: Path, folder: Path) -> Path:
    """A backend directory of links under `folder`, with the python backend and the stub for this Python.

    Raises:
        ServerError: the wheel has no stub for this Python, or the folder cannot be written.
    """
    python = f"{sys.version_info.major}.{sys.version_info.minor}"
    stub = root / "python_backend_stubs" / python / "triton_python_backend_stub"
    sources = [root / "backends" / "python" / name for name in _BACKEND_FILES] + [stub]
    for source in sources:
        if not source.is_file():
            known = sorted(path.name for path in (root / "python_backend_stubs").glob("*"))
            raise ServerError(
                f"the Triton wheel lacks {source.name}" + (f" for Python {python}" if source == stub else ""),
                where=str(source),
                next_step=f"run under one of its Pythons ({', '.join(known) or 'none'}), or install the wheel again",
            )
    # One folder per wheel and Python: never changed once it is there, since running servers load from it.
    ready = folder / f"backends-{python}-{digest_bytes(str(root).encode())[7:19]}"
    if _holds(ready, sources):
        return ready
    staged = folder / scratch_name(".backends")
    try:
        (staged / "python").mkdir(parents=True)
        for source in sources:
            (staged / "python" / source.name).symlink_to(source)
        if ready.exists():  # not as it was made: whatever lies there would run in the server
            ready.rename(staged.with_name(f"{staged.name}-old"))
        staged.rename(ready)
    except OSError as error:
        if not _holds(ready, sources):  # else another process was quicker, with the same links
            raise ServerError(
                f"cannot prepare the server's backends: {error.strerror or error}",
                where=str(folder),
                next_step="free space there, or set SEATRIAL_HOME to another folder",
            ) from error
    finally:
        shutil.rmtree(staged, ignore_errors=True)
        shutil.rmtree(staged.with_name(f"{staged.name}-old"), ignore_errors=True)
    return ready


def _holds(folder: Path, sources: Sequence[Path]) -> bool:
    """Return whether a backend directory holds exactly these files as links, and nothing else."""
    backend = folder / "python"
    try:
        if [path.name for path in folder.iterdir()] != ["python"] or backend.is_symlink():
            return False
        return {path.name: path.readlink() for path in backend.iterdir()} == {path.name: path for path in sources}
    except OSError:
        return False


def surroundings(scratch: Path, environ: Mapping[str, str] = os.environ) -> dict[str, str]:
    """The server's environment variables: this Python first on PATH, its libpython to be found, a private TMPDIR.

    Raises:
        ServerError: this Python has no shared libpython for the stub to load.
    """
    variables = dict(environ)
    variables["PATH"] = os.pathsep.join([str(Path(sys.prefix) / "bin"), environ.get("PATH", os.defpath)])
    variables["LD_LIBRARY_PATH"] = os.pathsep.join(
        part for part in (str(libpython().parent), environ.get("LD_LIBRARY_PATH", "")) if part
    )
    variables["TMPDIR"] = str(scratch)
    return variables


def libpython() -> Path:
    """The shared libpython of this Python.

    Raises:
        ServerError: there is none: Python was built without it, or its package is not installed.
    """
    name = sysconfig.get_config_var("INSTSONAME") or ""
    folders = [sysconfig.get_config_var("LIBDIR") or "", f"{sys.base_prefix}/lib"]
    multiarch = sysconfig.get_config_var("MULTIARCH") or ""
    folders += [f"/usr/lib/{multiarch}", f"/lib/{multiarch}", "/usr/lib64", "/usr/lib"]
    for folder in folders:
        if ".so" in name and (Path(folder) / name).is_file():
            return Path(folder) / name
    raise ServerError(
        "the Python backend needs a shared libpython, but this Python has none",
        where=f"{sys.executable}: looked for {name or 'libpython'} in {', '.join(filter(None, folders))}",
        next_step="use a Python built with --enable-shared, or install its libpython package",
    )
