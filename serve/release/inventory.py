"""Inventory of the store: each artifact, who uses it, and so which may go.

Pure. A release's artifact stays for good, and so does what is placed, tagged, and every ancestor of what stays: a
release can always be compared, reproduced and placed again.
"""

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta

from seatrial.optimize.artifact import Artifact

from .record import Release
from .trail import Entry


@dataclass(frozen=True, slots=True, kw_only=True)
class Item:
    """An artifact of the store, its size in bytes, when it was made, its tags, and who uses it."""

    digest: str
    name: str
    format: str
    size: int
    at: str
    tags: tuple[str, ...]
    used_by: tuple[str, ...]


def inventory(
    artifacts: Sequence[Artifact],
    tags: Mapping[str, Sequence[str]],
    uses: Iterable[tuple[str, str]],
) -> tuple[Item, ...]:
    """Return every artifact with who uses it, oldest first; `uses` are pairs of a digest and who uses it."""
    by = defaultdict[str, list[str]](list)
    for digest, who in uses:
        if who not in by[digest]:
            by[digest].append(who)
    for digest, named in tags.items():
        by[digest] += [f"tag {each}" for each in named]
    known = {each.digest: each for each in artifacts}
    for each in artifacts:
        if by[each.digest]:
            _hold_ancestors(each, known, by)
    return tuple(
        Item(
            digest=each.digest,
            name=each.name,
            format=each.format,
            size=each.size,
            at=each.made_by.at,
            tags=tuple(tags.get(each.digest, ())),
            used_by=tuple(by[each.digest]),
        )
        for each in artifacts
    )


def _hold_ancestors(artifact: Artifact, known: Mapping[str, Artifact], by: dict[str, list[str]]) -> None:
    """Say of every ancestor that this artifact was made from it."""
    seen = {artifact.digest}
    parent = artifact.made_by.parent
    while parent is not None and parent in known and parent not in seen:
        seen.add(parent)
        who = f"parent of {artifact.short}"
        if who not in by[parent]:
            by[parent].append(who)
        parent = known[parent].made_by.parent


def release_uses(releases: Iterable[Release]) -> Iterable[tuple[str, str]]:
    """Yield the artifact of each release, and of the reference that its verdict compared it with."""
    for each in releases:
        yield each.digest, f"release {each.label}"
        base = each.verdict.get("base")
        if isinstance(base, Mapping) and isinstance(base.get("digest"), str):
            yield base["digest"], f"base of release {each.label}"


def trail_uses(entries: Iterable[Entry]) -> Iterable[tuple[str, str]]:
    """Yield what was placed and not retired, in whichever repository, by the trail."""
    placed = dict[tuple[str, int], str]()
    for each in entries:
        version = each.details.get("version")
        if not isinstance(version, int):
            continue
        if each.event == "placed":
            placed[each.model, version] = str(each.details.get("digest", ""))
        elif each.event == "retired":
            placed.pop((each.model, version), None)
    for (model, version), digest in placed.items():
        yield digest, f"placed as {model} version {version}"


def unused(items: Iterable[Item], *, before: datetime) -> tuple[Item, ...]:
    """Return what nobody uses and was made before that time; what says no time is too young."""
    found = list[Item]()
    for each in items:
        try:
            made = datetime.fromisoformat(each.at)
        except ValueError:
            continue
        if not each.used_by and made.astimezone() < before:
            found.append(each)
    return tuple(found)


def age(text: str) -> timedelta:
    """Return an age such as ``30d``, ``12h`` or ``0d``.

    Raises:
        ValueError: it is none.
    """
    unit = {"d": "days", "h": "hours"}.get(text[-1:])
    if unit is None or not text[:-1].isdecimal() or len(text) > 6:
        raise ValueError(f"{text[:20]!r} is not an age such as 30d or 12h")
    return timedelta(**{unit: int(text[:-1])})
