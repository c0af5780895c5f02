"""Drift: what the configuration on disk says and the server, which read an older one, does not do.

Pure. A switch changes the version policy alone, so a config.pbtxt that was edited or placed anew meanwhile is in force
only after the model is unloaded and loaded. The server completes what it reads, so the disk's fields alone count.
"""

from collections.abc import Iterator, Mapping
from typing import Any

_NOT_COMPARED = ("version_policy",)


def drift(disk: Mapping[str, Any], served: Mapping[str, Any]) -> tuple[str, ...]:
    """The fields of the disk's configuration that the server's differs in; both as JSON values by the field's name."""
    return tuple(
        field
        for key, value in disk.items()
        if key not in _NOT_COMPARED
        for field in _differing(key, value, served.get(key))
    )


def _differing(path: str, disk: Any, served: Any) -> Iterator[str]:
    if isinstance(disk, Mapping) and isinstance(served, Mapping):
        for key, value in disk.items():
            yield from _differing(f"{path}.{key}", value, served.get(key))
    elif isinstance(disk, list) and isinstance(served, list) and len(disk) == len(served):
        for place, (one, other) in enumerate(zip(disk, served, strict=True)):
            yield from _differing(f"{path}[{place}]", one, other)
    elif isinstance(disk, Mapping) and not disk and served is None:
        return  # an empty message says nothing
    elif str(disk) != str(served):  # one side writes 64-bit numbers as text
        yield path
