"""Reproduction: rebuilds an artifact's chain from its provenance in an empty store, and compares digest by digest.

Says where the first difference is and which ingredient explains it. What cannot be tried (the recipe or its files are
gone, the machine cannot run the artifact) is "could not tell", never a difference.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from .. import scratch
from ..artifact import Artifact
from ..environment import environment, home
from ..errors import SeatrialError
from ..recipe.recipe import load_recipe
from ..recipe.recorded import recorded_recipe
from ..recipe.targets import broken
from ..store import Store
from .build import Progress, replay

Outcome = Literal["equal", "differs", "could not tell"]
EXIT_CODES: Mapping[Outcome, int] = {"equal": 0, "differs": 1, "could not tell": 3}
# Order in which differences are explained: changes by the user first, then those of upgrades.
_CAUSES = {
    "source": "source",
    "name": "source",
    "files": "source",
    "config": "stage configuration",
    "student": "source",
    "golden": "samples",
    "samples": "samples",
    "seed": "seed",
    "target": "machine",
    "code": "code",
    "libraries": "library versions",
    "python": "library versions",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Link:
    """One link of the chain: the digest that was recorded, the one made now, and why they differ where they do."""

    stage: str
    recorded: str
    rebuilt: str
    causes: tuple[str, ...] = ()

    @property
    def equal(self) -> bool:
        """True if both digests are equal."""
        return self.recorded == self.rebuilt


@dataclass(frozen=True, slots=True, kw_only=True)
class Reproduction:
    """Outcome of a reproduction: the links from the source on, and the reason in one sentence."""

    outcome: Outcome
    reason: str
    links: tuple[Link, ...] = ()


def reproduce(
    artifact: Artifact,
    store: Store,
    recipe: Path | None = None,
    progress: Progress = lambda label, share, text: None,
) -> Reproduction:
    """Rebuild the artifact from its recipe alone, and compare every link of the chain.

    `recipe` stands in for the file that the artifact was made from, for instance after it has moved.
    """
    chain = tuple(reversed(store.history(artifact)))
    if chain[0].made_by.parent is not None:
        return _untold(f"the chain is incomplete: the parent of {chain[0].short} is not in the store")
    for link in chain:
        if why := broken(link.requires, environment()):
            return _untold(f"{link.short} cannot run here: {why}")
    try:
        found = load_recipe(recipe) if recipe is not None else recorded_recipe(artifact, store)
        with scratch.folder("reproduce", home() / "work") as folder:
            empty = Store(folder / "store")
            rebuilt = replay(found, chain, empty, progress)
            links = tuple(
                Link(
                    stage=old.made_by.stage,
                    recorded=old.digest,
                    rebuilt=new.digest,
                    causes=() if old.digest == new.digest else causes(old, new, store, empty),
                )
                for old, new in zip(chain, rebuilt, strict=True)
            )
    except SeatrialError as error:
        return _untold(f"it could not be rebuilt: {error.what}{f' ({error.where})' if error.where else ''}")
    return _compared(links)


def causes(old: Artifact, new: Artifact, store: Store, empty: Store) -> tuple[str, ...]:
    """List the ingredients that differ between two artifacts, as text, except differences of their parents."""
    before, now = store.recall("ingredients", old.digest), empty.recall("ingredients", new.digest)
    if before is None or now is None:
        before, now = _provenance(old), _provenance(new)
    return differing(before, now)


def differing(before: Mapping[str, Any], now: Mapping[str, Any]) -> tuple[str, ...]:
    """Every ingredient that differs, named by its cause."""
    found = []
    for key, cause in _CAUSES.items():
        if before.get(key) != now.get(key):
            found.append(f"{cause} ({key}: {_difference(before.get(key), now.get(key))})")
    return tuple(found)


def _difference(before: Any, now: Any) -> str:
    if isinstance(before, Mapping) and isinstance(now, Mapping):
        keys = [key for key in {**before, **now} if before.get(key) != now.get(key)]
        return ", ".join(f"{key} {_short(before.get(key))} then, {_short(now.get(key))} now" for key in keys)
    return f"{_short(before)} then, {_short(now)} now"


def _short(value: Any) -> str:
    text = str(value)
    return text[:19] if text.startswith("sha256:") else text if len(text) <= 60 else f"{text[:60]}..."


def _provenance(artifact: Artifact) -> dict[str, Any]:
    """Return the ingredients that provenance alone contains, for artifacts of a store that recorded no more."""
    made = artifact.made_by
    return {
        "config": dict(made.config),
        "samples": made.samples,
        "seed": made.seed,
        "libraries": dict(made.environment.get("libraries", {})),
        "python": made.environment.get("python"),
        "code": made.environment.get("commit"),
        "files": [file.digest for file in artifact.files] if made.parent is None else [],
    }


def _compared(links: tuple[Link, ...]) -> Reproduction:
    first = next((link for link in links if not link.equal), None)
    if first is None:
        return Reproduction(outcome="equal", reason=f"all {len(links)} digests of the chain are equal", links=links)
    why = "; ".join(first.causes) or "no ingredient differs: the stage is not deterministic on this machine"
    return Reproduction(outcome="differs", reason=f"the first difference is in {first.stage}: {why}", links=links)


def _untold(reason: str) -> Reproduction:
    return Reproduction(outcome="could not tell", reason=reason)
