"""The revoked key: an approval that counts, and what becomes of it once its key is revoked. Nothing is written."""

from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

from seatrial.optimize.artifact import Artifact

from ..errors import RehearsalError
from ..release.approvals import Approvals, Subject
from ..release.record import Release
from ..release.roles import Roles


@dataclass(frozen=True, slots=True, kw_only=True)
class Revoked:
    """Seconds until the role was short and until it was enough again; None: the approval went on counting."""

    detected: float | None
    recovered: float | None
    evidence: str


def revoked(
    home: Path, roles: Roles, base: Path, release: Release, artifact: Artifact, *, clock: Callable[[], float]
) -> Revoked:
    """Revoke, in memory, the key of the first approval of the release that counts in a protected environment.

    Raises:
        RehearsalError: none counts.
        IntegrityError: an approval was changed or removed.
    """
    subject = Subject(release=release, artifact=artifact)
    given = {each.key: each for each, _ in Approvals(home, roles, base).read(subject)}
    for name, environment in roles.environments.items():
        if not environment.protected:
            continue
        for standing in Approvals(home, roles, base).standings(subject, environment):
            for key, approval in given.items():
                if approval.role != standing.role or approval.member not in standing.counted:
                    continue
                begun = clock()
                changed = replace(roles, revoked=(*roles.revoked, key))
                after = Approvals(home, changed, base).standings(subject, environment)
                short = next(each for each in after if each.role == standing.role)
                gone = approval.member not in short.counted
                seconds = clock() - begun
                again = Approvals(home, roles, base).standings(subject, environment)
                back = approval.member in next(each for each in again if each.role == standing.role).counted
                return Revoked(
                    detected=seconds if gone else None,
                    recovered=clock() - begun if back else None,
                    evidence=f"{name}: {'; '.join(short.others)}" if gone else "",
                )
    raise RehearsalError(
        f"no approval of {release.label} counts in a protected environment",
        next_step=f"approve it first: seatrial approve {release.label} --as ROLE --key FILE",
    )
