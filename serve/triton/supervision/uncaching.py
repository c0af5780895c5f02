"""Switching Triton's response cache off where it does not pay: on the server, then on disk.

Looks at counters now and then and changes nothing else about a model. A model of which several versions serve is left
alone: they may be under comparison, and all would be loaded anew. A cache that was switched off comes back when the
model is placed anew with one.
"""

from collections import Counter, defaultdict
from collections.abc import Iterable
from pathlib import Path

from ..control import Control
from ..repository import journal
from ..repository.placing import uncache
from .cache_worth import Stretches, Worth
from .switch import vouch


class Caches:
    """State of the response caches of one server between two checks."""

    def __init__(self) -> None:
        self._stretches: defaultdict[tuple[str, int], Stretches] = defaultdict(Stretches)

    def look(self, control: Control, versions: Iterable[tuple[str, int]]) -> dict[str, Worth]:
        """The models of which one of these versions serves and whose cache does not pay, with what speaks against it.

        Raises:
            ServerError: no answer.
        """
        versions = list(versions)
        serving = Counter(model for model, _ in versions)
        found = {
            model: self._stretches[model, version].judge(control.statistics(model, version))
            for model, version in versions
            if serving[model] == 1
        }
        return {model: worth for model, worth in found.items() if worth is not None and not worth.pays}


def switch_off(control: Control, repository: Path, model: str) -> bool:
    """Serve the model without its response cache, and write that down; False where a switch of it is under way.

    Raises:
        ModelLoadError: it does not load again; it serves on as it did.
        IntegrityError, ConfigError: what would be loaded again is not what was placed.
        MachineError: another process switches it at this moment, or the disk refused.
        ServerError: no answer.
    """
    with journal.lock(repository, model, timeout=0.0):
        entry = journal.read(repository, model)
        if entry is not None and entry.state != "verified":
            return False
        vouch(control, repository, model, control.ready_versions(model))
        control.without_cache(model)
        uncache(repository, model)
    return True
