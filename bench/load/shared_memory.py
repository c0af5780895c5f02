"""System shared memory between this client and a Triton on the same machine: laid out, registered, and cleared away.

Inputs are written once, so that requests carry only the names of regions. Sends no inference. A region of a process
that was killed is unlinked by Python's resource tracker; its registration ends with the server or the next unregister.
"""

import http.client
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from multiprocessing.shared_memory import SharedMemory
from typing import cast
from uuid import uuid4

import numpy as np

from optimize.errors import MachineError

from ..errors import TargetError
from ..targets import Endpoint
from . import messages

_SHM = "/dev/shm"
_TIMEOUT = 10.0  # seconds for one registration


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
    source, sink = f"seatrial-{token}-in", f"seatrial-{token}-out"
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
            f"{needed} bytes of shared memory are needed, {free.f_bavail * free.f_frsize} are free",
            where=_SHM,
            next_step="build fewer requests, send smaller batches, or use another protocol",
        )
    with ExitStack() as stack:
        memories = {}
        for region in regions:
            memories[region.name] = _filled(region)
            stack.callback(_gone, memories[region.name])
            stack.callback(_unregister, endpoint, region.name)
            _register(endpoint, region)
        yield lambda name: _bytes(memories[name]).tobytes()


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
            f"the server does not take shared memory: HTTP {status} {text}",
            where=endpoint.url,
            next_step="run the load where the server runs (the same /dev/shm), or use http or grpc",
        )


def _unregister(endpoint: Endpoint, name: str) -> None:
    with suppress(TargetError):  # a server that is gone has forgotten it
        _post(endpoint, name, "unregister", "")


def _post(endpoint: Endpoint, name: str, verb: str, body: str) -> tuple[int, str]:
    connection = http.client.HTTPConnection(*endpoint.address, timeout=_TIMEOUT)
    try:
        connection.request("POST", f"/v2/systemsharedmemory/region/{name}/{verb}", body)
        reply = connection.getresponse()
        return reply.status, reply.read(300).decode(errors="replace")
    except (OSError, http.client.HTTPException) as error:
        raise TargetError(f"no answer from {endpoint.url}: {error}", next_step="start the server") from error
    finally:
        connection.close()
