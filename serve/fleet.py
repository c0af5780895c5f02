"""The fleet, as a rollout sees it: versions that can be made to serve, and whether each really does.

A protocol and a value. In one Triton these are the journaled switch and the supervisor; in a cluster, its deployments.
"""

from dataclasses import dataclass
from typing import Protocol


@dataclass(frozen=True, slots=True, kw_only=True)
class Health:
    """Health of a version: does it answer a real inference now? `restarts` counts how often it alone was restarted,
    `server_restarts` how often the whole server was, with every version on it.

    `reason` says what is wrong (empty when `ok`), `memory` is the resident bytes of all that serves it, 0 if unknown.
    `server` identifies the process that was asked, empty where there was none or where versions have servers of their
    own: two answers of different processes say nothing about each other.
    """

    ok: bool
    reason: str = ""
    restarts: int = 0
    server_restarts: int = 0
    memory: int = 0
    server: str = ""


class Fleet(Protocol):
    """Interface for loading, unloading and watching versions."""

    def serve(self, model: str, versions: tuple[int, ...]) -> None:
        """Serve exactly these versions, those that already run untouched; returns when that is so and verified.

        Raises:
            ModelLoadError: a version cannot be loaded; the others serve as before.
            ServerError: the server does not answer.
        """

    def health(self, model: str, version: int) -> Health:
        """Return whether that version answers a real inference now."""
