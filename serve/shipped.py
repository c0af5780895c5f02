"""Files that came with the package, for defaults: an example cluster, the usual plan of a rollout, the demo's files."""

from pathlib import Path

_PACKAGES = Path(__file__).absolute().parents[1]


def shipped(path: Path) -> Path:
    """Return a relative path as it is where something lies there, or else what came with the package under it.

    So the same default holds in a checkout, in a project of the user's own, and anywhere else.
    """
    own = _PACKAGES / path
    return own if not path.exists() and not path.is_absolute() and own.is_file() else path
