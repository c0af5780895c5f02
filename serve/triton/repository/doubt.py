"""Doubt about something in a model's directory: the broken rule, where, and whether it keeps the model from loading.

Values only. The names of the rules are those of the audit's checklist.
"""

from dataclasses import dataclass

from seatrial.optimize.errors import IntegrityError

_PLACE_AGAIN = "move that version away and place the artifact again, under a new number"
_REMOVE = "check what it is, remove it, then run this again"
NEXT = {
    "symlink": "replace the link by the file; seatrial place never links",
    "outside": "keep every path inside the model's directory",
    "special-file": _REMOVE,
    "hard-link": "copy it over itself under one name: cp FILE FILE.copy && mv FILE.copy FILE",
    "world-writable": "use chmod o-w, and check that it was not changed",
    "set-id": "use chmod u-s,g-s",
    "foreign-owner": "chown it to the owner of the repository, and check that it was not changed",
    "unreadable": "allow this user to read it",
    "bytecode": "remove that folder (rm -r): Python runs its contents instead of the source beside it",
    "foreign-code": _REMOVE,
    "stray": _REMOVE,
    "parameter-path": "remove the parameter; seatrial place never names a file outside",
    "changed": _PLACE_AGAIN,
    "unrecorded": "move that version out of the model's directory, or place its artifact with seatrial place",
    "unverified": "place it with seatrial, and run this where the artifact store is (SEATRIAL_HOME)",
    "configuration": "move config.pbtxt away and place the model again: seatrial place",
    "other-backend": "move config.pbtxt away and place the model again: seatrial place",
    "execution-environment": "remove the parameter; install the model's requirements in the server's environment",
    "library": "remove the field; seatrial place never names a library",
    "cache-path": "allow only the server's user to write there",
    "odd-name": "rename it or move it out of the repository",
}
"""The next step of each rule."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Doubt:
    """One broken rule; a model with one that is `refused` is not loaded."""

    rule: str
    where: str
    seen: str
    refused: bool = True

    def error(self, model: str) -> IntegrityError:
        """Return the refusal to load the model."""
        return IntegrityError(f"{model} must not be loaded: {self.seen}", where=self.where, next_step=NEXT[self.rule])
