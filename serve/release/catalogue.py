"""The catalogue: every model with its owner, state, release and versions, and what is served without being in it.

Pure. What is placed, served and registered is handed in.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from .criteria import Criteria
from .lifecycle import State, state_of
from .record import Release
from .trail import Entry


@dataclass(frozen=True, slots=True, kw_only=True)
class PlacedVersion:
    """A version in a model repository; `served` is the fraction of live requests that it takes, None where unknown."""

    model: str
    version: int
    digest: str
    ours: bool = True
    served: float | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Line:
    """One model of the catalogue. `serving` are version and fraction of live requests, `open` KPIs not decided yet."""

    name: str
    owner: str
    purpose: str
    state: State
    release: str
    placed: tuple[int, ...]
    serving: tuple[tuple[int, float], ...]
    open: tuple[str, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Orphan:
    """Something that is served or placed without being catalogued, or the reverse."""

    model: str
    what: str
    next_step: str


def catalogue(
    criteria: Mapping[str, Criteria],
    releases: Mapping[str, Sequence[Release]],
    placed: Sequence[PlacedVersion],
    entries: Sequence[Entry],
) -> tuple[Line, ...]:
    """Return every model that has criteria, a release, a placed version or an entry, by name."""
    by_model: dict[str, list[Entry]] = {}
    for entry in entries:
        by_model.setdefault(entry.model, []).append(entry)
    names = {*criteria, *releases, *(each.model for each in placed), *by_model}
    return tuple(_line(name, criteria, releases, placed, by_model.get(name, [])) for name in sorted(names))


def _line(
    name: str,
    criteria: Mapping[str, Criteria],
    releases: Mapping[str, Sequence[Release]],
    placed: Sequence[PlacedVersion],
    entries: Sequence[Entry],
) -> Line:
    mine = [each for each in placed if each.model == name]
    newest = releases.get(name) or ()
    said = [each for each in entries if each.event == "registered"]
    return Line(
        name=name,
        owner=criteria[name].owner if name in criteria else "",
        purpose=criteria[name].purpose if name in criteria else "",
        state=state_of(entries),
        release=newest[-1].label if newest else "",
        placed=tuple(each.version for each in mine),
        serving=tuple((each.version, each.served) for each in mine if each.served),
        open=tuple(said[-1].details.get("open", ())) if said else (),
    )


def orphans(
    lines: Sequence[Line], releases: Mapping[str, Sequence[Release]], placed: Sequence[PlacedVersion]
) -> tuple[Orphan, ...]:
    """Return what is placed or served without a release or an owner, and what is monitored without being placed."""
    digests = {release.digest for each in releases.values() for release in each}
    found = []
    for each in placed:
        where = "served" if each.served else "placed"
        if not each.ours:
            step = "place it with seatrial, or move it away"
            found.append(Orphan(model=each.model, what=f"{where} without a record of seatrial's", next_step=step))
        elif each.digest not in digests:
            what = f"version {each.version} is {where}, and its artifact {each.digest[:19]} is no release"
            step = f"gate and register it, or retire it: seatrial retire {each.model} {each.version}"
            found.append(Orphan(model=each.model, what=what, next_step=step))
    for line in lines:
        if line.placed and not line.owner:
            step = f"write serve/criteria/{line.name}.toml, which names its owner and purpose"
            found.append(Orphan(model=line.name, what="it is placed, and has no owner", next_step=step))
        if line.state == "monitoring" and not line.placed:
            what = "by the trail it is served, but no version of it is placed here"
            step = "look where it is served: seatrial catalogue --repository DIR"
            found.append(Orphan(model=line.name, what=what, next_step=step))
    return tuple(found)


def backstage(line: Line) -> dict[str, Any]:
    """Return the model as an entity of a Backstage catalogue (backstage.io/v1alpha1, kind Component)."""
    lifecycle = {"monitoring": "production", "deployment": "production", "retirement": "deprecated"}
    annotations = {"seatrial/release": line.release, "seatrial/state": line.state}
    return {
        "apiVersion": "backstage.io/v1alpha1",
        "kind": "Component",
        "metadata": {
            "name": line.name,
            "description": line.purpose or f"The model {line.name}.",
            "annotations": {key: value for key, value in annotations.items() if value},
        },
        "spec": {
            "type": "ml-model",
            "lifecycle": lifecycle.get(line.state, "experimental"),
            "owner": line.owner or "unknown",
        },
    }
