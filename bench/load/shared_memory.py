"""System shared memory between this client and a Triton on the same machine: laid out, registered, and cleared away.

Inputs are written once, so that requests carry only the names of regions. Sends no inference. What a killed process
left registered is unregistered by the next load of ours on that server, once the region is gone or unlocked.
"""

import fcntl
import http.client
import json
import os
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from multiprocessing.shared_memory import SharedMemory
from pathlib import Path
from typing import cast
from uuid import uuid4

import numpy as np

from seatrial.optimize.errors import MachineError
from seatrial.optimize.interrupts import held

from ..errors import TargetError
from ..targets import Endpoint
from . import messages

_SHM = "/dev/shm"
_OURS = re.compile(r"seatrial-(?P<locked>load-)?[0-9a-f]{12}-(in|out)")  # without "load-": of earlier versions
_TIMEOUT = 10.0  # seconds for one registration
_LONGEST = 1 << 20  # bytes of a reply


@dataclass(frozen=True, slots=True, kw_only=True)
class Region:
    """A piece of shared memory of `size` bytes under `name`, starting with `data`."""

    name: str
    size: int
    data: bytes = b""


def laid_out(
    endpoint: Endpoint, requests: Sequence[Mapping[str, messages.Array]], batch: int
) -> tuple[tuple[bytes, ...], tuple[Region, ...]]:
    """The messages for requests whose tensors lie in one region, and whose answers of known size go into another.

    Every request has a place of its own for its answers: two of them at once would write the same bytes.
    """
    token = uuid4().hex[:12]
    source, sink = f"seatrial-load-{token}-in", f"seatrial-load-{token}-out"
    sizes = {spec.name: messages.output_bytes(spec, batch) for spec in endpoint.outputs}
    data, answers, found = bytearray(), 0, []
    for tensors in requests:
        given, taken = {}, {}
        for name, tensor in tensors.items():
            raw = messages.tensor_bytes(tensor)
            given[name] = (len(data), len(raw))
            data += raw + bytes(-len(raw) % messages.ALIGNMENT)
        for name, size in sizes.items():
            if size:
                taken[name] = (answers, size)
                answers += size + -size % messages.ALIGNMENT
        found.append(messages.naming_regions(endpoint, tensors, (source, given), (sink, taken)))
    regions = [Region(name=source, size=len(data), data=bytes(data))]
    if answers:
        regions.append(Region(name=sink, size=answers))
    return tuple(found), tuple(regions)


@contextmanager
def registered(endpoint: Endpoint, regions: Sequence[Region]) -> Iterator[Callable[[str], bytes]]:
    """The regions made, filled and registered for a block, which can read them; unregistered and unlinked afterwards.

    Raises:
        MachineError: shared memory has no room.
        TargetError: the server does not take them, as when it sees another machine's shared memory.
    """
    free = os.statvfs(_SHM)
    needed = sum(region.size for region in regions)
    if needed > free.f_bavail * free.f_frsize:
        raise MachineError(
            f"{needed} bytes of shared memory are needed, but only {free.f_bavail * free.f_frsize} are free",
            where=_SHM,
            next_step="build fewer requests, send smaller batches, or use another protocol",
        )
    sweep(endpoint)
    with ExitStack() as stack:
        memories = {}
        for region in regions:
            with held():
                memories[region.name] = _filled(region)
                stack.callback(_gone, memories[region.name])
                stack.callback(os.close, _lock(region.name))
                stack.callback(_unregister, endpoint, region.name)
            _register(endpoint, region)
        try:
            yield lambda name: _bytes(memories[name]).tobytes()
        finally:
            with held():
                stack.close()


def sweep(endpoint: Endpoint) -> tuple[str, ...]:
    """Unregister what killed loads of this machine left registered, and remove their regions; returns the names."""
    swept = []
    for name in registrations(endpoint):
        found = _OURS.fullmatch(name)
        if found and _abandoned(name, locked=bool(found["locked"])):
            _unregister(endpoint, name)
            swept.append(name)
    for path in Path(_SHM).glob("seatrial-load-*"):
        if _OURS.fullmatch(path.name) and _abandoned(path.name, locked=True):
            path.unlink(missing_ok=True)
    return tuple(swept)


def registrations(endpoint: Endpoint) -> tuple[str, ...]:
    """Return the names of the regions that the server has registered; none where it does not tell."""
    with suppress(TargetError, ValueError, TypeError, KeyError):
        status, text = _exchange(endpoint, "GET", "/v2/systemsharedmemory/status", "")
        return tuple(str(each["name"]) for each in json.loads(text)) if status == 200 else ()
    return ()


def _abandoned(name: str, *, locked: bool) -> bool:
    """Tell whether a region is gone, or is of a kind that its user locks and is unlocked."""
    try:
        handle = os.open(f"{_SHM}/{name}", os.O_RDWR | os.O_NOFOLLOW)
    except FileNotFoundError:
        return True
    except OSError:
        return False
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        return locked
    except OSError:
        return False
    finally:
        os.close(handle)


def _lock(name: str) -> int:
    """Hold a lock on a region while this process uses it: by that others know that it is not abandoned."""
    handle = os.open(f"{_SHM}/{name}", os.O_RDWR)
    fcntl.flock(handle, fcntl.LOCK_EX)
    return handle


def _filled(region: Region) -> SharedMemory:
    memory = SharedMemory(name=region.name, create=True, size=max(1, region.size))
    _bytes(memory)[: len(region.data)] = np.frombuffer(region.data, np.uint8)
    return memory


def _bytes(memory: SharedMemory) -> messages.Array:
    return np.frombuffer(cast(memoryview, memory.buf), np.uint8)


def _gone(memory: SharedMemory) -> None:
    memory.close()
    memory.unlink()


def _register(endpoint: Endpoint, region: Region) -> None:
    status, text = _post(
        endpoint, region.name, "register", f'{{"key":"/{region.name}","offset":0,"byte_size":{region.size}}}'
    )
    if status != 200:
        raise TargetError(
            f"the server refused shared memory: HTTP {status} {text}",
            where=endpoint.url,
            next_step="run the load where the server runs (the same /dev/shm), or use http or grpc",
        )


def _unregister(endpoint: Endpoint, name: str) -> None:
    with suppress(TargetError):  # a server that is gone has forgotten it
        _post(endpoint, name, "unregister", "")


def _post(endpoint: Endpoint, name: str, verb: str, body: str) -> tuple[int, str]:
    status, text = _exchange(endpoint, "POST", f"/v2/systemsharedmemory/region/{name}/{verb}", body)
    return status, text[:300]


def _exchange(endpoint: Endpoint, method: str, path: str, body: str) -> tuple[int, str]:
    connection = http.client.HTTPConnection(*endpoint.address, timeout=_TIMEOUT)
    try:
        connection.request(method, path, body)
        reply = connection.getresponse()
        return reply.status, reply.read(_LONGEST).decode(errors="replace")
    except (OSError, http.client.HTTPException) as error:
        raise TargetError(f"no answer from {endpoint.url}: {error}", next_step="start the server") from error
    finally:
        connection.close()
