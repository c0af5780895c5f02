"""Differences between two environments as they lie on the disk, and which of them are allowed.

Pure. Allowed are the namespace, the environment's label, the number of copies, and the digest of the server's image:
what `overlay` changes. Anything else was edited by hand, and what passed in one environment says less of the other.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from .overlay import LABEL
from .pod import Object

Path = tuple[str, ...]
_COPIES = frozenset((("spec", "minReplicas"), ("spec", "maxReplicas")))
_MISSING = "none"


@dataclass(frozen=True, slots=True, kw_only=True)
class Difference:
    """One field that differs: the object's kind and name, the field's path, and both values."""

    kind: str
    name: str
    field: str
    first: str
    second: str


def differences(first: Sequence[Object], second: Sequence[Object]) -> tuple[Difference, ...]:
    """Return every difference that is not allowed, by object and field."""
    ours, theirs = _by_name(first), _by_name(second)
    found = list[Difference]()
    for kind, name in sorted({*ours, *theirs}):
        one, two = ours.get((kind, name)), theirs.get((kind, name))
        if one is None or two is None:
            values = ["there" if each is not None else _MISSING for each in (one, two)]
            found.append(Difference(kind=kind, name=name, field="", first=values[0], second=values[1]))
            continue
        leaves = dict(_leaves(one, ())), dict(_leaves(two, ()))
        for path in sorted({*leaves[0], *leaves[1]}):
            values = [str(each.get(path, _MISSING)) for each in leaves]
            if values[0] != values[1] and not _allowed(kind, path, values):
                found.append(Difference(kind=kind, name=name, field=".".join(path), first=values[0], second=values[1]))
    return tuple(found)


def _by_name(documents: Sequence[Object]) -> dict[tuple[str, str], Object]:
    return {(str(each.get("kind")), str(each.get("metadata", {}).get("name"))): each for each in documents}


def _leaves(value: Any, path: Path) -> Iterator[tuple[Path, Any]]:
    """Yield every leaf with its path; entries of a list are told apart by their name where they have one."""
    if isinstance(value, Mapping):
        for key, each in value.items():
            yield from _leaves(each, (*path, str(key)))
    elif isinstance(value, list):
        for number, each in enumerate(value):
            name = each.get("name") if isinstance(each, Mapping) else None
            yield from _leaves(each, (*path, f"[{name if name else number}]"))
        yield (*path, "[]"), len(value)
    else:
        yield path, value


def _allowed(kind: str, path: Path, values: Sequence[str]) -> bool:
    if path in (("metadata", "namespace"), ("metadata", "labels", LABEL)):
        return True
    if kind == "HorizontalPodAutoscaler" and path in _COPIES:
        return True
    if path[-1:] == ("image",):
        return len({_repository(value) for value in values}) == 1 and any("@" in value for value in values)
    return False


def _repository(image: str) -> str:
    """Return an image's name without tag and digest."""
    name = image.partition("@")[0]
    head, _, last = name.rpartition("/")
    return f"{head}/{last.partition(':')[0]}"
