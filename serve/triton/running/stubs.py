"""The processes in which Triton's python backend runs models: whose they are, how they are, and what they hold.

Reads /proc through psutil; ends nothing. A stub's command line begins with the path of its version's model.py.
"""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ...errors import ExhaustedError
from ...exhaustion import lacking
from ...processes import halted, start_ticks


@dataclass(frozen=True, slots=True, kw_only=True)
class Stub:
    """One process of one instance of a version; `stopped` when it was halted by a signal and gives no answers."""

    pid: int
    started: int
    model: str
    version: int
    stopped: bool


def stubs(server: int) -> tuple[Stub, ...]:
    """The living stubs of the server with that process number.

    Raises:
        ExhaustedError: this process cannot look.
    """
    with _looking(server):
        return tuple(_stubs(server))


def expected(config: Mapping[str, Any]) -> int:
    """Return the number of stubs of a version by its configuration; 0 if it has no process of its own."""
    if config.get("backend") != "python":
        return 0
    groups = config.get("instance_group", ())
    return sum(int(group.get("count", 1)) * max(1, len(group.get("gpus", ()))) for group in groups)


def memory(server: int, model: str, version: int) -> int:
    """Bytes that the server and the stubs of that version hold, pages shared by several divided up (PSS).

    Raises:
        ExhaustedError: this process cannot look.
    """
    mine = [stub.pid for stub in stubs(server) if (stub.model, stub.version) == (model, version)]
    with _looking(server):
        return sum(_pss(pid) for pid in (server, *mine))


@contextmanager
def _looking(server: int) -> Iterator[None]:
    """Turn what psutil raises where this process lacks something into an error of ours."""
    try:
        yield
    except (OSError, MemoryError) as error:
        raise ExhaustedError(
            f"this process cannot inspect the server's processes: {lacking(error) or error}",
            where=f"/proc/{server}",
            next_step="close programs that hold descriptors or memory on this machine, or raise the limit (ulimit -n)",
        ) from error


def _stubs(server: int) -> Iterator[Stub]:
    import psutil

    try:
        children = psutil.Process(server).children()
    except psutil.Error:
        return
    for child in children:
        try:
            words = child.cmdline()
        except psutil.Error:
            continue  # gone meanwhile
        ticks = start_ticks(child.pid)
        path = Path(words[1]) if len(words) > 1 else Path()
        if ticks is None or not path.parent.name.isdecimal() or "triton_python_backend_stub" not in words[0]:
            continue
        yield Stub(
            pid=child.pid,
            started=ticks,
            model=path.parent.parent.name,
            version=int(path.parent.name),
            stopped=halted(child.pid),
        )


def _pss(pid: int) -> int:
    import psutil

    try:
        process = psutil.Process(pid)
        try:
            return int(process.memory_full_info().pss)
        except psutil.AccessDenied:
            return int(process.memory_info().rss)
    except psutil.Error:
        return 0
