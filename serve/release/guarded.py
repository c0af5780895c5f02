"""Protected environments: a model repository of one takes approved releases only."""

from pathlib import Path

from seatrial.optimize.artifact import Artifact
from seatrial.optimize.errors import ConfigError

from ..errors import UnapprovedError
from .record import Release
from .roles import load_roles


def check_approved(repository: Path, release: Release | None, artifact: Artifact, *, roles: Path, home: Path) -> str:
    """Refuse what a protected environment does not allow; return the repository's environment, empty where it has none.

    Without a file of roles nothing is protected. `release` is None where an artifact is placed without one.

    Raises:
        UnapprovedError: it is no release, or a role's approvals are short.
        ConfigError: the file of roles is wrong.
        IntegrityError: an approval was changed or removed.
    """
    if not roles.exists():
        return ""
    known = load_roles(roles)
    found = known.environment_of(repository, roles.parent)
    if found is None:
        return ""
    name, environment = found
    if not environment.protected:
        return name
    if release is None:
        raise UnapprovedError(
            f"the environment {name} is protected: only approved releases are placed there",
            where=str(repository),
            next_step="register it, have the release approved (seatrial approve), then place it with --release",
        )
    from .approvals import Approvals, Subject  # with its cryptography, which only protected environments need

    Approvals(home, known, roles.parent).check(Subject(release=release, artifact=artifact), name, environment)
    return name


def check_unprotected(repository: Path, roles: Path) -> None:
    """Refuse a protected environment to a walk that places what it has just registered.

    Raises:
        ConfigError: the repository is one of a protected environment.
    """
    found = load_roles(roles).environment_of(repository, roles.parent) if roles.exists() else None
    if found is not None and found[1].protected:
        raise ConfigError(
            f"the environment {found[0]} is protected, and the release could not have been approved yet",
            where=str(repository),
            next_step="ship into another repository; then approve the release (seatrial approve) and place it here",
        )
