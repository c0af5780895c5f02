"""Versions that should be served: from the journals, else from what was served before any entry.

Reads journals and the server's index, and finishes switches that died half-done. A journal that cannot be read is told
and says nothing; it keeps no other model from being watched, healed or started again.
"""

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from seatrial.optimize.errors import IntegrityError, SeatrialError

from ...exhaustion import lacking
from ..control import Control
from ..repository import journal
from ..repository.placing import choose, chosen
from .switch import Recovered, recover_all

Version = tuple[str, int]


class Meant:
    """State of one repository between two checks; `tell` takes an event, its subject and details."""

    def __init__(self, repository: Path, tell: Callable[..., Any]) -> None:
        self._repository, self._tell = repository, tell
        self.versions: set[Version] = set()

    def look(self, control: Control) -> dict[Version, str]:
        """Versions to look at, each with the reason why it does not serve, empty where the server says it does."""
        states = [each for each in control.index() if each.version]
        ready = {(each.name, int(each.version)) for each in states if each.state == "READY"}
        reasons = {(each.name, int(each.version)): each.reason for each in states}
        for model in {name for name, _ in ready | self.versions}:
            entry = self._journal(model)
            if entry is not None:
                others = {each for each in self.versions if each[0] != model}
                meant = set(entry.after) if entry.state == "verified" else set()
                self.versions = others | {(model, version) for version in meant}
        journaled = set(journal.journaled(self._repository))
        by_hand = {each for each, why in reasons.items() if why == "unloaded" and each[0] not in journaled}
        missing = self.versions - ready - by_hand
        self.versions = (self.versions | ready) - by_hand
        return dict.fromkeys(sorted(ready), "") | {
            each: f"not served: {reasons.get(each) or 'not loaded'}" for each in sorted(missing)
        }

    def finish_switches(self, control: Control) -> Iterator[Recovered]:
        """Finish or undo what a switcher that died left; one that still works holds the lock and is left alone."""
        entries = [self._journal(model) for model in journal.journaled(self._repository)]
        if any(entry is not None and entry.state != "verified" for entry in entries):
            yield from (each for each in recover_all(control, self._repository, wait=0.0) if each.remedy != "nothing")

    def settle(self) -> None:
        """Without a server: finish or undo half-done switches, and let the disk say what the journals say."""
        for outcome in recover_all(None, self._repository):
            entry = self._journal(outcome.model)
            if entry is None or entry.state != "verified" or not entry.after:
                continue
            try:
                if chosen(self._repository, outcome.model) != entry.after:
                    choose(self._repository, outcome.model, entry.after)
            except SeatrialError as error:  # this model then starts as the disk has it
                self._unclear(outcome.model, error)

    def _journal(self, model: str) -> journal.Entry | None:
        try:
            return journal.read(self._repository, model)
        except IntegrityError as error:
            self._unclear(model, error)
            return None

    def _unclear(self, model: str, error: SeatrialError) -> None:
        if lacking(error):
            raise error
        self._tell("unclear", model, reason=error.what, next_step=error.next_step)
