"""Names and labels: what a model and its versions are called in a cluster.

Pure. Triton allows names that Kubernetes does not (upper case, dots, underscores, 128 characters), so a name that had
to be changed carries a digest of the original: two models never get the same name.
"""

import re

from seatrial.optimize.artifact import digest_bytes

from ..errors import RoutesError

_LABEL = re.compile(r"[a-z]([a-z0-9-]*[a-z0-9])?")
_VERSIONED = re.compile(r"(.+)-v([1-9][0-9]*)")
LONGEST_SLUG = 36
"""Longest name that leaves room under 63 characters for a version and for KServe's additions."""
LARGEST_VERSION = 10**9
NAME, INSTANCE, VERSION = (f"app.kubernetes.io/{key}" for key in ("name", "instance", "version"))


def slug(model: str) -> str:
    """The model's name as a DNS label that starts with a letter (RFC 1035, as a Service's must)."""
    made = re.sub(r"[^a-z0-9]+", "-", model.lower()).strip("-")
    made = made if made[:1].isalpha() else f"m-{made}".rstrip("-")
    if made == model and len(made) <= LONGEST_SLUG and not _VERSIONED.fullmatch(made):
        return made
    return f"{made[: LONGEST_SLUG - 9].rstrip('-')}-{digest_bytes(model.encode())[7:15]}"


def versioned(model: str, version: int) -> str:
    """The name of everything that serves one version: its Deployment, its Service, its scaler.

    Raises:
        RoutesError: a version that makes the name too long.
    """
    if not 1 <= version <= LARGEST_VERSION:
        raise RoutesError(
            f"version must be between 1 and {LARGEST_VERSION}, got {version}",
            where=model,
            next_step="name a placed version",
        )
    return f"{slug(model)}-v{version}"


def version_of(name: str, model: str) -> int | None:
    """The version that such a name stands for; None where it is none of this model's."""
    found = _VERSIONED.fullmatch(name)
    return int(found[2]) if found and found[1] == slug(model) else None


def selector(model: str, version: int) -> dict[str, str]:
    """Labels that select the pods of one version and nothing else."""
    return {NAME: "triton", INSTANCE: slug(model), VERSION: str(version)}


def labels(model: str, version: int | None = None) -> dict[str, str]:
    """Labels of an object; without a version it belongs to the model as a whole."""
    own = {NAME: "triton", INSTANCE: slug(model)} if version is None else selector(model, version)
    return own | {"app.kubernetes.io/part-of": "seatrial", "app.kubernetes.io/managed-by": "seatrial"}


def is_label(text: str) -> bool:
    """Return whether a text is a legal DNS label for a Service, a namespace or a claim."""
    return len(text) <= 63 and _LABEL.fullmatch(text) is not None
