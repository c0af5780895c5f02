"""Acts entered in the trail of this home, by the user who runs this."""

import getpass
import os
from collections.abc import Mapping, Sequence
from typing import Any

from seatrial.optimize.environment import home

from .record import Release
from .trail import Event


def actor() -> str:
    """Return who acts: ``SEATRIAL_ACTOR`` (for a CI job that acts for somebody), else the user of this process."""
    try:
        return os.environ.get("SEATRIAL_ACTOR") or getpass.getuser()
    except (OSError, KeyError):  # no such user in this container
        return f"uid {os.getuid()}"


def enter(event: Event, *, model: str, subject: str = "", details: Mapping[str, Any] | None = None) -> None:
    """Add an entry; it is on the disk when this returns.

    Raises:
        IntegrityError: the trail was changed.
        MachineError: the disk refused.
    """
    from .trail_file import TrailFile  # with its cryptography

    TrailFile(home() / "trail").append(event, model=model, actor=actor(), subject=subject, details=details)


def entered(release: Release, open_: Sequence[str] = ()) -> None:
    """Enter what a registered release rests on: its gate, once, and its number; `open_` are KPIs not decided yet."""
    if known_in_trail(release):
        return
    details = {"digest": release.digest, "run": release.run, **({"open": list(open_)} if open_ else {})}
    enter("gated", model=release.name, subject=release.digest, details={"outcome": "PASS", "run": release.run})
    enter("registered", model=release.name, subject=release.label, details=details)


def known_in_trail(release: Release) -> bool:
    """Return whether the trail says that the release was registered here.

    Raises:
        IntegrityError: the trail was changed.
    """
    from .trail_file import TrailFile

    entries = TrailFile(home() / "trail").entries(model=release.name)
    return any(each.event == "registered" and each.subject == release.label for each in entries)
