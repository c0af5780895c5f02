"""Manifests of one environment as ``kubectl kustomize`` builds them from a rendered folder; it needs no cluster."""

import subprocess
from pathlib import Path

import yaml

from seatrial.optimize.errors import ConfigError, MachineError, MissingError
from seatrial.optimize.names import checked

from .pod import Object

_SECONDS = 60.0


def built(folder: Path, environment: str, *, kubectl: str = "kubectl") -> list[Object]:
    """Return the documents of an environment.

    Raises:
        ConfigError: the name is no name, or kustomize refuses what lies there.
        MissingError: there is no such overlay.
        MachineError: there is no kubectl.
    """
    overlay = folder / "overlays" / checked(environment, "environment", where="--diff")
    if not (overlay / "kustomization.yaml").is_file():
        known = sorted(path.parent.name for path in folder.glob("overlays/*/kustomization.yaml"))
        raise MissingError(
            f"there is no environment {environment}",
            where=str(overlay),
            next_step=f"environments there: {', '.join(known)}" if known else "render the folder first",
        )
    try:
        done = subprocess.run(
            [kubectl, "kustomize", str(overlay)], capture_output=True, text=True, timeout=_SECONDS, check=False
        )
    except FileNotFoundError as error:
        raise MachineError("there is no kubectl", next_step="install kubectl; it needs no cluster for this") from error
    except subprocess.TimeoutExpired as error:
        raise MachineError(
            f"kubectl kustomize does not end within {_SECONDS:.0f} s", where=str(overlay), next_step="run it by hand"
        ) from error
    if done.returncode:
        raise ConfigError(
            f"kubectl kustomize refuses it: {done.stderr.strip()[:300]}",
            where=str(overlay),
            next_step="fix what it names, or render the folder again",
        )
    return [each for each in yaml.safe_load_all(done.stdout) if each]
